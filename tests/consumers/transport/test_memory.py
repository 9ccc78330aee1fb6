"""The memory twin does what the real logs do."""

import pytest

from consumers.transport.base import LogReplacedError, Partition
from consumers.transport.memory import MemoryLog, MemoryReader
from schemas.frame import encode
from tests._logs import frame
from tests.consumers.transport.suite import ReaderSuite


class Memory:
    def __init__(self):
        self.log = MemoryLog([])

    def create(self, topic):
        self.log.create(topic)

    def append(self, topic, numbers):
        for n in numbers:
            assert self.log.append(Partition(topic, 0), encode(frame(n))) == n

    def delete_before(self, topic, offset):
        self.log.delete_before(Partition(topic, 0), offset)

    def recreate(self, topic):
        self.log.create(topic)

    def reader(self):
        return MemoryReader(self.log)


class TestMemoryReader(ReaderSuite):
    @pytest.fixture
    def log(self):
        return Memory()

    def test_a_reader_does_not_go_on_in_another_log(self, log, topic, partition):
        reader = log.reader()
        before = reader.log_id()
        log.append(topic, range(3))
        log.log.recreate()
        reader.seek(partition, 0)
        with pytest.raises(LogReplacedError):
            reader.poll(0)
        assert log.reader().log_id() != before
        assert log.reader().end_offset(partition) == 0
