from pathlib import Path

import pytest

from producers.relay.vms import Connect, Listen, Vm, Vsock, in_folder, in_xml, parse, together
from schemas.errors import UsageError

UUID = "5d1f8c1e-2b5c-4b6a-9a55-0f3a1c2d3e4f"
DOMAIN = """<domain type='kvm'><name>web-1</name><uuid>{uuid}</uuid><devices>
<channel type='pty'><target type='virtio' name='org.hypocenter.0'/></channel>
<channel type='unix'><source mode='bind' path='/run/agent'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<channel type='unix'><source mode='bind' path='/run/web-1.sock'/><target type='virtio' name='{port}'/></channel>
{vsock}</devices></domain>"""
VSOCK = "<vsock model='virtio'><cid auto='yes' address='7'/></vsock>"


def domain(port="org.hypocenter.0", uuid=UUID, vsock=""):
    return DOMAIN.format(port=port, uuid=uuid, vsock=vsock)


def test_a_guest_is_called_by_its_uuid_where_that_is_known():
    assert parse("web=/run/s") == Vm("web", "", Connect(Path("/run/s")))
    assert parse("web=/run/s").machine == "web"
    assert parse(f"web=/run/s,uuid={UUID}").machine == UUID


def test_a_guest_has_a_socket_that_its_vmm_made_or_connects_to_or_a_cid():
    assert parse("web=listen:/run/vm.vsock_5000").way == Listen(Path("/run/vm.vsock_5000"))
    assert parse("web=./listen:it").way == Connect(Path("listen:it"))
    assert parse(f"web=cid:3,uuid={UUID}") == Vm("web", UUID, Vsock(3))


# CIDs below 3 are the hypervisor, this machine and its host; the highest stands for any.
@pytest.mark.parametrize("cid", ["0", "1", "2", "4294967295", "99999999999", "-3", "x", "", "3 ", "\u0663"])
def test_no_guest_has_such_a_cid(cid):
    with pytest.raises(UsageError):
        parse(f"web=cid:{cid}")


@pytest.mark.parametrize(
    "text",
    [
        "web",
        "web=",
        "=/run/s",
        "web=/s,uid=x",
        "web=/s,uuid=x",
        "web=/s,uuid",
        "x" * 256 + "=/s",
        "web=listen:",
        "web=listne:/s",
    ],
)
def test_another_text_is_refused(text):
    with pytest.raises(UsageError):
        parse(text)


def test_a_folder_has_a_guest_for_each_socket(tmp_path):
    for name in ("b.sock", "a.sock", "a.txt"):
        (tmp_path / name).touch()
    assert [vm.name for vm in in_folder(tmp_path)] == ["a", "b"]
    with pytest.raises(UsageError, match="No such file"):
        in_folder(tmp_path / "none")


def test_libvirt_says_name_uuid_and_socket(tmp_path):
    (tmp_path / "web.xml").write_text(domain())
    (tmp_path / "none.xml").write_text(domain("another.port"))
    expected = [Vm("web-1", UUID, Connect(Path("/run/web-1.sock")))]
    assert in_xml(tmp_path / "web.xml") == in_xml(tmp_path) == expected


def test_of_a_domain_that_runs_libvirt_keeps_the_description_inside_of_another(tmp_path):
    (tmp_path / "web.xml").write_text(f"<domstatus state='running'><vcpus/>{domain()}</domstatus>")
    assert in_xml(tmp_path) == [Vm("web-1", UUID, Connect(Path("/run/web-1.sock")))]


def test_a_domain_has_a_cid_where_it_has_no_channel_of_ours(tmp_path):
    (tmp_path / "web.xml").write_text(domain(vsock=VSOCK))
    assert in_xml(tmp_path, vsock=True) == [Vm("web-1", UUID, Connect(Path("/run/web-1.sock")))]
    (tmp_path / "web.xml").write_text(domain("another.port", vsock=VSOCK))
    assert in_xml(tmp_path, vsock=True) == [Vm("web-1", UUID, Vsock(7))]
    assert in_xml(tmp_path) == []
    (tmp_path / "web.xml").write_text(domain("another.port", vsock="<vsock><cid auto='yes'/></vsock>"))
    assert in_xml(tmp_path, vsock=True) == []


@pytest.mark.parametrize(
    "text", ["", "<domain>", "<domstatus/>", "<network/>", "<domain><name> </name></domain>", domain(uuid="1")]
)
def test_what_is_no_description_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "web.xml").write_text(text)
    with pytest.raises(UsageError, match=r"web\.xml"):
        in_xml(tmp_path)


def test_two_guests_are_two():
    web = Vm("web", "", Connect(Path("/a")))
    assert together([web, Vm("db", "", Connect(Path("/b")))])
    for other in (Vm("web", UUID, Connect(Path("/b"))), Vm("db", "", Listen(Path("/a")))):
        with pytest.raises(UsageError, match="two guests have the"):
            together([web, other])
    with pytest.raises(UsageError, match="a relay serves"):
        together([Vm(str(n), "", Connect(Path(f"/{n}"))) for n in range(1025)])
