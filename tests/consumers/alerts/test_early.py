"""What hosts say waits for the kernel logs, and for nothing else."""

import pytest

from consumers.alerts.early import Early
from consumers.alerts.partition import PartitionAlerter, chain_of
from consumers.alerts.payload import Whose
from consumers.lake.storage import MemoryStorage
from consumers.transport.memory import MemoryLog, MemoryReader
from tests.consumers.alerts._monitors import Monitor
from tests.consumers.alerts._stalls import LOG, STATE, Kernel


class Read:
    """A log of a kernel and a monitor, read by hand."""

    def __init__(self, storage):
        self.log = MemoryLog([LOG.topic, STATE.topic])
        self.reader = MemoryReader(self.log)
        self.alerters = {
            each: PartitionAlerter(each, chain_of(self.reader, storage, each), lambda _: Whose())
            for each in (LOG, STATE)
        }
        self.early = Early(self.reader, self.alerters)

    def take(self, partition, count):
        """Have the alerter of `partition` take so many messages more."""
        alerter = self.alerters[partition]
        alerter.add(self.log.messages[partition][alerter.position : alerter.position + count])

    def ready(self):
        counts = []
        for alerter, messages in self.early.ready():
            alerter.add(messages)
            counts.append(len(messages))
        return counts


@pytest.fixture
def read():
    storage = MemoryStorage()
    yield Read(storage)
    storage.close()


def test_at_the_end_of_the_kernel_logs_nothing_waits(read):
    read.log.append(LOG, Kernel().stalls())
    read.take(LOG, 1)
    read.log.append(STATE, Monitor().event("STOP"))
    read.early.put(STATE, list(read.log.messages[STATE]))
    assert read.ready() == [1]
    assert read.ready() == []


def test_what_was_said_later_than_the_logs_are_read_waits_and_is_not_read_on(read):
    kernel, monitor = Kernel(), Monitor()
    for _ in range(2):
        read.log.append(STATE, monitor.event("STOP"))
        read.log.append(LOG, kernel.beats())
    read.log.append(STATE, monitor.event("RESUME"))
    read.reader.seek(STATE, 0)
    read.early.put(STATE, read.reader.poll(0)[STATE])
    assert read.ready() == []
    read.take(LOG, 1)
    assert read.ready() == [1]
    read.log.append(STATE, monitor.beats())
    assert read.reader.poll(0) == {}
    read.take(LOG, 1)
    assert read.ready() == [2]
    assert len(read.reader.poll(0)[STATE]) == 1


def test_who_lost_the_partition_keeps_nothing_of_it(read):
    read.log.append(STATE, Monitor().event("STOP"))
    read.early.put(STATE, list(read.log.messages[STATE]))
    read.early.forget(STATE)
    assert read.ready() == []
