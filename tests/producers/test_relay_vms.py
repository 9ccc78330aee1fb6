from pathlib import Path

import pytest

from producers.relay_vms import Vm, in_folder, in_xml, parse, together
from schemas.errors import UsageError

UUID = "5d1f8c1e-2b5c-4b6a-9a55-0f3a1c2d3e4f"
DOMAIN = """<domain type='kvm'><name>web-1</name><uuid>{uuid}</uuid><devices>
<channel type='pty'><target type='virtio' name='org.hypocenter.0'/></channel>
<channel type='unix'><source mode='bind' path='/run/agent'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<channel type='unix'><source mode='bind' path='/run/web-1.sock'/><target type='virtio' name='{port}'/></channel>
</devices></domain>"""


def domain(port="org.hypocenter.0", uuid=UUID):
    return DOMAIN.format(port=port, uuid=uuid)


def test_a_guest_is_called_by_its_uuid_where_that_is_known():
    assert parse("web=/run/s") == Vm("web", "", Path("/run/s"))
    assert parse("web=/run/s").machine == "web"
    assert parse(f"web=/run/s,uuid={UUID}").machine == UUID


@pytest.mark.parametrize(
    "text", ["web", "web=", "=/run/s", "web=/s,uid=x", "web=/s,uuid=x", "web=/s,uuid", "x" * 256 + "=/s"]
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
    expected = [Vm("web-1", UUID, Path("/run/web-1.sock"))]
    assert in_xml(tmp_path / "web.xml") == in_xml(tmp_path) == expected


@pytest.mark.parametrize("text", ["", "<domain>", "<network/>", "<domain><name> </name></domain>", domain(uuid="1")])
def test_what_is_no_description_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "web.xml").write_text(text)
    with pytest.raises(UsageError, match=r"web\.xml"):
        in_xml(tmp_path)


def test_two_guests_are_two():
    web = Vm("web", "", Path("/a"))
    assert together([web, Vm("db", "", Path("/b"))])
    for other in (Vm("web", UUID, Path("/b")), Vm("db", "", Path("/a"))):
        with pytest.raises(UsageError, match="two guests have the"):
            together([web, other])
    with pytest.raises(UsageError, match="a relay serves"):
        together([Vm(str(n), "", Path(f"/{n}")) for n in range(1025)])
