"""Trace pages of the sample's first guest, written here: two CPUs for some milliseconds, before the task there hung."""

from schemas import ftrace
from schemas.frame import Frame, encode
from schemas.loss import Loss
from schemas.stream import Stream
from tests.consumers.decode.ftrace_writer import Form

FORM = Form()
_COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)
_STATES = '{ 0x1, "S" }, { 0x2, "D" }, { 0x4, "T" }, { 0x8, "t" }, { 0x10, "X" }, { 0x20, "Z" }, { 0x80, "I" }'
#: As the kernel has them, the texts around the fields left out.
EVENTS = {
    "sched:sched_switch": "name: sched_switch\nID: 372\nformat:\n" + _COMMON + "\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;\n"
    "\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;\n\tfield:int prev_prio;\toffset:28;\tsize:4;\tsigned:1;\n"
    "\tfield:long prev_state;\toffset:32;\tsize:8;\tsigned:1;\n\tfield:char next_comm[16];\toffset:40;\tsize:16;\tsigned:0;\n"
    "\tfield:pid_t next_pid;\toffset:56;\tsize:4;\tsigned:1;\n\tfield:int next_prio;\toffset:60;\tsize:4;\tsigned:1;\n\n"
    f'print fmt: "%s", (REC->prev_state & 0xff) ? __print_flags(REC->prev_state & 0xff, "|", {_STATES}) : "R"\n',
    "sched:sched_waking": "name: sched_waking\nID: 375\nformat:\n" + _COMMON + "\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;\n"
    "\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;\n\tfield:int prio;\toffset:28;\tsize:4;\tsigned:1;\n"
    '\tfield:int target_cpu;\toffset:32;\tsize:4;\tsigned:1;\n\nprint fmt: "comm=%s pid=%d", REC->comm, REC->pid\n',
}  # fmt: skip
FORMATS = ftrace.pack_formats(ftrace.Formats(FORM.header_text, "mono", FORM.page_bytes, "little", 8, EVENTS))
#: Of a set of its own, in which the calls of two threads are told.
_CALLS = {
    "raw_syscalls:sys_enter": "name: sys_enter\nID: 21\nformat:\n" + _COMMON + "\tfield:long id;\toffset:8;\tsize:8;\tsigned:1;\n"
    "\tfield:unsigned long args[6];\toffset:16;\tsize:48;\tsigned:0;\n\n"
    'print fmt: "NR %ld", REC->id\n',
    "raw_syscalls:sys_exit": "name: sys_exit\nID: 22\nformat:\n" + _COMMON + "\tfield:long id;\toffset:8;\tsize:8;\tsigned:1;\n"
    "\tfield:long ret;\toffset:16;\tsize:8;\tsigned:1;\n\n"
    'print fmt: "NR %ld = %ld", REC->id, REC->ret\n',
    "ftrace:kernel_stack": "name: kernel_stack\nID: 4\nformat:\n" + _COMMON + "\tfield:int size;\toffset:8;\tsize:4;\tsigned:1;\n"
    "\tfield:unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;\n\n"
    'print fmt: "\\t=> %ps\\n", (void *)REC->caller[0]\n',
}  # fmt: skip
_CALL_FORMATS = ftrace.pack_formats(ftrace.Formats(FORM.header_text, "mono", FORM.page_bytes, "little", 8, _CALLS))
#: Two of its functions, as /proc/kallsyms has them.
KALLSYMS = "ffffffff81000000 T _stext\nffffffff812a4c10 t hold_write\t[hyplab]\nffffffff812a5000 T vfs_write\n"
_CALLERS = 0xFFFFFFFF812A4C35, 0xFFFFFFFF812A50F4
_IDLE, _IDLE_1, _HOLD, _SH, _WORKER = (
    ("swapper/0", 0),
    ("swapper/1", 0),
    ("hyplab_hold", 137),
    ("sh", 136),
    ("kworker/1:2", 52),
)
_RUNNING, _SLEEPS, _BLOCKED = 0, 1, 2
_US = 1000


def _int(value, size=4):
    return value.to_bytes(size, "little", signed=True)


def _comm(name):
    return name.encode().ljust(16, b"\0")


def event(delta_ns, number, fields, pid=0, flags=0, preempt=0):
    """Return one event of this kernel's layout."""
    return FORM.event(delta_ns, FORM.payload(number, bytes((flags, preempt)) + _int(pid) + fields))


def switch(delta_us, prev, state, then):
    """Return a sched_switch, `delta_us` after the event before it."""
    fields = _comm(prev[0]) + _int(prev[1]) + _int(120) + _int(state, 8) + _comm(then[0]) + _int(then[1]) + _int(120)
    return event(delta_us * _US, 372, fields, pid=prev[1], flags=1, preempt=2)


def waking(delta_us, who, task, cpu, flags=1):
    """Return a sched_waking of `task` by `who`."""
    fields = _comm(task[0]) + _int(task[1]) + _int(120) + _int(cpu)
    return event(delta_us * _US, 375, fields, pid=who[1], flags=flags, preempt=1)


def frames(stream, realtime_ns):
    """Yield the frames of a set `sched` of the machine and boot of `stream`, its descriptor first."""
    mine = Stream(stream.machine, stream.boot_id, stream.layer, "ftrace", "sched", "mono")
    run, name, at_ns = "run-4", ftrace.descriptor(FORMATS), 5_400_000_000
    yield encode(Frame(mine, run, 0, 0, 1, 1, ftrace.FORMATS_ENCODING, 1, FORMATS, [], realtime_ns=realtime_ns))
    first = [
        waking(10, _IDLE, _SH, 0, flags=9),
        switch(9, _IDLE, _RUNNING, _SH),
        waking(800, _SH, _HOLD, 1),
        event(5 * _US, 1900, b"a module", pid=136),
        switch(2400, _SH, _SLEEPS, _IDLE),
    ]
    second = [
        waking(20, _IDLE_1, _WORKER, 1, flags=9),
        switch(6, _IDLE_1, _RUNNING, _WORKER),
        switch(4006, _WORKER, _SLEEPS, _HOLD),
        switch(95, _HOLD, _BLOCKED, _IDLE_1),
    ]
    third = [waking(60, _IDLE_1, _WORKER, 1, flags=9), switch(7, _IDLE_1, _RUNNING, _WORKER), switch(31, _WORKER, _SLEEPS, _IDLE_1)]  # fmt: skip
    lost = Loss("overwrite", 1, 37, "ring-overrun", "agent", "event")
    pages = [
        [FORM.page(at_ns, *first)],
        [FORM.page(at_ns, *second), FORM.page(at_ns + 40_000 * _US, *third, missed=37)],
    ]
    for cpu, data in enumerate(pages):
        where = mine._replace(instance=f"sched/cpu{cpu}"), run, 0, 0, len(data), len(data)
        body = ftrace.pack(data, FORM.page_bytes)
        yield encode(
            Frame(*where, "ftrace", 1, body, [lost] if cpu else [], at_ns, at_ns, realtime_ns, descriptor=name)
        )


def call_frames(stream, realtime_ns):
    """Yield the frames of a set `calls` of the same boot: read(2) of `sh`, long and short, an ioctl(2) without end, a stack."""
    mine = Stream(stream.machine, stream.boot_id, stream.layer, "ftrace", "calls", "mono")
    run, name, at_ns = "run-4", ftrace.descriptor(_CALL_FORMATS), 5_400_000_000
    yield encode(Frame(mine, run, 0, 0, 1, 1, ftrace.FORMATS_ENCODING, 1, _CALL_FORMATS, [], realtime_ns=realtime_ns))
    events = [
        _call(40, _SH, 21, 0, 3, 0, 1, 0, 0, 0),
        _call(3, _SH, 22, 0, 1),
        _call(757, _SH, 21, 0, 3, 0, 1, 0, 0, 0),
        _call(2400, _HOLD, 21, 16, 4, 1, 0, 0, 0, 0),
        event(5 * _US, 4, _int(len(_CALLERS), 8) + b"".join(map(_address, _CALLERS)), pid=_HOLD[1]),
        _call(807, _SH, 22, 0, -4),
    ]
    body = ftrace.pack([FORM.page(at_ns, *events)], FORM.page_bytes)
    where = mine._replace(instance="calls/cpu0"), run, 0, 0, 1, 1
    yield encode(Frame(*where, "ftrace", 1, body, [], at_ns, at_ns, realtime_ns, descriptor=name))


def _call(delta_us, task, number, *values):
    return event(delta_us * _US, number, b"".join(_int(value, 8) for value in values), pid=task[1])


def _address(value):
    return value.to_bytes(8, "little")
