"""What a writer makes of files that a crash, a power cut or a failing disk left behind, byte by byte."""

import shutil

import pytest

from schemas import log_dir, segment, zstd
from schemas.frame import encode
from schemas.log_cursor import LogCursor
from tests._logs import STREAM, TOPIC, frame, numbers, read_all, segments, write, writer


@pytest.fixture
def log(tmp_path):
    """A log of five entries, of which four were published: its segment and where the last entry begins."""
    path = tmp_path / "log"
    held = writer(path)
    for n in range(4):
        held.append(TOPIC, frame(n))
    held.sync()
    published = (path / TOPIC / "0" / log_dir.END).read_bytes()
    held.append(TOPIC, frame(4))
    held.close()
    (path / TOPIC / "0" / log_dir.END).write_bytes(published)
    (segment_path,) = segments(path)
    return path, segment_path, segment.decode_end(published).position


def reopen_and_append(path, number):
    held = writer(path)
    torn_bytes, known = held.torn_bytes, held.positions.get(STREAM)
    held.append(TOPIC, frame(number))
    held.close()
    return torn_bytes, known


def test_a_torn_last_write_is_cut_at_every_byte_of_it(log):
    path, segment_path, start = log
    whole = segment_path.read_bytes()
    published = (path / TOPIC / "0" / log_dir.END).read_bytes()
    for size_bytes in range(start, len(whole)):
        segment_path.write_bytes(whole[:size_bytes])
        (path / TOPIC / "0" / log_dir.END).write_bytes(published)
        torn_bytes, known = reopen_and_append(path, 4)
        assert torn_bytes == size_bytes - start
        assert known == (40, 3)
        assert numbers(read_all(path)) == [(n, n) for n in range(5)]


def test_a_torn_last_write_of_wrong_bytes_is_cut(log):
    path, segment_path, start = log
    whole = segment_path.read_bytes()
    published = (path / TOPIC / "0" / log_dir.END).read_bytes()
    for at in range(start, len(whole)):
        segment_path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        (path / TOPIC / "0" / log_dir.END).write_bytes(published)
        torn_bytes, known = reopen_and_append(path, 4)
        assert torn_bytes == len(whole) - start
        assert known == (40, 3)
        assert numbers(read_all(path)) == [(n, n) for n in range(5)]


@pytest.mark.parametrize("tail", [b"\0", bytes(5000), b"\xff" * 100, b"HYPOSEG\n" * 9])
def test_what_follows_the_last_entry_and_is_none_is_cut(log, tail):
    path, segment_path, _ = log
    with segment_path.open("ab") as file:
        file.write(tail)
    assert reopen_and_append(path, 5) == (len(tail), (50, 4))
    assert numbers(read_all(path)) == [(n, n) for n in range(6)]


def test_a_torn_tail_may_hold_a_whole_entry_that_lost_its_predecessor(log):
    # Pages of one write reach the disk in any order: entry 5 may be there although entry 4 is not.
    path, segment_path, start = log
    data = segment_path.read_bytes()
    lost = bytes(len(data) - start)
    stray = segment.encode_entry(5, 0, encode(frame(9)))
    segment_path.write_bytes(data[:start] + lost + stray)
    assert reopen_and_append(path, 4) == (len(lost) + len(stray), (40, 3))
    # Entry 4 is exactly as long as the hole was: nothing may be left behind it that could be taken for entry 5.
    assert reopen_and_append(path, 5) == (0, (50, 4))
    assert numbers(read_all(path)) == [(n, n) for n in range(6)]


def test_what_was_durable_and_not_yet_published_is_kept(log):
    path, _, _ = log
    assert len(read_all(path)) == 4
    assert reopen_and_append(path, 5) == (0, (50, 4))
    assert numbers(read_all(path)) == [(n, n) for n in range(6)]


@pytest.mark.parametrize("end", [None, b"", b"\0" * 36, b"x" * 36])
def test_without_a_readable_end_the_segments_say_it_all(log, end):
    path, _, _ = log
    end_path = path / TOPIC / "0" / log_dir.END
    end_path.unlink()
    if end is not None:
        end_path.write_bytes(end)
    assert reopen_and_append(path, 5) == (0, (50, 4))
    assert numbers(read_all(path)) == [(n, n) for n in range(6)]


def test_damage_below_the_published_end_is_neither_cut_nor_hidden(log, caplog):
    path, segment_path, start = log
    good = segment_path.read_bytes()
    published = (path / TOPIC / "0" / log_dir.END).read_bytes()
    header_bytes = segment.header_bytes(good)
    for at in range(0, start, 3):
        caplog.clear()
        bad = good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]
        segment_path.write_bytes(bad)
        (path / TOPIC / "0" / log_dir.END).write_bytes(published)
        torn_bytes, known = reopen_and_append(path, 5)
        assert torn_bytes == 0
        assert known == (50, 4)
        assert segment_path.read_bytes()[: len(bad)] == bad
        assert str(segment_path) in caplog.text
        entries = read_all(path)
        assert [offset for offset, _, _ in entries] == list(range(6))
        hit = 0 if at < header_bytes else 1
        good_payloads = sum(payload in good for _, _, payload in entries[:5])
        assert good_payloads >= 5 - hit


def test_an_offset_is_not_used_again_though_its_bytes_are_gone(tmp_path):
    # A disk that lied about what it had made durable.
    path = tmp_path / "log"
    write(path, range(5))
    (segment_path,) = segments(path)
    whole = segment_path.read_bytes()
    end = (path / TOPIC / "0" / log_dir.END).read_bytes()
    for size_bytes in (0, 20, len(whole) // 2, len(whole) - 1):
        segment_path.write_bytes(whole[:size_bytes])
        (path / TOPIC / "0" / log_dir.END).write_bytes(end)
        reopen_and_append(path, 5)
        entries = read_all(path)
        assert [offset for offset, _, _ in entries] == list(range(6))
        assert numbers(entries[5:]) == [(5, 5)]
        assert len(segments(path)) == 2
        segments(path)[1].unlink()


def test_offsets_go_on_behind_an_end_whose_segments_are_gone(tmp_path):
    write(tmp_path, range(5))
    for path in segments(tmp_path):
        path.unlink()
    assert reopen_and_append(tmp_path, 5) == (0, None)
    assert LogCursor(tmp_path, TOPIC, 0).start_offset() == 5
    assert numbers(read_all(tmp_path)) == [(5, 5)]


def test_offsets_go_on_behind_an_end_whose_newest_segment_is_gone(tmp_path):
    write(tmp_path, range(6), segment_bytes=1)
    segments(tmp_path)[-1].unlink()
    assert reopen_and_append(tmp_path, 6) == (0, (50, 4))
    entries = read_all(tmp_path)
    assert [offset for offset, _, _ in entries] == list(range(7))
    assert entries[5][2] == b""


def test_a_new_segment_that_was_not_yet_published_is_gone_on_with(tmp_path):
    write(tmp_path, range(4))
    end = (tmp_path / TOPIC / "0" / log_dir.END).read_bytes()
    write(tmp_path, range(4, 5), segment_bytes=1)
    (tmp_path / TOPIC / "0" / log_dir.END).write_bytes(end)
    assert len(segments(tmp_path)) == 2
    assert len(read_all(tmp_path)) == 4
    assert reopen_and_append(tmp_path, 5) == (0, (50, 4))
    assert numbers(read_all(tmp_path)) == [(n, n) for n in range(6)]


@pytest.mark.parametrize("published", [True, False])
def test_positions_behind_damaged_headers_come_from_the_segments_before(tmp_path, published):
    quiet = STREAM._replace(instance="quiet")
    held = writer(tmp_path, segment_bytes=1)
    held.append(TOPIC, frame(0, stream=quiet))
    for n in range(1, 6):
        held.append(TOPIC, frame(n))
    held.close()
    for path in segments(tmp_path)[3:]:
        data = bytearray(path.read_bytes())
        data[20] ^= 1
        path.write_bytes(data)
    if not published:
        (tmp_path / TOPIC / "0" / log_dir.END).unlink()
    held = writer(tmp_path)
    assert held.positions == {quiet: (10, 0), STREAM: (60, 5)}
    held.append(TOPIC, frame(6))
    held.close()
    assert numbers(read_all(tmp_path)) == [(n, n) for n in range(7)]


def test_an_unpublished_segment_of_which_nothing_is_valid_is_made_anew(tmp_path):
    write(tmp_path, range(4))
    folder = tmp_path / TOPIC / "0"
    log_dir.segment_path(folder, 4).write_bytes(bytes(100))
    assert reopen_and_append(tmp_path, 4) == (100, (40, 3))
    assert numbers(read_all(tmp_path)) == [(n, n) for n in range(5)]


def test_append_times_go_on_from_the_segment_before(tmp_path):
    far_ns = 4 * 10**18
    write(tmp_path, range(3), segment_bytes=1, clock=lambda: far_ns)
    held = writer(tmp_path, segment_bytes=1)
    held.append(TOPIC, frame(3))
    held.close()
    assert read_all(tmp_path)[3][1] == far_ns


def test_recovery_reads_the_newest_segment_alone(tmp_path):
    write(tmp_path, range(40), segment_bytes=560)
    good = tmp_path.with_name("good")
    shutil.copytree(tmp_path, good)
    for path in segments(tmp_path)[:-1]:
        path.write_bytes(b"")
    assert reopen_and_append(tmp_path, 40) == reopen_and_append(good, 40) == (0, (400, 39))


def test_an_agent_without_the_compressor_goes_on_in_the_log_of_one_with_it(tmp_path, monkeypatch):
    write(tmp_path / "log", range(3), body=b"the same again and again " * 1000)
    monkeypatch.setattr(zstd, "zstandard", None)
    assert reopen_and_append(tmp_path / "log", 3) == (0, (30, 2))
