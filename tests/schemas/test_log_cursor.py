"""The cursor over logs that a real writer made: what it shows, retention under it, and damage, byte by byte."""

import multiprocessing
import random
import shutil
import time
import tracemalloc

import pytest

from schemas import log_dir, segment, segment_file
from schemas.errors import BadInputError, StorageError
from schemas.frame import decode
from schemas.log_cursor import LogCursor, OvertakenError
from tests._logs import STREAM, TOPIC, drain, frame, numbers, read_all, segments, write, writer

SMALL = 560  # about four entries to a segment


def readable(entries):
    """Return the offsets whose payload is the frame that was written there; any other must not decode."""
    found = []
    for offset, _, payload in entries:
        try:
            assert decode(payload).number == offset
        except BadInputError:
            continue
        found.append(offset)
    return found


def test_a_partition_may_appear_later(tmp_path):
    cursor = LogCursor(tmp_path, TOPIC, 0)
    assert (cursor.start_offset(), cursor.end_offset(), cursor.read(), cursor.segment_positions()) == (0, 0, [], {})
    write(tmp_path, range(3))
    assert numbers(drain(cursor)) == [(n, n) for n in range(3)]


def test_only_what_was_synced_is_shown(tmp_path):
    log = writer(tmp_path)
    cursor = LogCursor(tmp_path, TOPIC, 0)
    for n in range(5):
        log.append(TOPIC, frame(n))
        assert cursor.read() == []
        assert cursor.end_offset() == n
        log.sync()
        assert numbers(cursor.read()) == [(n, n)]
    log.close()


def test_what_lies_behind_the_published_end_is_not_shown(tmp_path):
    write(tmp_path, range(5))
    (path,) = segments(tmp_path)
    with path.open("ab") as file:
        file.write(segment.encode_entry(5, 0, b"written, but not yet durable"))
    assert len(read_all(tmp_path)) == 5


@pytest.mark.parametrize("bytes_max", [segment.ENTRY_PREFIX_BYTES, 150, 1000, 1 << 20])
def test_every_offset_comes_once_in_order_over_segments_and_batches(tmp_path, bytes_max):
    write(tmp_path, range(40), segment_bytes=SMALL)
    assert len(segments(tmp_path)) > 8
    entries = read_all(tmp_path, bytes_max=bytes_max)
    assert numbers(entries) == [(n, n) for n in range(40)]
    stamps = [append_ns for _, append_ns, _ in entries]
    assert stamps == sorted(stamps)
    assert abs(stamps[-1] - time.time_ns()) < 60e9


def test_a_seek_finds_every_offset(tmp_path):
    write(tmp_path, range(20), segment_bytes=SMALL)
    cursor = LogCursor(tmp_path, TOPIC, 0)
    for offset in random.Random(1).sample(range(20), 20):
        cursor.seek(offset)
        assert numbers(drain(cursor, 100)) == [(n, n) for n in range(offset, 20)]
        assert cursor.position == 20
    cursor.seek(25)
    assert cursor.read() == []


def test_a_large_log_is_read_through_small_memory(tmp_path):
    write(tmp_path, range(400), body=random.Random(0).randbytes(100_000), segment_bytes=1 << 30)
    (path,) = segments(tmp_path)
    assert path.stat().st_size > 40_000_000
    cursor = LogCursor(tmp_path, TOPIC, 0)
    tracemalloc.start()
    count = 0
    while entries := cursor.read():
        count += len(entries)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 400
    assert peak_bytes < 6 << 20


def test_retention_that_overtook_says_where_the_log_starts(tmp_path):
    write(tmp_path, range(20), segment_bytes=SMALL)
    cursor = LogCursor(tmp_path, TOPIC, 0)
    bases = [int(path.stem) for path in segments(tmp_path)]
    for path in segments(tmp_path)[:2]:
        path.unlink()
    with pytest.raises(OvertakenError, match=f"offset 0 is gone, the log starts at {bases[2]}") as caught:
        cursor.read()
    assert (caught.value.position, caught.value.start) == (0, bases[2]) == (cursor.position, cursor.start_offset())
    cursor.seek(caught.value.start)
    assert numbers(drain(cursor)) == [(n, n) for n in range(bases[2], 20)]


def test_a_segment_deleted_while_it_is_read_is_read_to_its_end(tmp_path):
    write(tmp_path, range(20), segment_bytes=SMALL)
    cursor = LogCursor(tmp_path, TOPIC, 0)
    assert numbers(cursor.read(200)) == [(0, 0)]
    bases = [int(path.stem) for path in segments(tmp_path)]
    for path in segments(tmp_path)[:2]:
        path.unlink()
    found = [entry for _ in range(1, bases[1]) for entry in cursor.read(200)]
    with pytest.raises(OvertakenError) as caught:
        cursor.read()
    assert numbers(found) == [(n, n) for n in range(1, bases[1])]
    assert (caught.value.position, caught.value.start) == (bases[1], bases[2])


def test_a_log_of_which_nothing_is_left_starts_at_its_end(tmp_path):
    write(tmp_path, range(20), segment_bytes=SMALL)
    cursor = LogCursor(tmp_path, TOPIC, 0)
    for path in segments(tmp_path):
        path.unlink()
    assert (cursor.start_offset(), cursor.end_offset()) == (20, 20)
    with pytest.raises(OvertakenError) as caught:
        cursor.read()
    assert caught.value.start == 20


def test_positions_at_the_start_of_the_oldest_segment(tmp_path):
    other = STREAM._replace(instance="1")
    log = writer(tmp_path, segment_bytes=SMALL)
    for n in range(20):
        log.append(TOPIC, frame(n, stream=other if n % 2 else STREAM))
    log.close()
    cursor = LogCursor(tmp_path, TOPIC, 0)
    assert cursor.segment_positions() == {}
    segments(tmp_path)[0].unlink()
    base = int(segments(tmp_path)[0].stem)
    expected = {
        stream: max(n for n in range(base) if n % 2 == parity) * 10 + 10 for stream, parity in ((STREAM, 0), (other, 1))
    }
    assert cursor.segment_positions() == expected


def test_a_log_made_anew_in_its_place_is_not_mixed_with_the_old(tmp_path):
    write(tmp_path / "log", range(20), segment_bytes=SMALL)
    cursor = LogCursor(tmp_path / "log", TOPIC, 0)
    assert len(cursor.read(200)) == 1
    shutil.rmtree(tmp_path / "log")
    write(tmp_path / "log", range(100, 103))
    assert numbers(drain(cursor)) == [(1, 101), (2, 102)]


def test_a_reader_keeps_up_with_a_writer_in_another_process(tmp_path):
    writing = multiprocessing.get_context("spawn").Process(target=_append_for_a_while, args=(tmp_path,))
    writing.start()
    cursor, found = LogCursor(tmp_path, TOPIC, 0), []
    while len(found) < 2000:
        alive = writing.is_alive()
        entries = cursor.read(5000)
        assert entries or alive or cursor.end_offset() == 2000
        found += entries
    writing.join()
    assert numbers(found) == [(n, n) for n in range(2000)]
    assert len(segments(tmp_path)) > 10


def _append_for_a_while(path):
    log = writer(path, segment_bytes=20_000)
    for n in range(2000):
        log.append(TOPIC, frame(n))
        if n % 3 == 0:
            log.sync()
    log.close()


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.fixture
def three(tmp_path):
    """Three segments, and the bounds of the entries in the second."""
    write(tmp_path, range(12), segment_bytes=SMALL)
    assert len(segments(tmp_path)) == 3
    path = segments(tmp_path)[1]
    data, bounds = path.read_bytes(), [segment.header_bytes(path.read_bytes())]
    while bounds[-1] < len(data):
        found = segment.split(data[bounds[-1] :], int(path.stem) + len(bounds) - 1)
        bounds.append(bounds[-1] + len(found.entries[0][2]) + segment.ENTRY_PREFIX_BYTES)
        assert len(bounds) < 6
    return path, bounds


def test_a_flipped_byte_costs_at_most_its_own_entry_wherever_it_lies(tmp_path, three, caplog):
    path, bounds = three
    good, base = path.read_bytes(), int(path.stem)
    lost_somewhere = set()
    for at in range(len(good)):
        flip(path, at)
        caplog.clear()
        entries = read_all(tmp_path)
        assert [offset for offset, _, _ in entries] == list(range(12))
        lost = sorted(set(range(12)) - set(readable(entries)))
        hit = [base + n for n in range(len(bounds) - 1) if bounds[n] <= at < bounds[n + 1]]
        assert set(lost) <= set(hit)
        assert str(path) in caplog.text
        assert not hit or f"byte {bounds[hit[0] - base]}: damaged" in caplog.text
        # An entry's own prefix is not needed to save the frame behind it.
        assert not lost or at - bounds[hit[0] - base] >= segment.ENTRY_PREFIX_BYTES
        lost_somewhere |= set(lost)
        path.write_bytes(good)
    assert lost_somewhere == set(range(base, base + len(bounds) - 1))


def test_the_way_on_is_found_wherever_the_search_is_divided(tmp_path, three, monkeypatch):
    path, bounds = three
    flip(path, bounds[0] + 40)
    for window_bytes in range(segment.ENTRY_PREFIX_BYTES, 150):
        monkeypatch.setattr(segment_file, "_WINDOW_BYTES", window_bytes)
        assert readable(read_all(tmp_path)) == [n for n in range(12) if n != int(path.stem)]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_segment_of_zeros_loses_its_own_offsets_and_no_other(tmp_path, three, which):
    paths = segments(tmp_path)
    paths[which].write_bytes(bytes(paths[which].stat().st_size))
    entries = read_all(tmp_path)
    assert [offset for offset, _, _ in entries] == list(range(12))
    bounds = [int(path.stem) for path in paths] + [12]
    assert readable(entries) == [n for n in range(12) if not bounds[which] <= n < bounds[which + 1]]


def test_a_segment_cut_short_anywhere_loses_what_was_cut(tmp_path, three):
    path, bounds = three
    good, base = path.read_bytes(), int(path.stem)
    for size_bytes in range(len(good)):
        path.write_bytes(good[:size_bytes])
        entries = read_all(tmp_path)
        assert [offset for offset, _, _ in entries] == list(range(12))
        lost = [base + n for n in range(len(bounds) - 1) if size_bytes < bounds[n + 1]]
        assert readable(entries) == [n for n in range(12) if n not in lost]


def test_a_segment_missing_in_the_middle_loses_its_own_offsets(tmp_path, three):
    path, bounds = three
    path.unlink()
    entries = read_all(tmp_path)
    assert [offset for offset, _, _ in entries] == list(range(12))
    assert len(readable(entries)) == 12 - (len(bounds) - 1)


def test_many_lost_offsets_come_in_bounded_batches(tmp_path):
    write(tmp_path, range(9000), segment_bytes=1 << 30)
    log = writer(tmp_path, segment_bytes=1)
    log.append(TOPIC, frame(9000))
    log.close()
    path = segments(tmp_path)[0]
    path.write_bytes(bytes(path.stat().st_size))
    cursor = LogCursor(tmp_path, TOPIC, 0)
    sizes = []
    while entries := cursor.read():
        sizes.append(len(entries))
        last = entries[-1]
    assert sum(sizes) == 9001
    assert max(sizes) <= 4096
    assert decode(last[2]).number == 9000


def test_positions_behind_a_damaged_header_are_unknown_and_said_so(tmp_path, three, caplog):
    flip(segments(tmp_path)[0], 20)
    assert LogCursor(tmp_path, TOPIC, 0).segment_positions() == {}
    assert "not known" in caplog.text


def test_a_damaged_end_is_an_error_that_names_it(tmp_path):
    write(tmp_path, range(3))
    flip(tmp_path / TOPIC / "0" / log_dir.END, 10)
    with pytest.raises(StorageError, match=r"0/end: damaged"):
        LogCursor(tmp_path, TOPIC, 0)
    writer(tmp_path).close()
    assert len(read_all(tmp_path)) == 3
