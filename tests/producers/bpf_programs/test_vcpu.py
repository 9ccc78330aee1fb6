"""vcpu on threads that are named as virtual CPUs: what stops them is told, while it does, and adds up to schedstat's sums."""

import functools
import itertools
import os
import struct
import subprocess
import time
from pathlib import Path

import pytest

from producers.bpf.program import Program
from schemas.config import BpfProgram
from schemas.errors import UsageError
from tests.producers.bpf._bpf import skip_unless_loadable
from tests.producers.bpf_programs._disks import MIB, Disk, Holder
from tests.producers.bpf_programs._programs import WAIT_EVENTS, uneven, until, with_sleep
from tests.producers.bpf_programs._vcpus import (
    CPU,
    FROZEN,
    RUNNING,
    SLEEPING,
    STOPPED,
    THROTTLED,
    UNIFIED,
    UNINTERRUPTIBLE,
    WAITING,
    Group,
    Thread,
    unpack,
)

pytestmark = pytest.mark.kernel
_LOOK_MS = 100
_V1 = Path("/sys/fs/cgroup")


@pytest.fixture
def program(run):
    return functools.partial(run, "vcpu", unpack, look_ms=_LOOK_MS)


@pytest.fixture
def ending():
    """Call with what has a `close`: it is called at the end, the last first."""
    made = []

    def keep(thing):
        made.append(thing)
        return thing

    yield keep
    for each in reversed(made):
        each.close()


def stays(running, thread, *, is_open=False, state=None):
    found = [each for each in running.seen() if each.pid == thread.pid and each.open == is_open]
    return [each for each in found if state is None or each.state == state]


def follow(running, thread):
    """Wait until the thread is followed, and stand it still; return its schedstat and the time then."""
    until(lambda: stays(running, thread, is_open=True) or stays(running, thread), "it is found")
    return thread.stop(), time.monotonic_ns()


def assert_sums(running, thread, before, since_ns, after):
    """The records of what ended since then are what the scheduler counts, to 1 %."""
    until(
        lambda: stays(running, thread, is_open=True, state=STOPPED)[-1:] and stays(running, thread)[-1].ts_ns,
        "all is read",
    )
    time.sleep(0.2)
    found = [each for each in stays(running, thread) if each.ts_ns >= since_ns]
    run_ns = sum(each.cpu_ns or each.duration_ns for each in found if each.state == RUNNING)
    # A virtual machine's kernel may switch and tell no program of it: then a stay is not known in full.
    unseen = [each for each in found if each.state == RUNNING and not each.cpu_ns]
    share = 0.05 if unseen else 0.01
    wall_ns = sum(each.duration_ns for each in found if each.state == RUNNING)
    wait_ns = sum(each.duration_ns for each in found if each.state in (WAITING, THROTTLED))
    counted = tuple(now - then for now, then in zip(after, before, strict=True))
    print("run", run_ns, wall_ns, counted[0], "wait", wait_ns, counted[1])
    assert run_ns == pytest.approx(counted[0], rel=share, abs=2_000_000)
    assert wall_ns == pytest.approx(counted[0], rel=share + 0.01, abs=5_000_000)
    assert wait_ns == pytest.approx(counted[1], rel=share, abs=5_000_000)
    return found


def test_a_neighbour_of_higher_priority_starves_it(program, ending):
    thread = ending(Thread("CPU 3/KVM"))
    running = program()
    before, since_ns = follow(running, thread)
    thread.go_on()
    neighbour = ending(
        Thread(
            "neighbour",
            "while True:\n t = time.monotonic() + 0.4\n while time.monotonic() < t: pass\n time.sleep(0.1)",
        )
    )
    os.sched_setscheduler(neighbour.pid, os.SCHED_FIFO, os.sched_param(10))

    # On a busy machine somebody else may have put it off its CPU before the neighbour began: one burst of many will do.
    def told():
        opened = stays(running, thread, is_open=True, state=WAITING)
        return (neighbour.pid, b"neighbour") in {(each.prev_pid, each.prev_comm) for each in opened}

    until(told, "it is told while it waits for the neighbour")
    time.sleep(0.6)  # a whole burst
    neighbour.stop()
    time.sleep(0.3)
    found = assert_sums(running, thread, before, since_ns, thread.stop())
    longest = max((each for each in found if each.state == WAITING), key=lambda each: each.duration_ns)
    assert longest.duration_ns > 100_000_000
    assert (longest.vcpu, longest.comm, longest.tgid, longest.on_cpu) == (3, b"CPU 3/KVM", thread.pid, CPU)
    running.finish()


def test_one_that_is_stopped_is_told_while_it_stands(program, ending):
    thread = ending(Thread("vcpu7"))
    running = program()
    follow(running, thread)
    begun_ns = time.monotonic_ns()
    opened = until(lambda: stays(running, thread, is_open=True, state=STOPPED)[2:], "it is told while it stands")
    assert {(each.vcpu, each.task_state) for each in opened} == {(7, b"T")}
    thread.go_on()
    (ended,) = until(lambda: stays(running, thread, state=STOPPED), "its end is told")
    assert ended.duration_ns > opened[-1].duration_ns > _LOOK_MS * 1_000_000
    assert abs(ended.ts_ns - ended.duration_ns - (opened[0].ts_ns - opened[0].duration_ns)) < 1_000_000
    assert ended.ts_ns - ended.duration_ns < begun_ns < ended.ts_ns
    running.finish()


@pytest.mark.parametrize("version", [1, 2])
def test_one_that_is_frozen_is_told_while_it_stands(program, ending, version):
    parent = UNIFIED if version == 2 else _V1 / "freezer"
    if parent is None or not (parent / "cgroup.procs").exists():
        pytest.skip(f"no freezer of version {version} of cgroups")
    group = ending(Group(parent))
    thread = ending(Thread("CPU 0/TCG"))
    group.put("cgroup.procs", thread.pid)
    running = program()
    before, since_ns = follow(running, thread)
    thread.go_on()
    time.sleep(0.5)
    group.put("cgroup.freeze", 1) if version == 2 else group.put("freezer.state", "FROZEN")
    until(lambda: stays(running, thread, is_open=True, state=FROZEN)[2:], "it is told while it stands")
    group.put("cgroup.freeze", 0) if version == 2 else group.put("freezer.state", "THAWED")
    (ended,) = until(lambda: stays(running, thread, state=FROZEN), "its end is told")
    assert ended.duration_ns > 3 * _LOOK_MS * 1_000_000
    found = assert_sums(running, thread, before, since_ns, thread.stop())
    assert [each for each in found if each.state == RUNNING and not each.open]
    running.finish()


def test_one_whose_group_has_used_up_its_time_is_throttled(program, ending):
    if not (_V1 / "cpu" / "cpu.cfs_quota_us").exists():
        pytest.skip("no controller cpu of version 1 of cgroups")
    group = ending(Group(_V1 / "cpu"))
    group.put("cpu.cfs_period_us", 1_000_000)
    group.put("cpu.cfs_quota_us", 20_000)
    thread = ending(Thread("fc_vcpu 1"))
    running = program()
    before, since_ns = follow(running, thread)
    group.put("cgroup.procs", thread.pid)
    thread.go_on()
    until(lambda: stays(running, thread, is_open=True, state=THROTTLED), "it is told while it waits")
    time.sleep(2)
    found = assert_sums(running, thread, before, since_ns, thread.stop())
    throttled_ns = sum(each.duration_ns for each in found if each.state == THROTTLED)
    stat = dict(line.split() for line in group.get("cpu.stat").splitlines())
    # A stay has also what it waited behind that for others.
    assert throttled_ns > 0.9 * int(stat["throttled_time"]) > 0
    assert {each.vcpu for each in found} == {1}
    running.finish()


def test_one_that_waits_for_a_pipe_sleeps(program, ending):
    code = "while True:\n os.read(0, 1)\n t = time.monotonic() + 0.005\n while time.monotonic() < t: pass"
    thread = ending(Thread("CPU 12/KVM", code, stdin=subprocess.PIPE))
    running = program()
    thread.process.stdin.write(b"x")
    thread.process.stdin.flush()
    before, since_ns = follow(running, thread)
    thread.go_on()
    for _ in range(20):
        time.sleep(0.05)
        thread.process.stdin.write(b"x")
        thread.process.stdin.flush()
    opened = until(lambda: stays(running, thread, is_open=True, state=SLEEPING), "it is told while it sleeps")
    assert opened[-1].task_state == b"S"
    found = assert_sums(running, thread, before, since_ns, thread.stop())
    sleeps = [each.duration_ns for each in found if each.state == SLEEPING and each.duration_ns > 20_000_000]
    assert len(sleeps) >= 5
    watched = running.finish()
    assert sum(watched.measures["sleeping_ns"]) == len(
        [each for each in watched.records if each.state >= SLEEPING and not each.open]
    )
    thread.process.stdin.close()


def test_one_that_waits_for_a_disk_is_told_while_it_does(program, ending, tmp_path):
    try:
        holder = ending(Holder(tmp_path))
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"needs mkfs.ext4 and a loop device: {e}")
    disk = ending(Disk(holder.path, MIB))
    code = (
        f"import mmap\nfd = os.open('{disk.path}', os.O_RDWR | os.O_DIRECT)\n"
        "while os.read(0, 1): os.pwrite(fd, mmap.mmap(-1, 4096), 0)"
    )
    thread = ending(Thread("CPU 2/KVM", code, stdin=subprocess.PIPE))
    running = program()
    slept = until(lambda: stays(running, thread, is_open=True, state=SLEEPING), "it waits to be told")
    assert not any(each.io_wait for each in slept)
    with holder.frozen():
        thread.process.stdin.write(b"x")
        thread.process.stdin.flush()
        opened = until(lambda: stays(running, thread, is_open=True, state=UNINTERRUPTIBLE)[2:], "it waits for its disk")
    assert {(each.task_state, each.io_wait) for each in opened} == {(b"D", True)}
    ended = until(
        lambda: [
            each
            for each in stays(running, thread, state=UNINTERRUPTIBLE)
            if each.duration_ns > opened[-1].duration_ns > 2 * _LOOK_MS * 1_000_000
        ],
        "its end is told",
    )
    assert [(each.task_state, each.io_wait) for each in ended] == [(b"D", True)]
    running.finish()
    thread.process.stdin.close()


def test_threads_beyond_as_many_as_it_follows_are_counted_once(ending):
    skip_unless_loadable()
    threads = [ending(Thread(f"CPU {number}/KVM", "time.sleep(99)")) for number in range(5)]
    settings = {"threads_max": 2, "by_name": 0, "pids": struct.pack("=5I", *(each.pid for each in threads))}
    program = ending(Program("vcpu", 4096, settings))
    program.attach()

    def untracked():
        program.run_own(float(next(looks)))
        return sum(each.untracked for each in program.counts())

    looks = itertools.count(0, 10)
    assert [untracked() for _ in range(4)] == [3, 3, 3, 3]
    threads[0].close()
    assert [untracked() for _ in range(3)] == [3, 3, 3]


def test_the_stays_of_one_thread_follow_each_other(program, ending):
    thread = ending(Thread("CPU 1/KVM"))
    other = ending(Thread("other"))
    running = program()
    follow(running, thread)
    thread.go_on()
    time.sleep(1)
    thread.stop()
    time.sleep(0.3)
    found = sorted(stays(running, thread), key=lambda each: each.ts_ns)[1:]
    gaps = [after.ts_ns - after.duration_ns - before.ts_ns for before, after in itertools.pairwise(found)]
    assert len(gaps) > 20
    # The scheduler's clock is read some us before the event; a switch that no program is told of is a gap of more.
    assert sorted(map(abs, gaps))[len(gaps) * 9 // 10] < 100_000
    assert not stays(running, other)
    running.finish()


def test_threads_are_found_by_number_and_by_group_and_then_not_by_name(program, ending):
    if UNIFIED is None:
        pytest.skip("no version 2 of cgroups")
    group = ending(Group(UNIFIED))
    inner = ending(Group(group.path))
    named, numbered, grouped = (ending(Thread(name)) for name in ("CPU 1/KVM", "one", "two"))
    inner.put("cgroup.procs", grouped.pid)
    running = program(pids=(numbered.pid,), cgroup=group.path)
    until(lambda: stays(running, numbered) and stays(running, grouped), "both are found")
    assert {each.vcpu for each in stays(running, numbered)} == {-1}
    assert not stays(running, named)
    running.finish()


def test_what_is_no_group_of_version_2_is_said(program, tmp_path):
    with pytest.raises(UsageError, match=f"cgroup {tmp_path} is none of version 2"):
        program(cgroup=tmp_path)
    with pytest.raises(UsageError, match="pids is a list of at most 64 numbers of processes, none twice"):
        BpfProgram("vcpu", pids=(0,))


# Since Linux 6.12 the scheduler books it as such for a sleeper that it moves to another CPU.
def test_sleep_in_a_run_queue_is_no_wait(program, tracing):
    running = program()
    with uneven("CPU 3/KVM"):
        until(lambda: len({each.pid for each in running.seen() if each.state == WAITING}) > 20, "they are followed")
        begin_ns = time.monotonic_ns()
        trace = tracing(*WAIT_EVENTS, buffer_kib=32768)
        time.sleep(8)
        text = trace.text()
    ended = [each for each in running.finish().records if each.state == WAITING and not each.open]
    known, slept = with_sleep(
        ((each.pid, each.ts_ns, each.duration_ns) for each in ended if each.ts_ns > begin_ns + 10**9), text
    )
    assert known > 500
    assert slept <= 1  # a machine may not run a program at each move
