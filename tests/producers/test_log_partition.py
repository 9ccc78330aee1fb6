"""A writer killed at any moment and a disk that is full: nothing published is lost, no offset is left out or used twice."""

import contextlib
import multiprocessing
import os
import random
import signal
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import pytest

from producers.log_partition import PartitionWriter
from schemas.errors import StorageError
from schemas.frame import encode
from schemas.log_cursor import LogCursor
from schemas.segment import StreamPosition
from tests._logs import STREAM, TOPIC, drain, frame, numbers, read_all, segments, writer

_KILLS = 25


# Started from a small process, without the threads that other tests leave in this one.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests._logs"])


def _write_until_killed(path, pipe, seed):
    rng = random.Random(seed)
    log = writer(path, segment_bytes=20_000)
    number = log.positions[STREAM].number + 1 if STREAM in log.positions else 0
    while True:
        for _ in range(rng.randrange(1, 6)):
            log.append(TOPIC, frame(number, rng.randbytes(rng.randrange(1, 3000))))
            number += 1
        log.sync()
        pipe.send(number)


def _durable(pipe):
    said = [0]
    with contextlib.suppress(EOFError):
        while True:
            said.append(pipe.recv())
    return said[-1]


def test_a_writer_killed_again_and_again_loses_nothing_it_published(tmp_path):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    seen, torn_bytes, durable = [], 0, 0
    cursor = LogCursor(tmp_path, TOPIC, 0)
    for kill in range(_KILLS):
        reads, writes = _context.Pipe(duplex=False)
        writing = _context.Process(target=_write_until_killed, args=(tmp_path, writes, rng.random()))
        writing.start()
        writes.close()
        if rng.random() < 0.8:  # else it dies while it opens the log
            reads.poll(10)
        deadline_s = time.monotonic() + rng.uniform(0, 0.05)
        while time.monotonic() < deadline_s:
            seen += cursor.read()
        os.kill(writing.pid, signal.SIGKILL)
        writing.join()
        assert writing.exitcode == -signal.SIGKILL
        durable = max(durable, _durable(reads))
        reads.close()
        # What was said to be durable, and what a reader was shown, is there without another writer's help.
        seen += drain(cursor)
        assert len(seen) >= durable, f"kill {kill}"
        log = writer(tmp_path, segment_bytes=20_000)
        torn_bytes += log.torn_bytes
        log.close()
        assert numbers(read_all(tmp_path)) == [(n, n) for n in range(cursor.end_offset())]
    seen += drain(cursor)
    assert seen == read_all(tmp_path)
    assert durable > _KILLS
    assert len(segments(tmp_path)) > 3


def fill(disk, leave_bytes):
    """Leave about so many bytes free; return the file to delete for the rest."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast.write_bytes(bytes(max(0, free - leave_bytes)))
    return ballast


@pytest.mark.parametrize("leave_bytes", [0, 4096, 12_288, 40_960, 100_000, 163_840])
@pytest.mark.parametrize("sync_every", [1, 7, 100])
def test_a_full_disk_takes_everything_once_there_is_room(small_disk, leave_bytes, sync_every):
    path = small_disk / "log"
    log = writer(path, segment_bytes=30_000)
    log.append(TOPIC, frame(0, b"x" * 3000))
    log.sync()
    ballast = fill(small_disk, leave_bytes)
    refusals = []

    def insist(step):
        for _ in range(3):
            try:
                return step()
            except StorageError as e:
                refusals.append(str(e))
            shown = numbers(read_all(path))
            assert shown == [(n, n) for n in range(len(shown))]
            if len(refusals) % 3 == 0:
                ballast.unlink(missing_ok=True)
        return step()

    body = random.Random(1).randbytes(3000)
    for n in range(1, 120):
        insist(lambda n=n: log.append(TOPIC, frame(n, body)))
        if n % sync_every == 0:
            insist(log.sync)
    insist(log.sync)
    log.close()
    assert len(refusals) >= 3
    assert all(each.startswith(str(path / TOPIC)) and each.endswith("No space left on device") for each in refusals)
    assert numbers(read_all(path)) == [(n, n) for n in range(120)]


def test_a_full_disk_gets_its_half_written_bytes_back(small_disk):
    path = small_disk / "log"
    log = writer(path)
    log.append(TOPIC, frame(0))
    log.sync()
    (segment_path,) = segments(path)
    size_bytes = segment_path.stat().st_size
    fill(small_disk, 20_000)
    log.append(TOPIC, frame(1, random.Random(1).randbytes(500_000)))
    for _ in range(3):
        with pytest.raises(StorageError, match="No space left"):
            log.sync()
        assert segment_path.stat().st_size == size_bytes
    with pytest.raises(StorageError, match="No space left"):
        log.close()
    log = writer(path)
    assert log.torn_bytes == 0
    assert log.positions == {STREAM: (10, 0)}
    log.close()


def test_a_full_disk_refuses_a_new_log_by_name_and_takes_it_later(small_disk):
    ballast = fill(small_disk, 0)
    with pytest.raises(StorageError, match=f"{small_disk}.*: No space left"):
        writer(small_disk / "log")
    ballast.unlink()
    log = writer(small_disk / "log")
    log.append(TOPIC, frame(0))
    log.close()
    assert numbers(read_all(small_disk / "log")) == [(0, 0)]


def test_a_full_disk_does_not_keep_a_log_from_being_opened(small_disk):
    path = small_disk / "log"
    log = writer(path)
    log.append(TOPIC, frame(0))
    log.close()
    with segments(path)[0].open("ab") as file:
        file.write(b"torn")
    ballast = fill(small_disk, 0)
    log = writer(path)
    assert (log.torn_bytes, log.positions) == (4, {STREAM: (10, 0)})
    log.append(TOPIC, frame(1, random.Random(1).randbytes(9000)))
    with pytest.raises(StorageError, match="No space left"):
        log.sync()
    ballast.unlink()
    log.sync()
    log.close()
    assert numbers(read_all(path)) == [(0, 0), (1, 1)]


def test_a_sync_that_failed_is_not_believed_when_the_next_one_succeeds(thin_disk):
    # The kernel forgets pages that it could not write: fdatasync fails once and then says that all is well.
    path = thin_disk.path / "log"
    log = writer(path)
    log.append(TOPIC, frame(0))
    log.sync()
    thin_disk.use_up()
    for n in range(1, 6):
        log.append(TOPIC, frame(n, random.Random(n).randbytes(30_000)))
    for _ in range(2):
        with pytest.raises(StorageError, match=f"{segments(path)[0]}: "):
            log.sync()
        assert numbers(read_all(path)) == [(0, 0)]
    thin_disk.grow()
    log.sync()
    log.append(TOPIC, frame(6))
    log.close()
    # What the disk itself holds, and not the page cache.
    thin_disk.unmount()
    thin_disk.mount()
    assert numbers(read_all(path)) == [(n, n) for n in range(7)]


@pytest.fixture
def unprivileged(tmp_path):
    """Be somebody whom permissions bind."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="hypocenter-") as path:
        os.chown(path, 65534, 65534)
        os.seteuid(65534)
        yield Path(path)
        os.seteuid(0)


def test_a_segment_whose_creation_failed_half_way_is_not_written_past(unprivileged):
    path = unprivileged / "log"
    log = writer(path, segment_bytes=5000)
    log.append(TOPIC, frame(0, random.Random(0).randbytes(3000)))
    folder = path / TOPIC / "0"
    folder.chmod(0o300)  # names can be created in it, but it cannot be opened to be synced
    with pytest.raises(StorageError, match="Permission denied"):
        log.append(TOPIC, frame(1, random.Random(1).randbytes(3000)))
    with pytest.raises(StorageError, match="Permission denied"):
        log.append(TOPIC, frame(1))  # would fit the old segment
    folder.chmod(0o750)
    assert len(segments(path)) == 2
    log.append(TOPIC, frame(1))
    log.close()
    assert numbers(read_all(path)) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("size", [10, 40_000, 300_000])
def test_a_frame_in_parts_is_read_as_a_whole(tmp_path, size):
    payload = encode(frame(0, random.Random(size).randbytes(size)), compress=False)
    log = writer(tmp_path / "log")
    for cuts in ([], [7], [7, len(payload) - 5]):
        parts = tuple(memoryview(payload)[a:b] for a, b in pairwise([0, *cuts, len(payload)]))
        log.append_encoded(TOPIC, parts, STREAM, StreamPosition(10, 0))
    log.close()
    assert [each for _, _, each in read_all(tmp_path / "log")] == [payload] * 3


def test_a_clock_that_was_once_ahead_is_told_once_until_it_is_right_again(tmp_path, caplog):
    now_s = [1_000_000]
    for open_ in range(2):
        log = writer(tmp_path, clock=lambda: now_s[0] * 10**9)
        for i, at_s in enumerate((1_000_000, 1_007_200, 1_007_190, 1_000_002, 1_000_003)):
            now_s[0] = at_s
            log.append(TOPIC, frame(5 * open_ + i))
        log.close()
    told = [each.getMessage() for each in caplog.records if "behind the newest append time" in each.getMessage()]
    assert [" ".join(each.split()[1:6]) for each in told] == [
        "the clock is 7198 s",
        "the clock is 7200 s",
        "the clock is 7198 s",
    ]
    assert "until the clock is there (1970-01-12 15:46:40 UTC)" in told[0]
    assert [ts_ns // 10**9 for _, ts_ns, _ in read_all(tmp_path)] == [1_000_000, *[1_007_200] * 9]


def test_a_segment_behind_a_damaged_header_is_never_older_than_the_one_before(tmp_path):
    made = PartitionWriter(tmp_path / "p", 560, lambda: 5)
    for n in range(10):
        made.append(frame(n))
    made.sync()
    first, second, _ = sorted((tmp_path / "p").glob("*.seg"))
    data = bytearray(second.read_bytes())
    data[12] ^= 1
    second.write_bytes(data)
    os.utime(first, ns=(10**18, 10**18))
    assert [each.closed_ns for each in made.closed_segments()] == [10**18, 10**18]
    made.close()
