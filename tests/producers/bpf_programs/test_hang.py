"""hang where its causes can be had without a module: a task that hangs, and one killed for want of memory."""

import contextlib
import functools
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from producers.bpf import program as bpf_program
from tests.producers.bpf._bpf import skip_unless_loadable
from tests.producers.bpf_programs._disks import MIB, Holder
from tests.producers.bpf_programs._programs import until
from tests.producers.ftrace._ftrace import TRACEFS

pytestmark = pytest.mark.kernel
HUNG_TASK, OOM_VICTIM = 0, 2
KERNEL = Path("/proc/sys/kernel")
_STRUCT = struct.Struct("=QIIQQQQQ6I16s64s64s")
#: Those of any kernel that runs BPF programs.
ALWAYS = {"sched_process_hang", "rcu_stall_warning", "mark_victim"}


class Hang(NamedTuple):
    """`struct hang` of producers/bpf_programs/hang.bpf.c."""

    ts_ns: int
    cpu: int
    kind: int
    cpu_seq: int
    address: int
    status: int
    misc: int
    duration_ns: int
    pid: int
    tgid: int
    unit: int
    severity: int
    count: int
    error_cpu: int
    comm: bytes
    text: bytes
    detail: bytes


def unpack(data):
    found = Hang._make(_STRUCT.unpack(data))
    return found._replace(**{name: getattr(found, name).split(b"\0")[0] for name in ("comm", "text", "detail")})


@pytest.fixture
def program(run):
    return functools.partial(run, "hang", unpack)


@pytest.fixture
def impatient():
    """A kernel that takes a task for hung after a second, and writes nothing of it into its log."""
    wanted = {"hung_task_timeout_secs": 1, "hung_task_check_interval_secs": 1, "hung_task_warnings": 0}
    before = {name: (KERNEL / name).read_text() for name in [*wanted, "hung_task_panic"]}
    if int(before.pop("hung_task_panic")):
        pytest.skip("this kernel panics where a task hangs")
    try:
        for name, value in wanted.items():
            (KERNEL / name).write_text(str(value))
        yield
    finally:
        for name, text in before.items():
            (KERNEL / name).write_text(text)


def test_a_task_that_hangs_is_told_as_its_trace_event_tells_it(program, impatient, tmp_path, tracing):
    try:
        holder = Holder(tmp_path)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"needs mkfs.ext4 and a loop device: {e}")
    trace = tracing("sched/sched_process_hang")
    running = program(threshold_us=1_000_000)
    try:
        with holder.frozen():
            writer = subprocess.Popen(["touch", holder.path / "file"])
            hung = until(lambda: [each for each in running.seen() if each.pid == writer.pid], "a hung task")
        assert writer.wait() == 0
    finally:
        holder.close()
    text = trace.text()
    watched = running.finish()
    assert {(each.kind, each.tgid, each.comm) for each in hung} == {(HUNG_TASK, writer.pid, b"touch")}
    told = [int(pid) for pid in re.findall(r"sched_process_hang: comm=\S+ pid=(\d+)", text)]
    assert [each.pid for each in watched.records if each.kind == HUNG_TASK] == told
    assert watched.measures["hung_tasks"] == len(told) > 0


@contextlib.contextmanager
def small_memory(bytes_max):
    """Yield the file into which a process writes 0 to be in a group that has no more memory than this."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    if (first / "memory.limit_in_bytes").exists():
        group, limit = first / f"hang-{os.getpid()}", "memory.limit_in_bytes"
    elif "memory" in (second / "cgroup.subtree_control").read_text().split():
        group, limit = second / f"hang-{os.getpid()}", "memory.max"
    else:
        pytest.skip("needs a memory controller")
    group.mkdir()
    try:
        (group / limit).write_text(str(bytes_max))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


_GREEDY = """
import sys
open(sys.argv[1], "w").write("0")
kept = [bytearray(b"x" * 4096) for _ in range(1 << 20)]
"""


def test_who_is_killed_for_want_of_memory_is_told(program, tracing):
    trace = tracing("oom/mark_victim")
    running = program(threshold_us=1_000_000)
    with small_memory(64 * MIB) as procs:
        greedy = subprocess.Popen([sys.executable, "-c", _GREEDY, procs])
        assert greedy.wait() == -9
    text = trace.text()
    watched = running.finish()
    mine = [each for each in watched.records if each.pid == greedy.pid]
    assert [each.kind for each in mine] == [OOM_VICTIM]
    told = re.findall(r"mark_victim: pid=(\d+)(?: comm=(\S+))?", text)
    assert [each.pid for each in watched.records if each.kind == OOM_VICTIM] == [int(pid) for pid, _ in told]
    assert (mine[0].tgid, mine[0].comm.decode()) == (greedy.pid, dict(told)[str(greedy.pid)])
    assert watched.measures["oom_victims"] == len(told)


def test_parts_without_their_tracepoint_are_left_out_and_told():
    skip_unless_loadable()
    program = bpf_program.Program("hang", 4096, {})
    try:
        active, missing = set(program.active), set(program.missing)
    finally:
        program.close()
    assert active >= ALWAYS
    assert not active & missing
    events = {path.parent.name for path in (TRACEFS / "events").glob("*/*/format")}
    assert active <= events
    # Of a module that is not loaded, the tracepoint may be in the kernel without its event.
    assert not missing & events
