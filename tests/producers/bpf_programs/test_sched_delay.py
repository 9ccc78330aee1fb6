"""sched-delay on real tasks: its waits are the scheduler's own to the ns, and the trace of the same run tells the same."""

import itertools
import os
import signal
import statistics
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests.producers.bpf._bpf import _SCHED_DELAY, Delay, hog
from tests.producers.bpf_programs._programs import PREEMPTED, WAIT_EVENTS, WOKEN, told, uneven, until, with_sleep

pytestmark = pytest.mark.kernel
UNKNOWN = 2
#: The trace's clock is read some us apart from the scheduler's; where the host takes the CPU away between them, more.
_READING_NS, _READING_NS_MAX = 50_000, 20_000_000
_SAME_NS = 500_000


def unpack(data):
    return Delay._make(_SCHED_DELAY.unpack(data))


@pytest.fixture
def sleeper():
    """A thread of this process that sleeps and wakes on CPU 0, until the test ends; its number."""
    ended, known = threading.Event(), []

    def sleep():
        os.sched_setaffinity(0, {0})
        known.append(threading.get_native_id())
        while not ended.wait(0.002):
            pass

    thread = threading.Thread(target=sleep)
    thread.start()
    yield until(lambda: known, "the thread began")[0]
    ended.set()
    thread.join()


def observed(run, tracing):
    """Let two tasks share a CPU; return what the program said, the trace's text, and what each waited by schedstat since
    it was at work: until then it also slept, and of a wait with sleep in it there is no record.
    """
    running = run("sched-delay", unpack)
    trace = tracing(*WAIT_EVENTS, buffer_kib=32768)
    hogs = [hog(0), hog(0)]
    before = {each.pid: waited(each.pid) for each in hogs}
    time.sleep(1)
    for each in hogs:
        each.send_signal(signal.SIGSTOP)
    until(lambda: all("T (stopped)" in Path(f"/proc/{each.pid}/status").read_text() for each in hogs), "they stop")
    text = trace.text()
    counted = {each.pid: waited(each.pid) - before[each.pid] for each in hogs}
    for each in hogs:
        each.kill()
        each.wait()
    return running.finish(), text, counted


def waited(pid):
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])


def by_pid(records):
    found = defaultdict(list)
    for each in records:
        found[each.pid].append(each)
    return found


def compared(watched, text, pids):
    """Return how many arrivals of these threads only the trace has; of the others, whether the causes agree, and by
    how many ns the waits differ.
    """
    mine, trace_waits, causes, differences, missing = by_pid(watched.records), told(text), [], [], 0
    for pid in pids:
        known = [delay for delay in mine[pid] if delay.cause != UNKNOWN]
        assert len(known) > 20
        for end_ns, wait_ns, cause in trace_waits[pid]:
            delay = min(known, key=lambda delay: abs(delay.ts_ns - end_ns))
            if abs(delay.ts_ns - end_ns) > _SAME_NS:
                missing += 1
                continue
            causes.append(delay.cause == cause)
            differences.append(abs(delay.wait_ns - wait_ns))
    return missing, causes, differences


def test_the_waits_are_the_schedulers_own_and_their_causes_those_of_the_trace(run, tracing, sleeper):
    watched, text, counted = observed(run, tracing)
    assert sum(watched.measures["wait_ns"]) == len(watched.records) == watched.counters["attempts"]
    mine = by_pid(watched.records)
    for pid, counted_ns in counted.items():
        # What was waited from some record on, before which it was at work, to another, behind which comes the kill.
        sums = [0, *itertools.accumulate(delay.wait_ns for delay in mine[pid])]
        stretches = {later - earlier for earlier, later in itertools.combinations(sums, 2)}
        if all(delay.cause != UNKNOWN for delay in mine[pid]):
            assert counted_ns in stretches
        else:
            # An arrival that this machine's kernel told no program of: what was waited before it is in no record.
            assert min(abs(each - counted_ns) for each in stretches) < 0.05 * counted_ns
    missing, causes, _ = compared(watched, text, (sleeper, *counted))
    # The first of a thread that was there before is not compared, and a machine may not run a program at each switch.
    assert missing <= len(causes) // 50
    assert causes.count(False) <= len(causes) // 50
    assert {WOKEN, PREEMPTED} <= {delay.cause for delay in watched.records}


def test_the_waits_are_as_long_as_the_trace_tells(run, tracing, sleeper):
    watched, text, counted = observed(run, tracing)
    _, _, differences = compared(watched, text, (sleeper, *counted))
    print(len(differences), "differences in ns:", statistics.quantiles(differences, n=10), max(differences))
    assert statistics.median(differences) < _READING_NS
    assert max(differences) < _READING_NS_MAX


# Since Linux 6.12 the scheduler books it as such for a sleeper that it moves to another CPU: some in each second here.
def test_sleep_in_a_run_queue_is_no_wait(run, tracing):
    running = run("sched-delay", unpack)
    trace = tracing(*WAIT_EVENTS, buffer_kib=32768)
    with uneven():
        time.sleep(8)
        text = trace.text()
    waits = [(each.pid, each.ts_ns, each.wait_ns) for each in running.finish().records]
    known, slept = with_sleep(waits, text)
    assert known > 500
    # A machine may not run a program at each move.
    assert slept <= 1
