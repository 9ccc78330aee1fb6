"""State records of the host under the sample's first guest, written here: one vCPU runs, the other is held for 8 s."""

from itertools import count

from schemas import state
from schemas.frame import Frame, encode
from schemas.state import Record
from schemas.stream import Stream

S, MS = 10**9, 10**6
HOST = Stream("e1c4b7d05a934f2f9d6c0f83a7b21e65", "7d2e9b10-4c5f-4f0a-8e63-91d0a5b8c7f4", "host", "", "", "boot")
VM = {"vm": "web-7", "uuid": "5f0c2a9b-e1d8-4c0c-8a7d-3b6f91e24d70"}
_BOOT = 90_000 * S  # the host is up so long when the sample begins
_THREADS = ((0, 4103), (1, 4104))


def _topology():
    valid = {"valid_from_ns": _BOOT, "valid_until_ns": None}
    process = {"pid": 4099, "start_ns": _BOOT - 60 * MS}
    own = {"guest_machine": VM["uuid"], "vmm": "qemu", "cgroup": "0::/machine.slice/web-7.scope", "vcpus": 2}
    yield Record("topology_vm", _BOOT, VM | process | own | valid)
    for vcpu, tid in _THREADS:
        fields = {"vm": "web-7", "vcpu": vcpu, "pid": 4099, "tid": tid, "start_ns": _BOOT - 20 * MS}
        yield Record("topology_vcpu", _BOOT, fields | {"cpus_allowed": "0-3", "last_cpu": vcpu + 1} | valid)


def _vcpu_time():
    for second in range(14):
        for vcpu, tid in _THREADS:
            held = min(max(second - 3, 0), 8) if vcpu == 1 else 0
            ran = second - held
            times = {"run_ns": 950 * MS * ran, "wait_ns": 20 * MS * ran, "timeslices": 30 * ran}
            switches = {"voluntary_switches": 25 * ran, "involuntary_switches": 5 * ran, "last_cpu": vcpu + 1}
            seen = {"state": "D" if held > 0 and second < 12 else "R", "frozen": held > 0 and second < 12}
            front = {"vm": "web-7", "vcpu": vcpu, "pid": 4099, "tid": tid, "start_ns": _BOOT - 20 * MS}
            yield Record("vcpu_time", _BOOT + second * S + tid, front | times | switches | seen)


# The VM's I/O thread and its disk, which stand for as long as vCPU 1.
_IO = {"vm": "web-7", "role": "iothread", "name": "io0", "pid": 4099, "tid": 4101, "start_ns": _BOOT - 20 * MS}


def _thread():
    yield Record("topology_thread", _BOOT, _IO | {"valid_from_ns": _BOOT, "valid_until_ns": None})


def _thread_time():
    for second in range(14):
        held = 3 < second < 12
        times = {"run_ns": 10 * MS * second, "wait_ns": MS * second, "timeslices": second, "last_cpu": 1}
        switches = {"voluntary_switches": second, "involuntary_switches": 0}
        state_ = {"state": "D" if held else "S", "frozen": held}
        yield Record("vmm_thread_time", _BOOT + second * S + 4101, _IO | times | switches | state_)


def _blockstats():
    disk = {"vm": "web-7", "device": "d0", "qdev": "/machine/peripheral/d0", "node": "n0"}
    for second in (0, 10):
        yield Record("qmp_blockstats", _BOOT + second * S, disk | {"rd_operations": 90, "wr_operations": 7})


def _exits():
    for second in (0, 10):
        counts = {"exits": 9000 * (second + 1), "io_exits": 40 * second, "halt_exits": 8000 * second}
        yield Record("vcpu_exits", _BOOT + second * S, {"vm": "web-7", "pid": 4099, "start_ns": _BOOT} | counts)


def _qmp_exits():
    for second in (0, 10):
        for vcpu, _ in _THREADS:
            counts = {"exits": 4500 * (second + 1), "io_exits": 20 * second, "halt_exits": 4000 * second}
            yield Record("qmp_exits", _BOOT + second * S, {"vm": "web-7", "vcpu": vcpu} | counts)


def _qmp(realtime_ns):
    status = {"vm": "web-7", "connected": True, "status": "running", "running": True, "version": "7.2.22 Debian"}
    yield Record("qmp_status", _BOOT, status | {"answer_ns": 400_000})
    disk = {"device": "d0", "qdev": "/machine/peripheral/d0", "node": "n0", "io_status": "ok", "driver": "qcow2"}
    limits = {"read_only": False, "bps": 0, "iops": 0, "file": "/var/lib/web-7.qcow2", "data": "{}"}
    yield Record("qmp_blocks", _BOOT, {"vm": "web-7"} | disk | limits)
    error = '{"device":"d0","operation":"write","action":"stop","nospace":true}'
    for at_ms, event, data in ((20_000, "BLOCK_IO_ERROR", error), (20_001, "STOP", None), (26_500, "RESUME", None)):
        fields = {"vm": "web-7", "event": event, "realtime_ns": realtime_ns + at_ms * MS, "data": data}
        yield Record("qmp_events", _BOOT + at_ms * MS + 300_000, fields)


# Of the guest, on its own clock.
def _procfs():
    for reading in range(3):
        at_ns, stolen = (6 + 5 * reading) * S, 100 * reading
        texts = {
            "/proc/stat": f"cpu  90 0 10 900 0 0 0 {stolen} 0 0\ncpu0 90 0 10 900 0 0 0 {stolen} 0 0\n",
            "/proc/pressure/io": f"some avg10={reading}.50 avg60=0.00 avg300=0.00 total={2_000_000 * reading}\n",
            "/proc/meminfo": "MemTotal:  262144 kB\nMemFree:  131072 kB\n",
            "/proc/vmstat": "pgmajfault 7\noom_kill 0\n",
            "/proc/diskstats": f" 254 0 vda 186 35 10 76 359 138 12 108 {reading} 65 211\n",
        }
        for path, text in texts.items():
            yield Record("procfs_text", at_ns, {"path": path, "text": text, "truncated": False})
        yield Record("procfs_hangs", at_ns, {"hung_task_warnings": 10 - reading, "watchdog_thresh_s": 10})
    task = {"pid": 87, "tgid": 87, "comm": "jbd2/vda-8", "started_ns": S, "since_ns": 11 * S}
    yield Record("procfs_blocked", 14 * S, task | {"blocked": True, "state": "D", "wchan": "io_schedule"})
    yield Record("procfs_blocked", 16 * S, task | {"blocked": False, "state": "S", "woken_ns": 16 * S})


def frames(guest, realtime_ns):
    """Yield the frames of the host's surfaces, and of the guest that has the stream `guest`."""
    numbers = count()
    surfaces = {
        "topology": [*_topology(), *_thread()],
        "vcpu-time": [*_vcpu_time(), *_thread_time(), *_exits()],
        "qmp": [*_qmp(realtime_ns), *_blockstats(), *_qmp_exits()],
        "procfs": _procfs(),
    }
    for surface, records in surfaces.items():
        stream, taken = HOST._replace(surface=surface), list(records)
        if surface == "qmp":
            stream = stream._replace(layer="virtual-platform", instance="web-7")
        if surface == "procfs":
            stream = guest._replace(surface=surface, clock="boot")
        where = stream, "run-6", next(numbers), 0, len(taken), len(taken)
        times = taken[0].ts_ns, taken[-1].ts_ns
        yield encode(Frame(*where, surface, 1, state.pack(taken), [], *times, realtime_ns))
