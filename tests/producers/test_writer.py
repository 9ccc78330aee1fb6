"""The thread between drain and disk: order, groups, a disk that refuses and recovers, and an end in time."""

import dataclasses
import random
import threading
import time

import pytest

from producers import writer as module
from producers.writer import WriterThread
from schemas.errors import StorageError
from schemas.frame import encode
from schemas.segment import StreamPosition
from tests._logs import STREAM, frame, numbers, read_all, segments, writer

TOPIC = "hypocenter.log"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(module, "_RETRY_S", 0.01)


def noise(n):
    """Return 3000 bytes that no compressor makes smaller."""
    return random.Random(n).randbytes(3000)


def _at(one):
    return StreamPosition(next=one.next, number=one.number)


def wait_for(condition):
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def test_frames_are_appended_in_order_and_counted_off(tmp_path):
    log = writer(tmp_path, segment_bytes=20_000)
    durable = []
    thread = WriterThread(log, lambda: durable.append(len(read_all(tmp_path))))
    for n in range(300):
        thread.put(frame(n, b"x" * 100))
        if n % 50 == 0:
            time.sleep(0.002)
    assert thread.stop(10)
    log.close()
    assert thread.queued_bytes == 0
    assert numbers(read_all(tmp_path)) == [(n, n) for n in range(300)]
    # Each call came after the sync of what it announces.
    assert durable == sorted(durable)
    assert durable[-1] == 300
    assert thread.durable == {frame(0).stream: frame(299).next}


def test_of_encoded_frames_only_their_number_is_kept(tmp_path):
    log = writer(tmp_path)
    thread = WriterThread(log, lambda: None)
    for n in range(3):
        of_a_guest = frame(0).stream._replace(boot_id=f"boot-{n}")
        thread.put_encoded(
            TOPIC, (encode(dataclasses.replace(frame(0), stream=of_a_guest)),), of_a_guest, _at(frame(0))
        )
    assert thread.stop(10)
    log.close()
    assert len(read_all(tmp_path)) == thread.queued == thread.synced == 3
    assert thread.durable == {}


def test_a_frame_waits_for_no_other(tmp_path):
    log = writer(tmp_path)
    durable = threading.Event()
    thread = WriterThread(log, durable.set)
    time.sleep(0.05)
    assert not durable.is_set()
    thread.put(frame(0))
    assert durable.wait(5)
    assert len(read_all(tmp_path)) == 1
    assert thread.stop(10)
    log.close()


def test_what_gathers_is_synced_together_and_with_what_somebody_waits_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GATHER_S", 60)
    log = writer(tmp_path)
    syncs = []
    thread = WriterThread(log, lambda: syncs.append(thread.synced), gather_bytes=10_000)
    for n in range(3):
        thread.put(frame(n), gathers=True)
        time.sleep(0.02)
    assert (syncs, thread.synced) == ([], 0)
    thread.put(frame(3))
    wait_for(lambda: syncs == [4])
    thread.put(frame(4), gathers=True)
    time.sleep(0.02)
    assert syncs == [4]
    thread.put_encoded(TOPIC, (encode(frame(5)),), STREAM, _at(frame(5)))
    wait_for(lambda: syncs == [4, 6])
    thread.put(frame(6), gathers=True)
    assert thread.stop(10)
    assert syncs == [4, 6, 7]
    log.close()


def test_what_gathers_waits_no_longer_where_much_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GATHER_S", 60)
    log = writer(tmp_path)
    thread = WriterThread(log, lambda: None, gather_bytes=10_000)
    for n in range(3):
        thread.put(frame(n, noise(n)), gathers=True)
        time.sleep(0.02)
    assert thread.synced == 0
    thread.put(frame(3, noise(3)), gathers=True)
    wait_for(lambda: thread.synced == 4)
    assert thread.stop(10)
    log.close()


def test_what_gathers_alone_is_synced_soon(tmp_path):
    log = writer(tmp_path)
    durable = threading.Event()
    thread = WriterThread(log, durable.set, gather_bytes=10_000)
    thread.put(frame(0), gathers=True)
    assert durable.wait(5)
    assert thread.stop(10)
    log.close()


@pytest.mark.parametrize("segment_bytes", [20_000, 1 << 20])
def test_a_full_disk_is_waited_out_and_nothing_is_lost_or_doubled(small_disk, segment_bytes, caplog):
    log = writer(small_disk / "log", segment_bytes=segment_bytes)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(900_000))
    thread = WriterThread(log, lambda: None)
    # Like the drain, which puts frame after frame, whatever the disk does.
    for n in range(200):
        thread.put(frame(n, noise(n)))
    wait_for(lambda: "No space left on device" in caplog.text)
    assert thread.queued_bytes > 0
    shown = read_all(small_disk / "log")
    assert numbers(shown) == [(n, n) for n in range(len(shown))]
    assert len(shown) < 200
    ballast.unlink()
    assert thread.stop(10)
    log.close()
    assert "the log can be written again" in caplog.text
    assert caplog.text.count("records wait in memory") < 5
    assert numbers(read_all(small_disk / "log")) == [(n, n) for n in range(200)]


def test_a_full_disk_is_given_room_by_what_is_too_old(small_disk, caplog):
    log = writer(small_disk / "log", segment_bytes=50_000, retention_ms=1000)
    for n in range(60):
        log.append(TOPIC, frame(n, noise(n)))
    log.sync()
    old = len(segments(small_disk / "log"))
    (small_disk / "ballast").write_bytes(bytes(780_000))
    thread = WriterThread(log, lambda: None)
    for n in range(60, 90):
        thread.put(frame(n, noise(n)))
    assert thread.queued_bytes > 0
    wait_for(lambda: thread.queued_bytes == 0)
    assert thread.stop(10)
    log.close()
    assert "No space left on device" in caplog.text
    assert old > 3
    found = numbers(read_all(small_disk / "log"))
    assert found == [(n, n) for n in range(found[0][0], 90)]
    assert found[0][0] > 0


def test_a_disk_that_stays_full_is_reported_when_stopped(small_disk):
    log = writer(small_disk / "log")
    log.append(TOPIC, frame(0))
    log.sync()
    (small_disk / "ballast").write_bytes(bytes(1_000_000))
    thread = WriterThread(log, lambda: None)
    for n in range(1, 100):
        thread.put(frame(n, noise(n)))
    start_s = time.monotonic()
    assert not thread.stop(5)
    assert time.monotonic() - start_s < 4
    with pytest.raises(StorageError):
        log.close()
    log = writer(small_disk / "log")
    assert log.positions[STREAM].number == len(read_all(small_disk / "log")) - 1
    log.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_ends_the_thread_and_is_not_taken_for_success(tmp_path):
    log = writer(tmp_path)
    thread = WriterThread(log, lambda: None)
    bad = frame(0)
    bad.next, bad.body = bad.first - 1, b""
    thread.put(bad)
    wait_for(lambda: thread.error is not None)
    assert isinstance(thread.error, ValueError)
    assert not thread.stop(5)
    log.close()
