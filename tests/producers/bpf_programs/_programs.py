"""One program of the agent's on the real kernel for a test: run, drained at a tick, its records as named tuples."""

import bisect
import contextlib
import ctypes
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from producers.bpf import source as source_module
from producers.bpf.btf import Btf
from producers.registry import Identity, Opening
from schemas.config import BpfConfig, BpfProgram, Config
from tests.producers.bpf._bpf import records_of, refused_by_cpu
from tests.producers.ftrace._ftrace import TRACEFS

_ME = Identity("m", "65e71522-0000-0000-0000-000000000000", "guest-kernel")
_TICK_S = 0.05
_MEASURE_SLOTS = 64


class Watched(NamedTuple):
    """What a program did: its records, what its counters said at the end, and its measures, summed over CPUs."""

    records: list
    counters: dict[str, int]
    measures: dict[str, int | list[int]]


class Running:
    """The program `name`; `unpack` makes a record of its bytes. It is read in a thread until `finish`."""

    def __init__(self, name, unpack, threshold_us=0, ring_kib=16384, **settings):
        config = Config(bpf=BpfConfig((BpfProgram(name, threshold_us, ring_kib, **settings),), snapshot_s=0))
        _, self.source = source_module.open_sources(Opening(_ME, {}, config, None))
        self.program = self.source._program
        self._unpack = unpack
        self._batches = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def finish(self):
        """Let it end; return all that it said."""
        self._done.set()
        self._thread.join()
        self.source.stop()
        while self.source.drain():
            pass
        self._batches += self.source.cut()
        found = Watched(self.seen(), self.source.counters(), self.measures())
        told = self.program.measures()
        assert {name: value if len(value) > 1 else value[0] for name, value in told.items()} == found.measures
        assert_books_close(self._batches, self.program.counts(), found.records)
        self.close()
        return found

    def close(self):
        """Unload it; idempotent."""
        self._done.set()
        self._thread.join()
        self.source.close()

    def seen(self):
        """Return the records so far."""
        return [self._unpack(each) for batch in list(self._batches) if batch.count for each in records_of(batch)]

    def measures(self):
        """Return each member of its struct measures, summed over all CPUs."""
        libbpf = self.program._libbpf
        members = Btf(libbpf, libbpf.bpf_object__btf(self.program._object)).members("measures")
        names = sorted(members, key=members.get)
        starts = [members[name] // 8 for name in names]
        widths = [after - at for at, after in itertools.pairwise(starts)]
        words_of_cpu = starts[-1] + (_MEASURE_SLOTS if names[-1].endswith("_ns") else 1)
        widths.append(words_of_cpu - starts[-1])
        cpus = libbpf.libbpf_num_possible_cpus()
        values = (ctypes.c_uint64 * (words_of_cpu * cpus))()
        key = ctypes.c_uint32(0)
        assert not libbpf.bpf_map_lookup_elem(self.map("measures"), ctypes.byref(key), values)
        sums = [sum(values[i::words_of_cpu]) for i in range(words_of_cpu)]
        return {
            name: sums[at] if width == 1 else sums[at : at + width]
            for name, at, width in zip(names, starts, widths, strict=True)
        }

    def map(self, name):
        """Return the descriptor of one of its maps."""
        return self.program._libbpf.bpf_map__fd(self.program._map(name))

    def _read(self):
        while not self._done.wait(_TICK_S):
            self.source.drain()
            self._batches += self.source.cut()


def assert_books_close(batches, counts, records):
    """On each CPU: attempts = delivered + refused, and no number comes twice."""
    refused = refused_by_cpu([loss for batch in batches for loss in batch.losses])
    numbers = defaultdict(list)
    for each in records:
        numbers[each.cpu].append(each.cpu_seq)
    for cpu, each in enumerate(counts):
        assert refused[cpu] == each.ring_full + each.ring_busy
        assert each.attempts == len(numbers[cpu]) + refused[cpu]
        assert len(set(numbers[cpu])) == len(numbers[cpu])
        assert all(0 <= number < each.attempts for number in numbers[cpu])


class Hash:
    """A hash map by its descriptor, as its keys and values lie."""

    def __init__(self, fd, key_bytes, value_bytes):
        self._fd, self._key_bytes, self._value_bytes = fd, key_bytes, value_bytes
        self._library = ctypes.CDLL("libbpf.so.1", use_errno=True)

    def keys(self):
        found, before = [], None
        after = ctypes.create_string_buffer(self._key_bytes)
        while not self._library.bpf_map_get_next_key(self._fd, before, after):
            found.append(after.raw)
            before = after.raw
        return found

    def items(self):
        return [(key, value) for key in self.keys() if (value := self.value(key)) is not None]

    def value(self, key):
        value = ctypes.create_string_buffer(self._value_bytes)
        return None if self._library.bpf_map_lookup_elem(self._fd, key, value) else value.raw

    def put(self, key, value):
        assert not self._library.bpf_map_update_elem(self._fd, key, value, ctypes.c_uint64(0))


class Trace:
    """An instance of tracefs of its own on the monotonic clock, with `events` (SYSTEM/NAME), until `text` is taken."""

    def __init__(self, *events, buffer_kib=8192):
        self._path = Path(TRACEFS / "instances" / f"programs-{os.getpid()}")
        self._path.mkdir()
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            (self._path / "trace_clock").write_text("mono")
            (self._path / "buffer_size_kb").write_text(str(buffer_kib))
            (self._path / "tracing_on").write_text("0")
            for event in events:
                (self._path / "events" / event / "enable").write_text("1")
            (self._path / "tracing_on").write_text("1")
            undo.pop_all()

    def text(self):
        """End it; return its lines."""
        (self._path / "tracing_on").write_text("0")
        text = (self._path / "trace").read_text()
        self.close()
        return text

    def close(self):
        """Remove it; idempotent."""
        with contextlib.suppress(FileNotFoundError):
            self._path.rmdir()


def until(condition, what, timeout_s=20.0):
    """Wait until `condition()` is true and return its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return value


WOKEN, PREEMPTED = range(2)
WAIT_EVENTS = ("sched/sched_switch", "sched/sched_wakeup", "sched/sched_wakeup_new")
_EVENT = re.compile(r"\s(\d+)\.(\d+): (sched_\w+): (.*)")


def told(text):
    """Return for each thread (end, wait, cause) of each of its arrivals, as the trace events say, to the us."""
    found, since = defaultdict(list), {}
    for seconds, micros, event, rest in _EVENT.findall(text):
        ts_ns = (int(seconds) * 1_000_000 + int(micros)) * 1000
        if event != "sched_switch":
            since.setdefault(int(re.search(r" pid=(\d+)", rest)[1]), (ts_ns, WOKEN))
            continue
        before, state, after = re.search(r"prev_pid=(\d+) .*prev_state=(\S+) .*next_pid=(\d+)", rest).groups()
        if state.startswith("R"):
            since[int(before)] = (ts_ns, PREEMPTED)
        if int(after) in since:
            since_ns, cause = since.pop(int(after))
            found[int(after)].append((ts_ns, ts_ns - since_ns, cause))
    return found


_WAKEUP = re.compile(r"\s(\d+)\.(\d+): sched_wakeup: .* pid=(\d+)")
_SLEEP_NS = 10_000_000


def with_sleep(waits, text):
    """Return how many `waits` (thread, end and ns) are of threads that the trace has woken, and how many of them began
    before that.
    """
    woken = defaultdict(list)
    for seconds, micros, pid in _WAKEUP.findall(text):
        woken[int(pid)].append((int(seconds) * 1_000_000 + int(micros)) * 1000)
    known = slept = 0
    for pid, end_ns, wait_ns in waits:
        at = bisect.bisect_right(woken[pid], end_ns)
        if at:
            known += 1
            slept += woken[pid][at - 1] - (end_ns - wait_ns) > _SLEEP_NS
    return known, slept


_UNEVEN = """
import os, sys, time
def work(s):
    end_s = time.perf_counter() + s
    while time.perf_counter() < end_s:
        pass
for work_s, sleep_s in [(0.004, 0.05)] * 24 + [(0.3, 0.2)] * 3:
    if not os.fork():
        open("/proc/self/comm", "w").write(sys.argv[1])
        while True:
            work(work_s)
            time.sleep(sleep_s)
time.sleep(100)
"""


@contextlib.contextmanager
def uneven(comm="uneven"):
    """Tasks that mostly sleep, beside some that work in stretches: the kernel moves them all the time, also asleep."""
    with subprocess.Popen([sys.executable, "-c", _UNEVEN, comm], start_new_session=True) as load:
        try:
            yield
        finally:
            os.killpg(load.pid, signal.SIGKILL)
