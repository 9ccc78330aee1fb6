"""block-io on loop devices whose file can be frozen: what it says of requests is what their trace events say."""

import contextlib
import functools
import itertools
import os
import re
import struct
import subprocess
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.producers.bpf._bpf import skip_unless_loadable
from tests.producers.bpf_programs._disks import BLOCK_BYTES, MIB, Disk, Holder
from tests.producers.bpf_programs._programs import Hash, until

pytestmark = pytest.mark.kernel
DONE, QUEUED, ISSUED = range(3)
READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES = 0, 1, 2, 3, 9
OPEN_BYTES, TGID = 88, slice(52, 56)
#: The clock of an event is read some us before or after the program's, and under emulation or load some ms.
READING_NS = 5_000_000
_STRUCT = struct.Struct("=QIIQQQQ8I8?32s16s")


class Request(NamedTuple):
    """`struct block_io` of producers/bpf_programs/block-io.bpf.c."""

    ts_ns: int
    cpu: int
    state: int
    cpu_seq: int
    sector: int
    queued_ns: int
    service_ns: int
    size_bytes: int
    operation: int
    status: int
    requeues: int
    major: int
    minor: int
    pid: int
    tgid: int
    sync: bool
    meta: bool
    fua: bool
    preflush: bool
    readahead: bool
    background: bool
    nowait: bool
    idle: bool
    disk: bytes
    comm: bytes


def unpack(data):
    found = Request._make(_STRUCT.unpack(data))
    return found._replace(disk=found.disk.rstrip(b"\0"), comm=found.comm.split(b"\0")[0])


@pytest.fixture
def holder(tmp_path):
    skip_unless_loadable()
    try:
        made = Holder(tmp_path)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"needs mkfs.ext4 and a loop device: {e}")
    yield made
    made.close()


@pytest.fixture
def disk(holder):
    made = Disk(holder.path, 16 * MIB)
    yield made
    made.close()


@pytest.fixture
def program(run):
    return functools.partial(run, "block-io", unpack)


def of(disk, records):
    return [each for each in records if (each.major, each.minor) == (disk.major, disk.minor)]


_EVENT = re.compile(r"\s(\d+)\.(\d+): (block_rq_\w+): (\d+),(\d+) (\w+) (.*)")


def traced(text, disk):
    """Return (sector, sectors, operation as the event has it, issue to completion in ns, error), by their ends."""
    issued, found = {}, []
    for seconds, micros, event, major, minor, flags, rest in _EVENT.findall(text):
        if (int(major), int(minor)) != (disk.major, disk.minor):
            continue
        ts_ns = (int(seconds) * 1_000_000 + int(micros)) * 1000
        sector, sectors = map(int, re.search(r"(\d+) \+ (\d+)", rest).groups())
        sector = 0 if sector == (1 << 64) - 1 else sector  # a flush has none
        if event == "block_rq_issue":
            issued[sector, flags] = ts_ns
        elif event == "block_rq_complete" and (sector, flags) in issued:
            error = int(re.search(r"\[(-?\d+)\]", rest)[1])
            found.append((sector, sectors, flags, ts_ns - issued.pop((sector, flags)), error))
    return found


BLOCK_EVENTS = ("block/block_rq_insert", "block/block_rq_issue", "block/block_rq_complete")


def test_requests_are_those_that_trace_events_tell_in_all_their_parts(disk, program, tracing):
    trace = tracing(*BLOCK_EVENTS)
    running = program(threshold_us=0)
    disk.direct(8 * BLOCK_BYTES, 3 * BLOCK_BYTES)
    disk.direct(0, write=False)
    with Path(disk.path).open("r+b", buffering=0) as file:
        file.write(b"x" * BLOCK_BYTES)
        os.fsync(file.fileno())
    subprocess.run(["blkdiscard", "--offset", str(MIB), "--length", str(MIB), disk.path], check=True)
    subprocess.run(["blkdiscard", "--zeroout", "--offset", str(4 * MIB), "--length", str(MIB), disk.path], check=True)
    watched = running.finish()
    wanted = traced(trace.text(), disk)
    # One that was open at the moment of a look is told as that too.
    mine = sorted(each for each in of(disk, watched.records) if each.state == DONE)
    letters = {READ: "R", WRITE: "W", FLUSH: "F", DISCARD: "D", WRITE_ZEROES: "Z"}
    seen = sorted((each.sector, each.size_bytes // 512, letters.get(each.operation, "?")) for each in mine)
    names = sorted((sector, sectors, letter_of(flags)) for sector, sectors, flags, _, _ in wanted)
    assert seen == names
    assert {letter for _, _, letter in seen} >= {"R", "W", "F", "D"}
    by_place = defaultdict(list)
    for sector, _, flags, took_ns, _ in wanted:
        by_place[sector, letter_of(flags)].append(took_ns)
    for each in mine:
        took_ns = by_place[each.sector, letters[each.operation]].pop(0)
        assert each.service_ns == pytest.approx(took_ns, abs=READING_NS)
    direct = next(each for each in mine if each.sector == 64)
    assert (direct.size_bytes, direct.sync, direct.disk, direct.status) == (12288, True, disk.name.encode(), 0)
    assert (direct.pid, direct.tgid) == (threading.get_native_id(), os.getpid())
    assert direct.comm == comm()
    assert sum(watched.measures["flush_ns"]) >= 1
    assert sum(watched.measures["write_ns"]) >= 2
    assert watched.measures["errors"] == 0
    assert watched.counters["untracked"] == 0


def letter_of(flags):
    """The operation in the text of an event: `FF` is a flush, `FWS` a write with one before it, `N` what has no letter."""
    letter = (flags.lstrip("F") or "F")[0]
    return "Z" if letter == "N" else letter


def comm():
    return Path("/proc/thread-self/comm").read_bytes().strip()


def writing(disk, *blocks):
    """Begin to write each of these blocks, each in a thread of its own; call what is returned to wait for all."""
    threads = [threading.Thread(target=disk.direct, args=(block * BLOCK_BYTES,)) for block in blocks]
    for each in threads:
        each.start()

    def done():
        for each in threads:
            each.join()

    return done


def in_flight(disk):
    return sum(map(int, Path(f"/sys/block/{disk.name}/inflight").read_text().split()))


def test_a_request_that_stays_open_is_told_each_second_and_has_the_time_of_its_end(holder, disk, program, tracing):
    trace = tracing(*BLOCK_EVENTS)
    running = program(threshold_us=300_000)
    disk.direct(0)
    with holder.frozen():
        done = writing(disk, 9)
        time.sleep(3.2)
        open_ones = of(disk, running.seen())
    done()
    watched = running.finish()
    ((sector, _, _, took_ns, _),) = [each for each in traced(trace.text(), disk) if each[3] > 1e9]
    assert sector == 72
    *before, last = of(disk, watched.records)
    assert [each._replace(cpu=0, cpu_seq=0) for each in before] == [
        each._replace(cpu=0, cpu_seq=0) for each in open_ones
    ]
    assert len(before) == 3
    assert {(each.state, each.sector, each.operation, each.size_bytes) for each in before} == {
        (ISSUED, 72, WRITE, BLOCK_BYTES)
    }
    since = {each.ts_ns - each.queued_ns - each.service_ns for each in [*before, last]}
    assert len(since) == 1
    assert [round((b.ts_ns - a.ts_ns) / 1e9) for a, b in itertools.pairwise(before)] == [1, 1]
    assert before[0].service_ns >= 300_000_000
    assert (last.state, last.sector, last.status) == (DONE, 72, 0)
    assert 3.1e9 < last.service_ns < 6e9
    assert last.service_ns == pytest.approx(took_ns, abs=READING_NS)
    # The short one is in the histogram alone.
    assert sum(watched.measures["write_ns"]) >= 2
    # 2^31 to 2^32 ns; a histogram is of all disks, and others may be slow as well.
    assert watched.measures["write_ns"][32] >= 1


def write_all(disk):
    for block in range(8):
        disk.direct(block * MIB, MIB)


def test_an_error_is_a_record_however_short_it_took(small_disk, program, tracing):
    skip_unless_loadable()
    try:
        disk = Disk(small_disk, 8 * MIB, sparse=True)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"needs a loop device: {e}")
    try:
        trace = tracing(*BLOCK_EVENTS)
        running = program(threshold_us=10_000_000)
        with pytest.raises(OSError, match=r"No space left|Input/output error"):
            write_all(disk)
        watched = running.finish()
        failed = [each for each in traced(trace.text(), disk) if each[4]]
        mine = of(disk, watched.records)
        assert sorted((each.sector, each.size_bytes // 512) for each in mine) == sorted(each[:2] for each in failed)
        statuses = {-28: 3, -5: 10}  # ENOSPC, EIO
        assert [each.status for each in mine] == [statuses[each[4]] for each in failed]
        assert {each.state for each in mine} == {DONE}
        assert watched.measures["errors"] == len(mine) > 0
    finally:
        disk.close()


def open_requests(running):
    return Hash(running.map("open_requests"), 8, OPEN_BYTES)


def open_since(kept, before_ns):
    """Return those requests of this process that a program takes for open and that began before then."""
    mine = [(key, value) for key, value in kept.items() if int.from_bytes(value[TGID], "little") == os.getpid()]
    return [(key, value) for key, value in mine if int.from_bytes(value[:8], "little") < before_ns]


def test_requests_that_wait_for_the_driver_are_told_as_queued_and_merged_ones_are_forgotten(holder, disk, program):
    disk.set("scheduler", "mq-deadline")
    running = program(threshold_us=100_000)
    kept = open_requests(running)
    # The driver takes 128; what is more waits in the scheduler. A hole between two that wait is filled: they become one.
    with holder.frozen():
        done = [writing(disk, *range(0, 640, 4))]
        until(lambda: len(open_since(kept, time.monotonic_ns() - 100_000_000)) >= 160, "160 open requests")
        assert in_flight(disk) == 128
        for block in (800, 802, 801):
            done.append(writing(disk, block))
            time.sleep(0.3)
        time.sleep(1.5)
    thawed_ns = time.monotonic_ns()
    for each in done:
        each()
    until(lambda: not open_since(kept, thawed_ns), "no request is left")
    watched = running.finish()
    mine = of(disk, watched.records)
    waiting = {each.sector for each in mine if each.state == QUEUED}
    assert len({each.sector for each in mine if each.state == ISSUED}) == 128
    ended = {each.sector: each for each in mine if each.state == DONE}
    assert len(ended) == 161
    assert 800 * 8 in waiting
    assert len(waiting & set(ended)) == 33
    for sector in waiting & set(ended):
        assert ended[sector].queued_ns > 1e9 > ended[sector].service_ns
    assert watched.measures["merged"] >= 1  # of all disks
    assert ended[800 * 8].size_bytes == 3 * BLOCK_BYTES


def test_what_ended_unseen_is_found_and_forgotten(holder, disk, program):
    running = program(threshold_us=100_000)
    kept = open_requests(running)
    with holder.frozen():
        frozen_ns = time.monotonic_ns()
        done = writing(disk, 0)
        time.sleep(0.5)
        ((key, value),) = open_since(kept, frozen_ns + 250_000_000)
    done()
    until(lambda: kept.value(key) is None, "its end")
    # As if its end had been missed: its memory is still there, and it is free.
    kept.put(key, value)
    # And one whose device has gone with its memory.
    kept.put(struct.pack("=Q", 0xDEAD0000), value)
    until(lambda: kept.value(key) is None and kept.value(struct.pack("=Q", 0xDEAD0000)) is None, "both forgotten")
    watched = running.finish()
    assert watched.measures["stale"] >= 2  # of all disks
    assert not [each for each in of(disk, watched.records) if each.state != DONE and each.service_ns > 60e9]


def test_what_finds_no_room_to_be_followed_is_counted(disk, program):
    running = program(threshold_us=3_600_000_000)
    kept = open_requests(running)

    # The walk of each second forgets what is no request, and a real one may end just then: so perhaps more than once.
    def written_without_room():
        now = struct.pack("=Q", time.monotonic_ns())
        for number in range(16384):
            with contextlib.suppress(AssertionError):
                kept.put(struct.pack("=Q", number + 1), now + bytes(OPEN_BYTES - 8))
        disk.direct(0)
        return sum(each.untracked for each in running.program.counts())

    until(written_without_room, "a request finds no room")
    watched = running.finish()
    assert watched.counters["untracked"] >= 1
    assert watched.measures["untimed"] >= 1
    assert watched.records == []
