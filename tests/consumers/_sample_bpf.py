"""BPF records of the sample's first guest, written here: who waited for a CPU before the task there hung."""

import struct

from schemas import bpf, state
from schemas.frame import Frame, encode
from schemas.loss import Loss
from schemas.state import Record
from schemas.stream import Stream
from tests.consumers._records import ring
from tests.consumers.decode import btf_writer
from tests.consumers.decode.btf_writer import Types

WOKEN, PREEMPTED = 0, 1
_T = 5_400_000_000


def _btf():
    types = Types()
    u32, u64 = types.integer("unsigned int", 4), types.integer("unsigned long long", 8)
    comm = types.array(types.integer("char", 1, btf_writer.SIGNED), 16)
    cause = types.enum("sched_delay_cause", SCHED_DELAY_WOKEN=WOKEN, SCHED_DELAY_PREEMPTED=PREEMPTED)
    names = ("ts_ns", "cpu", "cause", "cpu_seq", "wait_ns", "pid", "tgid", "prev_pid", "prev_tgid", "comm", "prev_comm")
    kinds = (u64, u32, cause, u64, u64, u32, u32, u32, u32, comm, comm)
    at, members = 0, []
    for name, kind in zip(names, kinds, strict=True):
        members.append((name, kind, 8 * at))
        at += {u64: 8, comm: 16}.get(kind, 4)
    types.struct("sched_delay", at, *members)
    return types.blob()


TYPES = bpf.pack_types(bpf.Types("sched-delay", "sched_delay", "little", 8, _btf(), bpf.OWN, 1 << 22))


def _record(at_us, cpu, cpu_seq, wait_us, task, behind, cause=WOKEN):
    (comm, pid), (prev_comm, prev_pid) = task, behind
    return struct.pack(
        "<QIIQQ4I16s16s",
        _T + at_us * 1000, cpu, cause, cpu_seq, wait_us * 1000, pid, pid, prev_pid, prev_pid, comm.encode(), prev_comm.encode(),
    )  # fmt: skip


def frames(stream, realtime_ns):
    """Yield the frames of the program `sched-delay` on the machine and boot of `stream`, its types first."""
    mine = Stream(stream.machine, stream.boot_id, stream.layer, "bpf", "sched-delay", "mono")
    hold, shell, worker, idle = ("hyplab_hold", 137), ("sh", 136), ("kworker/1:2", 52), ("swapper/0", 0)
    where = mine._replace(instance="sched-delay/types"), "run-5", 0, 0, 1, 1
    yield encode(Frame(*where, bpf.TYPES_ENCODING, 1, TYPES, [], realtime_ns=realtime_ns))
    # The second was begun behind the first and has the earlier time: the order of a ring is not that of time.
    records = [
        _record(4_032, 1, 0, 3_213, hold, worker),
        _record(4_019, 0, 0, 1_040, shell, idle),
        _record(6_500, 0, 1, 2_100, shell, hold, PREEMPTED),
        _record(9_000, 1, 4, 1_700, worker, hold),
    ]
    lost = [Loss("drop", 4, 3, "ring-full-cpu1", "agent", "event")]
    where = mine, "run-5", 0, 0, len(records), len(records)
    data = ring(*records)
    body = bpf.pack(len(records), 0, data)
    times = _T + 4_032_000, _T + 9_000_000
    yield encode(Frame(*where, "bpf", 1, body, lost, *times, realtime_ns, descriptor=bpf.descriptor(TYPES)))


def state_frames(stream, realtime_ns):
    """Yield what `sched-delay` counted and measured there: two samples, 10 s apart."""
    mine = Stream(stream.machine, stream.boot_id, stream.layer, "bpf-counts", "", "mono")
    loaded_ns = _T - 10_000_000_000
    about = {"program": "sched-delay", "loaded_ns": loaded_ns}
    zero = dict.fromkeys(("ring_full", "ring_busy", "untracked"), 0)
    off = {"runs": None, "run_ns": None, "recursion_misses": 0, "measures": {}}
    lost = zero | {"ring_full": 3}
    early, late = _T - 1_000_000, _T + 10_000_000_000 - 1_000_000
    slots = [0] * 11 + [40, 700, 2_100, 900, 180, 30, 9, 2]
    records = [
        Record("bpf_counts", early, about | {"cpu": None, "attempts": 0} | zero | off),
        Record("bpf_histograms", early, about | {"measure": "wait_ns", "slots": slots}),
        Record("bpf_counts", late, about | {"cpu": None, "attempts": 7} | lost | off),
        Record("bpf_counts", late, about | {"cpu": 0, "attempts": 2} | zero),
        Record("bpf_counts", late, about | {"cpu": 1, "attempts": 5} | lost),
        Record("bpf_histograms", late, about | {"measure": "wait_ns", "slots": [*(2 * n for n in slots), 0, 1, 2, 1]}),
    ]
    body = state.pack(records)
    where = mine, "run-5", 0, 0, len(records), len(records)
    yield encode(Frame(*where, "bpf-counts", 1, body, [], early, late, realtime_ns))
