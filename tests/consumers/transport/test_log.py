"""The directory reader: the shared suite over a real writer's files, and what only a directory can do."""

import random
import shutil
import statistics
import threading
import time

import pytest

from consumers.transport.base import LogReplacedError, LogWentBackError, Partition
from consumers.transport.log import DirectoryReader
from producers.log import LogWriter
from schemas import log_dir
from schemas.errors import StorageError, UnavailableError, UsageError
from schemas.surfaces import TOPICS
from tests._logs import TOPIC, frame, segments, write
from tests.consumers.transport.suite import ReaderSuite, expected, pairs, read


class Directory:
    """A log in which every append begins a segment, because retention deletes whole ones."""

    def __init__(self, path):
        self.path = path
        self.writer = self._open()
        self.readers = []

    def _open(self):
        return LogWriter(self.path, retention_bytes=1 << 40, retention_ms=None, segment_bytes=1 << 30)

    def create(self, topic):
        self.writer._partition(topic)

    def append(self, topic, numbers):
        for n in numbers:
            self.writer._partition(topic)._segment_bytes = 1 if n == numbers[0] else 1 << 30
            self.writer.append(topic, frame(n))
        self.writer.sync()

    def delete_before(self, topic, offset):
        for path in segments(self.path, topic):
            if int(path.stem) < offset:
                path.unlink()

    def recreate(self, topic):
        self.writer.close()
        shutil.rmtree(self.path)
        self.writer = self._open()
        self.create(topic)

    def reader(self):
        self.readers.append(DirectoryReader(self.path))
        return self.readers[-1]


@pytest.fixture
def log(tmp_path):
    directory = Directory(tmp_path / "log")
    yield directory
    for reader in directory.readers:
        reader.close()
    directory.writer.close()


class TestDirectoryReader(ReaderSuite):
    pass


def test_no_log_is_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(UnavailableError) as caught:
            DirectoryReader(path)
        assert str(caught.value) == f"there is no log in {path}: it has no log.json"


def test_another_format_is_named(tmp_path):
    (tmp_path / "log.json").write_text('{"format": 7, "id": "x", "partitions": {}}')
    with pytest.raises(UsageError, match="is a log of format 7, this version knows 1"):
        DirectoryReader(tmp_path)


def test_every_topic_is_there_before_its_first_entry(log):
    reader = log.reader()
    assert reader.partitions(list(TOPICS)) == [Partition(topic, 0) for topic in TOPICS]
    partition = Partition(TOPIC, 0)
    assert (reader.start_offset(partition), reader.end_offset(partition)) == (0, 0)
    reader.seek(partition, 0)
    assert reader.poll(20) == {}
    log.append(TOPIC, range(3))
    assert pairs(read(reader, partition, 3)) == expected(range(3))


def test_a_reader_does_not_go_on_in_another_log_at_the_same_place(log):
    log.append(TOPIC, range(10))
    reader = log.reader()
    reader.seek(Partition(TOPIC, 0), 5)
    assert pairs(read(reader, Partition(TOPIC, 0), 5)) == expected(range(5, 10))
    log.recreate(TOPIC)
    log.append(TOPIC, range(100))
    for ask in (lambda: reader.poll(0), reader.log_id, lambda: reader.partitions([TOPIC])):
        with pytest.raises(LogReplacedError, match="holds another log now"):
            ask()


def test_a_log_restored_from_a_copy_is_no_silence(log, tmp_path):
    log.append(TOPIC, range(5))
    saved, partition = tmp_path / "saved", Partition(TOPIC, 0)
    shutil.copytree(log.path, saved)
    log.append(TOPIC, range(5, 10))
    reader = log.reader()
    reader.seek(partition, 0)
    read(reader, partition, 10)
    shutil.rmtree(log.path)
    shutil.copytree(saved, log.path)
    with pytest.raises(LogWentBackError) as caught:
        reader.poll(0)
    assert (caught.value.partition, caught.value.end) == (partition, 5)
    reader.seek(partition, 3)
    assert pairs(read(reader, partition, 2)) == expected(range(3, 5))


def test_a_log_that_goes_and_comes_back_is_gone_on_with(log):
    log.append(TOPIC, range(10))
    partition = Partition(TOPIC, 0)
    reader = log.reader()
    reader.seek(partition, 0)
    away = log.path.with_name("away")
    log.path.rename(away)
    with pytest.raises(UnavailableError, match="there is no log"):
        reader.poll(0)
    away.rename(log.path)
    assert pairs(read(reader, partition, 10)) == expected(range(10))


def test_what_was_read_before_another_log_came_is_not_lost_to_an_error(log, monkeypatch):
    log.append(TOPIC, range(10))
    partition = Partition(TOPIC, 0)
    reader = log.reader()
    reader.seek(partition, 0)
    inner, moved = reader._read, log.path.with_name("away")

    def read_then_move():
        found = inner()
        log.path.rename(moved)
        return found

    monkeypatch.setattr(reader, "_read", read_then_move)
    with pytest.raises(UnavailableError):
        reader.poll(0)
    monkeypatch.undo()
    moved.rename(log.path)
    assert pairs(read(reader, partition, 10)) == expected(range(10))


def test_an_error_in_one_partition_costs_another_nothing(log):
    log.append(TOPICS[0], range(5))
    log.append(TOPICS[1], range(5))
    reader = log.reader()
    for topic in TOPICS[:2]:
        reader.seek(Partition(topic, 0), 0)
    end = log.path / TOPICS[1] / "0" / log_dir.END
    good = end.read_bytes()
    end.write_bytes(b"\0" * len(good))
    assert pairs(reader.poll(0)[Partition(TOPICS[0], 0)]) == expected(range(5))
    with pytest.raises(StorageError, match="damaged"):
        reader.poll(0)
    end.write_bytes(good)
    assert pairs(read(reader, Partition(TOPICS[1], 0), 5)) == expected(range(5))


def test_a_message_is_seen_within_milliseconds(log):
    partition = Partition(TOPIC, 0)
    reader = log.reader()
    reader.seek(partition, 0)
    synced_s, waited_s = [], []

    def append():
        for n in range(40):
            time.sleep(0.023)
            log.append(TOPIC, range(n, n + 1))
            synced_s.append(time.monotonic())

    writing = threading.Thread(target=append)
    writing.start()
    for n in range(40):
        assert len(reader.poll(5000)[partition]) == 1
        seen_s = time.monotonic()
        while len(synced_s) <= n:
            time.sleep(0)
        waited_s.append(seen_s - synced_s[n])
    writing.join()
    assert statistics.median(waited_s) < 0.015


def test_a_poll_returns_a_few_mebibytes_at_most(tmp_path):
    write(tmp_path, range(20), body=random.Random(1).randbytes(800_000), segment_bytes=1 << 30)
    reader = DirectoryReader(tmp_path)
    reader.seek(Partition(TOPIC, 0), 0)
    sizes = []
    while polled := reader.poll(0):
        sizes.append(sum(len(message.value) for message in polled[Partition(TOPIC, 0)]))
    reader.close()
    assert sum(sizes) > 15_000_000
    assert max(sizes) < 4 << 20
