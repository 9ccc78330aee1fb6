"""The log's writer: what it takes over from the last one, what it keeps, and who may write."""

import json
import os
import subprocess
import sys
import time

import pytest

from producers.log import LogWriter
from schemas import log_dir, segment
from schemas.errors import LockedError, StorageError, UsageError
from schemas.log_cursor import LogCursor
from schemas.surfaces import TOPICS
from tests._logs import STREAM, TOPIC, frame, numbers, read_all, segments, write, writer

SMALL = 560  # four entries to a segment


def test_another_writer_goes_on_where_the_last_one_stopped(tmp_path):
    other = STREAM._replace(surface="other")
    log = writer(tmp_path)
    first_id = log.log_id
    log.append(TOPIC, frame(0))
    log.append(TOPIC, frame(1))
    log.append("hypocenter.trace", frame(7, stream=other))
    log.close()
    log = writer(tmp_path)
    assert log.log_id == first_id
    assert log.torn_bytes == 0
    assert log.positions == {STREAM: (20, 1), other: (80, 7)}
    assert (log.positions[STREAM].next, log.positions[STREAM].number) == (20, 1)
    log.append(TOPIC, frame(2))
    log.append("hypocenter.trace", frame(8, stream=other))
    log.close()
    assert numbers(read_all(tmp_path)) == [(0, 0), (1, 1), (2, 2)]
    assert numbers(read_all(tmp_path, "hypocenter.trace")) == [(0, 7), (1, 8)]
    assert json.loads((tmp_path / "log.json").read_text()) == {
        "format": 1,
        "id": first_id,
        "partitions": dict.fromkeys(TOPICS, 1),
    }


def test_positions_come_from_the_newest_segment_alone(tmp_path):
    quiet = STREAM._replace(instance="quiet")
    log = writer(tmp_path, segment_bytes=SMALL)
    log.append(TOPIC, frame(3, stream=quiet))
    for n in range(20):
        log.append(TOPIC, frame(n))
    log.close()
    for path in segments(tmp_path)[:-1]:
        path.unlink()
    log = writer(tmp_path)
    assert log.positions == {quiet: (40, 3), STREAM: (200, 19)}
    log.close()


def test_streams_silent_for_longest_are_forgotten_at_the_limit(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(segment, "STREAMS_MAX", 8)
    streams = [STREAM._replace(boot_id=str(n)) for n in range(10)]
    log = writer(tmp_path, segment_bytes=1)
    for n in (0, 1, 2, 3, 4, 5, 6, 7, 0, 8, 9, 9):
        log.append(TOPIC, frame(n, stream=streams[n]))
    log.close()
    assert "forgetting" in caplog.text
    log = writer(tmp_path)
    assert set(log.positions) == {*streams} - {streams[1], streams[2]}
    log.close()


def test_which_streams_were_silent_for_longest_is_known_to_the_next_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "STREAMS_MAX", 8)
    streams = [STREAM._replace(boot_id=str(n)) for n in range(10)]
    log = writer(tmp_path)
    for n in (*range(8), 0, 1):
        log.append(TOPIC, frame(n, stream=streams[n]))
    log.close()
    log = writer(tmp_path, segment_bytes=1)
    for n in (8, 9, 9):
        log.append(TOPIC, frame(n, stream=streams[n]))
    assert set(log.positions) == {*streams} - {streams[2], streams[3]}
    log.close()


def test_segments_are_about_as_long_as_asked_and_hold_at_least_one_entry(tmp_path):
    write(tmp_path / "a", range(40), segment_bytes=SMALL)
    assert all(300 < path.stat().st_size <= SMALL for path in segments(tmp_path / "a")[:-1])
    write(tmp_path / "b", range(5), segment_bytes=1)
    assert [int(path.stem) for path in segments(tmp_path / "b")] == [0, 1, 2, 3, 4]


def test_append_times_never_go_back(tmp_path):
    times = iter([100, 90, 300, 200, 250, 10, 20, 400])
    for _ in range(2):
        log = writer(tmp_path, segment_bytes=1, clock=lambda: next(times))
        for n in range(4):
            log.append(TOPIC, frame(n))
        log.close()
    assert [append_ns for _, append_ns, _ in read_all(tmp_path)] == [100, 100, 300, 300, 300, 300, 300, 400]


def test_what_is_published_was_synced_before(tmp_path):
    log = writer(tmp_path)
    log.append(TOPIC, frame(0))
    calls = []

    def watch(_frame, event, arg):
        if event == "c_call" and arg in (os.pwrite, os.pwritev, os.fdatasync, os.fsync):
            calls.append(arg.__name__)

    sys.setprofile(watch)
    try:
        log.sync()
    finally:
        sys.setprofile(None)
    log.close()
    assert calls == ["pwritev", "fdatasync", "pwrite"]


def test_the_files_of_a_log_are_not_for_everybody(tmp_path):
    write(tmp_path / "log", range(3))
    for path in (tmp_path / "log").rglob("*"):
        assert path.stat().st_mode & 0o007 == 0, path


class Clock:
    def __init__(self):
        self.now_ns = 10**18

    def __call__(self):
        return self.now_ns


def test_retention_by_age_counts_from_a_segments_last_entry(tmp_path):
    clock = Clock()
    log = writer(tmp_path, segment_bytes=SMALL, retention_ms=10_000, clock=clock)
    for n in range(10):
        log.append(TOPIC, frame(n))
        clock.now_ns += 1_000_000_000
    log.sync()
    assert [int(path.stem) for path in segments(tmp_path)] == [0, 4, 8]
    last_of_the_first_ns = 10**18 + 3_000_000_000
    log.retain(last_of_the_first_ns + 10_000_000_000)
    assert len(segments(tmp_path)) == 3
    log.retain(last_of_the_first_ns + 10_000_000_001)
    assert [int(path.stem) for path in segments(tmp_path)] == [4, 8]
    log.retain(clock.now_ns + 10**18)
    assert [int(path.stem) for path in segments(tmp_path)] == [8]
    log.close()
    assert numbers(read_all(tmp_path)) == [(8, 8), (9, 9)]


def test_retention_by_bytes_holds_over_all_topics_oldest_first(tmp_path):
    clock = Clock()
    log = writer(tmp_path, segment_bytes=SMALL, retention_bytes=3000, clock=clock)
    for n in range(60):
        log.append(TOPICS[n % 2], frame(n))
        clock.now_ns += 1
        log.sync()
    kept = [path for topic in TOPICS[:2] for path in segments(tmp_path, topic)]
    assert 2000 < sum(path.stat().st_size for path in kept) <= 3000
    # Both topics were written alike, so they are kept alike.
    oldest = [LogCursor(tmp_path, topic, 0).start_offset() for topic in TOPICS[:2]]
    assert abs(oldest[0] - oldest[1]) <= 4
    log.close()


def test_a_newest_segment_stays_however_large(tmp_path):
    log = writer(tmp_path, retention_bytes=1, retention_ms=1)
    log.append(TOPIC, frame(0))
    log.sync()
    log.retain(time.time_ns() + 10**18)
    log.close()
    assert numbers(read_all(tmp_path)) == [(0, 0)]


def test_retention_minds_nobody_who_deletes_too(tmp_path):
    log = writer(tmp_path, segment_bytes=SMALL, retention_bytes=1800)
    for n in range(12):
        log.append(TOPIC, frame(n))
    log.retain(time.time_ns())
    for path in segments(tmp_path)[:2]:
        path.unlink()
    # What others deleted does not count: these three segments fit.
    for n in range(12, 20):
        log.append(TOPIC, frame(n))
        log.sync()
    assert [int(path.stem) for path in segments(tmp_path)] == [8, 12, 16]
    log.close()
    assert [offset for offset, _, _ in read_all(tmp_path)] == list(range(8, 20))


_HOLD = """
import sys
from pathlib import Path
from producers.log import LogWriter
log = LogWriter(Path(sys.argv[1]), retention_bytes=1 << 30, retention_ms=None, segment_bytes=1 << 20)
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_writer_is_refused_by_name_until_the_first_is_gone(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"open\n"
    with pytest.raises(LockedError) as caught:
        writer(tmp_path)
    assert str(caught.value) == f"{tmp_path} has a writer already: process {holder.pid}"
    holder.kill()
    holder.communicate()
    writer(tmp_path).close()


def test_a_writer_that_failed_to_open_holds_nothing(tmp_path):
    writer(tmp_path).close()
    good = (tmp_path / "log.json").read_text()
    (tmp_path / "log.json").write_text(good.replace('"format": 1', '"format": 2'))
    for _ in range(2):
        with pytest.raises(UsageError, match="is a log of format 2, this version knows 1"):
            writer(tmp_path)
    (tmp_path / "log.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        writer(tmp_path)
    (tmp_path / "log.json").write_text(good)
    writer(tmp_path).close()


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"is not empty and no log: it holds 'thesis\.tex'"):
        writer(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="is no directory"):
        writer(tmp_path / "thesis.tex")


def test_a_creation_that_was_cut_off_is_begun_again(tmp_path):
    (tmp_path / "writer.lock").touch()
    (tmp_path / "log.json.part").write_text("{")
    write(tmp_path, range(2))
    part = tmp_path / TOPIC / "0" / f"{7:020d}.seg.part"
    part.write_bytes(b"half a header")
    write(tmp_path, range(2, 4))
    assert numbers(read_all(tmp_path)) == [(n, n) for n in range(4)]
    assert not part.exists()


def test_a_directory_may_be_deep_and_new(tmp_path):
    write(tmp_path / "a" / "b" / "c", range(2))
    assert len(read_all(tmp_path / "a" / "b" / "c")) == 2


def test_a_closed_log_takes_nothing(tmp_path):
    log = writer(tmp_path)
    log.close()
    log.close()
    with pytest.raises(StorageError, match="closed"):
        log.append(TOPIC, frame(0))


def test_close_publishes_what_was_appended(tmp_path):
    log = LogWriter(tmp_path, retention_bytes=1 << 30, retention_ms=None, segment_bytes=1 << 20)
    log.append(TOPIC, frame(0))
    log.close()
    assert log_dir.read_end(tmp_path / TOPIC / "0").offset == 1
