"""Records of BPF programs for tests: a reader of `struct sched_delay`, and what any ring's bytes must add up to."""

import os
import struct
import subprocess
import sys
from collections import defaultdict
from typing import NamedTuple

import pytest

from producers import bpf_program, bpf_ring
from schemas import bpf
from schemas.errors import AccessError

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
        bpf_ring.load_helper()
        bpf_program.Program("sched-delay", 4096, {}).close()
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
