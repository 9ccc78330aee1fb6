"""Records of BPF programs for tests: a reader of `struct sched_delay`, and what any ring's bytes must add up to."""

import contextlib
import os
import re
import struct
import subprocess
import sys
from collections import defaultdict
from typing import NamedTuple

import pytest

from producers.bpf import program, ring
from schemas import bpf
from schemas.errors import AccessError
from tests.producers.ftrace._ftrace import TRACEFS

_SCHED_DELAY = struct.Struct("=QIIQQIIII16s16s")


class Delay(NamedTuple):
    """`struct sched_delay` of producers/bpf_programs/sched-delay.bpf.c."""

    ts_ns: int
    cpu: int
    cause: int
    cpu_seq: int
    wait_ns: int
    pid: int
    tgid: int
    prev_pid: int
    prev_tgid: int
    comm: bytes
    prev_comm: bytes


def skip_unless_loadable():
    """Skip where the kernel takes no program, or none was built."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    try:
        ring.load_helper()
        program.Program("sched-delay", 4096, {}).close()
    except AccessError as e:
        pytest.skip(str(e))


def records_of(batch):
    """Return the data of each record of one batch: the shortest walk that the format allows, apart from any decoder."""
    found = bpf.unpack(batch.body)
    records, at = [], 0
    while at < len(found.data):
        (word,) = struct.unpack_from("=I", found.data, at)
        assert not word & 1 << 31
        length = word & (1 << 30) - 1
        if not word & 1 << 30:
            records.append(bytes(found.data[at + 8 : at + 8 + length]))
        at += 8 + length + (-length % 8)
    assert at == len(found.data)
    assert len(records) == found.count == batch.count == batch.next - batch.first
    return records


def delays_of(batches):
    """Return the records of `sched-delay` in batches, or frames, that have any."""
    found = [Delay._make(_SCHED_DELAY.unpack(each)) for batch in batches if batch.count for each in records_of(batch)]
    return [each._replace(comm=each.comm.rstrip(b"\0"), prev_comm=each.prev_comm.rstrip(b"\0")) for each in found]


def by_cpu(delays):
    found = defaultdict(list)
    for each in delays:
        found[each.cpu].append(each)
    return found


def refused_by_cpu(losses):
    """Return how many records of each CPU the losses say the ring refused."""
    found = defaultdict(int)
    for loss in losses:
        if loss.reason.startswith("ring-"):
            found[int(loss.reason.rpartition("cpu")[2])] += loss.count
    return found


_EVENT = re.compile(r"\s(\d+)\.(\d+): (sched_\w+): (.*)")


@contextlib.contextmanager
def traced_waits():
    """Trace the scheduler; yield what has, at the end, the waits in ns of each thread as its events say, to the us."""
    instance = TRACEFS / "instances" / f"waits-{os.getpid()}"
    instance.mkdir()
    waits = defaultdict(list)
    try:
        (instance / "trace_clock").write_text("mono")
        (instance / "buffer_size_kb").write_text("32768")
        for event in ("sched_switch", "sched_wakeup", "sched_wakeup_new"):
            (instance / "events" / "sched" / event / "enable").write_text("1")
        yield waits
        (instance / "tracing_on").write_text("0")
        _add_waits((instance / "trace").read_text(), waits)
    finally:
        instance.rmdir()


def _add_waits(text, waits):
    since = {}
    for seconds, micros, event, rest in _EVENT.findall(text):
        ts_ns = (int(seconds) * 1_000_000 + int(micros)) * 1000
        if event != "sched_switch":
            since[int(re.search(r" pid=(\d+)", rest)[1])] = ts_ns
            continue
        before, state, after = re.search(r"prev_pid=(\d+) .*prev_state=(\S+) .*next_pid=(\d+)", rest).groups()
        if state.startswith("R"):
            since[int(before)] = ts_ns
        else:
            since.pop(int(before), None)
        if int(after) in since:
            waits[int(after)].append(ts_ns - since.pop(int(after)))


_HOG = """
import os
os.sched_setaffinity(0, {%d})
os.write(1, b"!")
while True: pass
"""


def hog(cpu):
    """Return a process that never lets go of `cpu` by itself, from now on."""
    started = subprocess.Popen([sys.executable, "-c", _HOG % cpu], stdout=subprocess.PIPE)
    assert started.stdout.read(1) == b"!"
    started.stdout.close()
    return started
