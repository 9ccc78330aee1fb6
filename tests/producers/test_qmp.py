"""The monitor of a real QEMU without a guest, and of monitors that misbehave."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from producers import qmp, vms
from producers.qmp import Monitor
from producers.registry import Identity, Opening
from producers.topology import boottime_ns
from producers.vms import Finder
from schemas import state
from schemas.config import Config, Vm, VmsConfig
from schemas.errors import UsageError
from tests.producers._vms import until
from tests.producers.test_qmp_session import HELLO, RESET, STOP

S = 10**9


class Peer:
    """The other end of a monitor, for what no QEMU does."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.peer = None

    def say(self, data):
        self.peer = self.peer or self.listener.accept()[0]
        self.peer.sendall(data)

    def hang_up(self):
        self.peer.close()
        self.peer = None


@pytest.fixture
def watched(tmp_path):
    """A monitor whose clock is ours, its peer, and what it told of threads."""
    peer, clock, told = Peer(tmp_path / "qmp"), SimpleNamespace(ns=S), {}
    monitor = Monitor(
        Vm("web", qmp=tmp_path / "qmp"), 10 * S, lambda: clock.ns, lambda name, *threads: told.update({name: threads})
    )

    def sample(after_s=0):
        clock.ns += after_s * S
        return [(each.kind, each.fields) for each in monitor.sample()]

    yield SimpleNamespace(monitor=monitor, peer=peer, sample=sample, told=told)
    monitor.close()
    peer.listener.close()
    if peer.peer:
        peer.peer.close()


def test_events_come_with_their_time_and_data_and_bad_lines_as_they_were(watched):
    assert watched.sample() == []
    assert not watched.monitor.connected
    watched.peer.say(HELLO + STOP + b"garbage\n" + RESET)
    events = watched.sample()
    assert [kind for kind, _ in events] == ["qmp_events"] * 3
    assert events[0][1] == {"vm": "web", "event": "STOP", "realtime_ns": 1_772_442_000_000_250_000, "data": None}
    assert events[1][1] == {"vm": "web", "reason": "json", "raw": b"garbage"}
    assert json.loads(events[2][1]["data"])["guest"] is True
    assert watched.monitor.connected
    assert watched.monitor.counters == {"events": 2, "bad": 1, "connections": 1}
    sent = [json.loads(line)["execute"] for line in watched.peer.peer.recv(4096).splitlines()]
    assert sent == ["qmp_capabilities", *qmp._QUERIES]


def test_answers_of_any_form_are_rows_that_a_body_can_hold(watched):
    watched.sample()
    watched.peer.say(HELLO)
    watched.sample()
    blocks = [{"device": "\ud800", "io-status": "ok", "inserted": {"ro": {"a": {}}, "bps": 1 << 80, "iops": 7}}, 1]
    cpus = [{"cpu-index": 0, "thread-id": 42, "qom-path": "/m/d[0]"}, {"cpu-index": "x"}, 3]
    exits = [{"qom-path": "/m/d[0]", "stats": [{"name": "exits", "value": 12}, {"name": "io_exits", "value": 7}]}]
    stats = {"wr_operations": 9, "rd_operations": 1 << 80, "idle_time_ns": "x"}
    counts = [{"device": "d0", "qdev": "/d", "node-name": "n0", "stats": stats}, {"device": "d1", "stats": 3}, 1]
    iothreads = [{"id": "io0", "thread-id": 43}, {"id": 1, "thread-id": "x"}, 3]
    values = {
        "query-status": {"status": "running", "running": 1},
        "query-block": blocks,
        "query-blockstats": counts,
        "query-cpus-fast": cpus,
        "query-iothreads": iothreads,
        "query-stats": exits,
    }
    for line in watched.peer.peer.recv(4096).splitlines():
        command = json.loads(line)
        watched.peer.say(
            json.dumps({"return": values.get(command["execute"], {}), "id": command["id"]}).encode() + b"\n"
        )
    rows = watched.sample(1)
    found = dict(rows)
    counted = [fields for kind, fields in rows if kind == "qmp_blockstats"]
    assert [(each["device"], each["node"], each["wr_operations"]) for each in counted] == [
        ("d0", "n0", 9),
        ("d1", None, None),
    ]
    assert counted[0]["rd_operations"] is counted[0]["idle_time_ns"] is None
    assert found["qmp_status"]["status"] == "running"
    assert found["qmp_status"]["running"] is None
    assert found["qmp_status"]["answer_ns"] == S
    assert found["qmp_status"]["version"] == "7.2.22 Debian"
    assert (found["qmp_blocks"]["io_status"], found["qmp_blocks"]["iops"], found["qmp_blocks"]["bps"]) == (
        "ok",
        7,
        None,
    )
    records = [state.Record(kind, 1, fields) for kind, fields in found.items()]
    assert state.unpack(state.pack(records)) == records
    assert watched.told == {"web": ({0: 42}, {43: "io0"})}
    assert found["qmp_exits"] == {"vm": "web", "vcpu": 0, "exits": 12, "io_exits": 7}


def test_a_question_that_qemu_is_too_old_for_is_told_and_asked_once(watched):
    watched.sample()
    watched.peer.say(HELLO)
    watched.sample()

    def asked():
        lines = [json.loads(line) for line in watched.peer.peer.recv(4096).splitlines()]
        for line in lines:
            old = {"error": {"class": "CommandNotFound", "desc": "The command query-stats has not been found"}}
            said = old if line["execute"] == "query-stats" else {"return": []}
            watched.peer.say(json.dumps(said | {"id": line["id"]}).encode() + b"\n")
        return [line["execute"] for line in lines]

    assert "query-stats" in asked()
    details = [fields.get("detail") or "" for kind, fields in watched.sample() if kind == "qmp_status"]
    assert [each for each in details if each.startswith("query-stats: ")]
    watched.sample(10)
    assert asked() == [name for name in qmp._QUERIES if name != "query-stats"]


def test_a_monitor_that_does_not_answer_is_told_and_not_asked_again(watched):
    watched.sample()
    watched.peer.say(HELLO)
    watched.sample()
    watched.peer.peer.recv(4096)
    assert watched.sample(9) == []
    ((kind, fields),) = watched.sample(1)
    assert (kind, fields["connected"], fields["answer_ns"], fields["detail"]) == (
        "qmp_status",
        True,
        10 * S,
        "no answer for 10.0 s",
    )
    watched.peer.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        watched.peer.peer.recv(1)


def test_without_a_greeting_the_socket_is_given_up_and_tried_again(watched):
    watched.sample()
    assert watched.sample(5) == []
    ((_, fields),) = watched.sample(1)
    assert fields["connected"] is False
    assert fields["detail"].startswith("no greeting: another client has the socket")
    watched.peer.listener.accept()[0].close()
    watched.sample(1)
    watched.peer.say(HELLO)
    watched.sample()
    assert watched.monitor.connected


def test_a_monitor_that_goes_is_told_once_and_found_again(watched):
    watched.sample()
    watched.peer.say(HELLO)
    watched.sample()
    fileno = watched.monitor.fileno()
    watched.peer.hang_up()
    ((_, fields),) = watched.sample()
    assert (fields["connected"], fields["detail"]) == (False, "Connection reset by peer")
    assert not watched.monitor.connected
    assert watched.sample() == []
    watched.sample(1)
    watched.peer.say(HELLO + STOP)
    assert [fields["event"] for _, fields in watched.sample()] == ["STOP"]
    assert watched.monitor.fileno() == fileno


def test_a_socket_that_is_not_there_is_told_once(tmp_path):
    clock = SimpleNamespace(ns=S)
    monitor = Monitor(Vm("web", qmp=tmp_path / "none"), S, lambda: clock.ns, lambda *_: None)
    assert [each.fields["detail"] for each in monitor.sample()] == ["No such file or directory"]
    clock.ns += 100 * S
    assert monitor.sample() == []
    monitor.close()


def test_the_surface_wants_a_socket():
    with pytest.raises(UsageError, match="which VMs"):
        qmp.open_sources(Opening(Identity("m", "b", "host"), {}, Config()))


@pytest.fixture(params=["tcg"])
def qemu(request, tmp_path):
    """A QEMU without a guest, by an accelerator, with two monitors: ours and the test's."""
    binary = shutil.which("qemu-system-x86_64")
    if binary is None:
        pytest.skip("needs qemu-system-x86_64")
    monitors = [word for name in "ab" for word in ("-qmp", f"unix:{tmp_path / name},server=on,wait=off")]
    machine = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-smp", "2"]
    machine += ["-accel", request.param, "-accel", "tcg", *(("-cpu", "qemu64") if request.param == "kvm" else ())]
    machine += ["-object", "iothread,id=io7"]
    drive = ["-drive", "if=none,id=d0,driver=null-co,size=1M,node-name=n0"]
    command = [binary, "-name", "guest=idle", "-S", "-m", "32", *machine, *drive, *monitors]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        control = socket.socket(socket.AF_UNIX)
        until(lambda: control.connect_ex(str(tmp_path / "b")) == 0)
        control.sendall(b'{"execute": "qmp_capabilities"}\n')

        def say(name):
            control.sendall(json.dumps({"execute": name}).encode())

        yield SimpleNamespace(pid=process.pid, say=say, socket=tmp_path / "a")
        control.close()
        process.kill()


def reader(source):
    """Return a function that gives the fields of all records of a kind so far."""
    seen = []

    def rows(kind):
        source.drain()
        for batch in source.cut():
            seen.extend(state.unpack(batch.body))
        return [record.fields for record in seen if record.kind == kind]

    return rows


@pytest.mark.kernel
def test_a_real_qemu_says_what_happens_to_its_vm(qemu, monkeypatch):
    finder = Finder(VmsConfig(scan_interval_s=0.1))
    monkeypatch.setattr(vms, "shared", lambda _: finder)
    config = Config(vms=VmsConfig(machines=(Vm("idle", qmp=qemu.socket),), qmp_interval_s=0.1))
    (source,) = qmp.open_sources(Opening(Identity("m", "b", "host"), {}, config))
    assert (*source.stream, source.alive()) == ("m", "b", "virtual-platform", "qmp", "idle", "boot", False)
    rows = reader(source)
    until(lambda: [row for row in rows("qmp_status") if row.get("status") == "prelaunch"])
    assert source.alive()
    (block, *_) = until(lambda: rows("qmp_blocks"))
    assert (block["device"], block["node"], block["driver"], block["iops"]) == ("d0", "n0", "null-co", 0)

    # Its threads have no names here: they are found because QEMU says which they are.
    def told():
        rows("qmp_status")
        found = [vm for vm in finder.found(boottime_ns()) if vm.process.pid == qemu.pid and vm.vcpus]
        return [vm for vm in found if ("iothread", "io7") in [(each.role, each.name) for each in vm.helpers]]

    (vm,) = until(told)
    assert (vm.name, [each.vcpu for each in vm.vcpus]) == ("idle", [0, 1])
    assert vm.helpers[0].role == "main"
    (counts, *_) = rows("qmp_blockstats")
    assert (counts["device"], counts["node"], counts["rd_operations"]) == ("d0", "n0", 0)
    qemu.say("cont")
    qemu.say("stop")
    qemu.say("system_reset")
    qemu.say("quit")
    until(lambda: [row for row in rows("qmp_status") if row["connected"] is False])
    events = [row["event"] for row in rows("qmp_events")]
    assert {"RESUME", "STOP", "RESET", "SHUTDOWN"} <= set(events)
    assert events.index("RESUME") < events.index("STOP") < events.index("SHUTDOWN")
    assert all(abs(row["realtime_ns"] - time.time_ns()) < 60 * S for row in rows("qmp_events"))
    assert not source.alive()
    assert source.counters()["bad"] == 0
    source.close()


@pytest.mark.kernel
@pytest.mark.parametrize("qemu", ["kvm"], indirect=True)
def test_a_real_qemu_counts_the_exits_of_its_vcpus_where_it_has_kvm(qemu, monkeypatch):
    monkeypatch.setattr(vms, "shared", lambda _: Finder(VmsConfig()))
    config = Config(vms=VmsConfig(machines=(Vm("idle", qmp=qemu.socket),), qmp_interval_s=0.1))
    (source,) = qmp.open_sources(Opening(Identity("m", "b", "host"), {}, config))
    rows = reader(source)
    # Its firmware looks for a disk, and halts.
    qemu.say("cont")
    if any(Path(link).resolve().name == "kvm" for link in Path(f"/proc/{qemu.pid}/fd").iterdir()):
        until(lambda: [row for row in rows("qmp_exits") if row["vcpu"] == 0 and row["exits"] > 100])
        mine = [row for row in rows("qmp_exits") if row["vcpu"] == 0]
        assert [row["exits"] for row in mine] == sorted(row["exits"] for row in mine)
        assert {row["vcpu"] for row in rows("qmp_exits")} == {0, 1}
        assert all(row["exits"] >= row["halt_exits"] >= 0 for row in mine)
    else:
        until(lambda: len(rows("qmp_status")) > 3)
        assert rows("qmp_exits") == []
    source.close()
