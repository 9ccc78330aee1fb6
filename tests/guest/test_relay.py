"""A real guest without a network: its agent is one file, its frames go through virtio-serial, and the lake has it all.

What goes wrong in between is real too: the relay is killed, the guest stands still, is reset, or ends.
"""

import signal
import subprocess
from types import SimpleNamespace

import pytest

from consumers.cli import main
from tests.guest import _bundle
from tests.guest._agent import PORT, PYTHON, GuestAgent, boot_id, kernel_log, log_records
from tests.guest._vm import Vm
from tests.pipeline._processes import kill_all
from tests.pipeline._relayed import Relayed
from tests.producers.bpf._bpf import skip_unless_loadable

pytestmark = pytest.mark.guest
UUID = "7f2c1a9e-3d4b-4e5f-8a6b-9c0d1e2f3a4b"
QUICK = "--heartbeat-s=0.5"
_DISK_BYTES = 64 << 20
#: A kernel's connections to itself, which no guest of it can make.
_LOOPBACK = ("vsock_loopback",)
#: Run in the guest: connects to the relay from CID 1, and prints what comes back.
_STRANGER = """\
import socket
made = socket.socket(socket.AF_VSOCK)
made.settimeout(30)
made.connect((1, 5000))
print(made.recv(1))
"""


@pytest.fixture(scope="module")
def vm(kernel, tmp_path_factory):
    """A guest with a port for the relay and a disk at /mnt."""
    folder = tmp_path_factory.mktemp("relayed")
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(_DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
    drive = ("-drive", f"file={disk},if=virtio,format=raw,cache=unsafe")
    with Vm(
        folder, kernel, ports={PORT: folder / "port.sock"}, arguments=drive, modules=_LOOPBACK, in_turns=True
    ) as made:
        made.booted().bundle = _bundle.make(folder)
        made.run("mount /dev/vda /mnt")
        yield made


@pytest.fixture
def relayed(vm, tmp_path):
    made = Relayed(tmp_path)
    made.guests.append(SimpleNamespace(flag=f"web-1={vm.folder / 'port.sock'},uuid={UUID}"))
    yield made
    kill_all(tmp_path)


def test_all_that_a_guest_emits_reaches_the_lake_though_the_relay_is_killed_and_the_guest_paused(vm, relayed):
    skip_unless_loadable()
    relay = relayed.start()
    agent = GuestAgent(
        vm,
        "/run/first",
        *("--surface=kmsg", "--surface=clocks", "--surface=ftrace", "--surface=bpf", QUICK),
        *("--events=sched:sched_switch", "--buffer-kib=512", "--program=sched-delay"),
    )
    agent.said("watching kmsg, clocks, ftrace, bpf")
    agent.said("relayed by the-host as web-1")
    log_records(vm, "first", range(40))
    relay.signal(signal.SIGKILL)
    assert relay.wait() == -signal.SIGKILL
    log_records(vm, "second", range(40))
    relay = relayed.start()
    relay.said("relaying 1 guests")
    vm.qmp.command("stop")
    vm.qmp.event("STOP")
    vm.qmp.command("cont")
    log_records(vm, "third", range(40))
    vm.run("for i in {1..5}; do taskset 2 sleep 0.01; done")  # nothing else comes to its CPU 1
    held = kernel_log(vm)
    assert agent.stop() == 0, agent.story()
    assert relay.stop() == 0, relay.story()
    relayed.collect()
    rows = dict(relayed.query("select seq, message from kmsg order by seq"))
    assert {seq: rows.get(seq) for seq in held} == held
    texts = [f"{tag} {i}" for tag in ("first", "second", "third") for i in range(40)]
    assert [text for text in rows.values() if text in set(texts)] == texts
    streams = "select distinct machine, layer from {}"
    for table in ("kmsg", "trace_sched_switch", "bpf_counts", "clock_readings", "clock_pings"):
        assert relayed.query(streams.format(table)) == [(UUID, "guest-kernel")], table
    # The guest's own CPUs, and no more time than it ran: switches of one CPU never go back.
    assert relayed.query("select count(distinct cpu) from trace_sched_switch") == [(2,)]
    assert relayed.query("select kind from losses where unit = 'position'") == []
    assert relayed.query("select distinct vm, claimed_layer, mismatches from relay_guests where frames > 0") == [
        ("web-1", "guest-kernel", 0)
    ]


def test_a_guest_that_is_reset_ships_what_its_disk_kept_and_then_its_new_boot(vm, relayed):
    agent = GuestAgent(vm, "/mnt/spool", "--surface=kmsg", QUICK)
    agent.said("watching kmsg")
    log_records(vm, "unsent", range(40))
    vm.run("until grep -qr 'unsent 39' /mnt/spool/hypocenter.log; do sleep 0.1; done; sync")
    held = kernel_log(vm)
    boots = [boot_id(vm)]
    vm.reset()
    vm.run("mount /dev/vda /mnt")
    boots.append(boot_id(vm))
    relay = relayed.start()
    agent = GuestAgent(vm, "/mnt/spool", "--surface=kmsg", QUICK)
    agent.said("relayed by the-host as web-1")
    log_records(vm, "anew", range(40))
    assert agent.stop() == 0, agent.story()
    assert relay.stop() == 0, relay.story()
    relayed.collect()
    assert relayed.query("select distinct machine from kmsg") == [(UUID,)]
    assert boots[0] != boots[1]
    before, after = (
        dict(relayed.query(f"select seq, message from kmsg where boot_id = '{boot}' order by seq")) for boot in boots
    )
    assert {seq: before.get(seq) for seq in held} == held
    assert [text for text in after.values() if text.startswith("anew ")] == [f"anew {i}" for i in range(40)]
    assert relayed.query("select count(distinct boot_id) from kmsg") == [(2,)]
    assert min(after) == 0


def test_a_kernels_vsock_says_who_comes_and_who_is_no_guest_is_refused(vm):
    python = f"{PYTHON} -I -S"
    said = vm.run(
        "cd /run; rm -rf strangers\n"
        f"{python} {vm.bundle} relay --vsock 5000 --vm web-1=cid:3 --log /run/strangers --metrics off 2>relay.said & relay=$!\n"
        "for i in {1..600}; do grep -q 'relaying 1 guests' relay.said && break; sleep 0.1; done\n"
        f"{python} -c '{_STRANGER}'; kill $relay; wait $relay; echo $?; cat relay.said"
    )
    assert said.startswith("b''\n0\n"), said
    assert "refused 1 of no guest, the last of CID 1" in said


@pytest.mark.broker
def test_a_guest_reaches_the_lake_through_a_relay_and_a_broker(vm, relayed, kafka):
    relay = relayed.start("--kafka", kafka, "--spool", str(relayed.folder / "spool"))
    agent = GuestAgent(vm, "/run/kafka", "--surface=kmsg", QUICK)
    agent.said("relayed by the-host as web-1")
    log_records(vm, "broker", range(40))
    assert agent.stop() == 0, agent.story()
    assert relay.stop() == 0, relay.story()
    lake = str(relayed.lake)
    assert main(["collect", "--kafka", kafka, "--lake", lake, "--until-end"]) == 0
    assert main(["audit", "--lake", lake, "--deep"]) == 0
    texts = [f"broker {i}" for i in range(40)]
    found = relayed.query(f"select message from kmsg where machine = '{UUID}' and message like 'broker %' order by seq")
    assert found == [(text,) for text in texts]
