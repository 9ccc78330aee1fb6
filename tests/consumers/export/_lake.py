"""Lakes of trace events that are written for a test."""

from consumers.collector import Cut, PartitionCollector
from consumers.lake.chain import Chain
from consumers.lake.layout import open_lake
from consumers.lake.writer import CommitWriter
from consumers.transport.base import Message, Partition
from schemas import heartbeat
from schemas.frame import Frame, encode
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION, TOPIC_TRACE
from tests.consumers import _pages, _sample


def build(path, frames, topic=TOPIC_TRACE):
    """Make a lake of `frames`, which come a second after another from the sample's start on."""
    storage = open_lake(path, create=True)
    partition = Partition(topic, 0)
    chain = Chain(storage, *partition, log_id="l", topic_id="t", first_offset=0)
    collector = PartitionCollector(partition, chain, CommitWriter(storage), Cut(1 << 60, 1 << 60, 1 << 60))
    collector.add([Message(i, _sample.START_NS + i * 10**9, encode(each)) for i, each in enumerate(frames)], 0)
    assert collector.commit()
    return storage


def beat(stream, number, first, monotonic_ns, boottime_ns, realtime_ns, bracket_ns=400):
    body = heartbeat.pack(heartbeat.Heartbeat(1, 2, 0, realtime_ns, monotonic_ns, boottime_ns, bracket_ns, {}))
    where = stream, "r", number, first, first, 0
    return Frame(*where, HEARTBEAT_ENCODING, HEARTBEAT_VERSION, body, [], realtime_ns=realtime_ns)


def ring(cpu, name="set"):
    return _pages.SET._replace(instance=f"{name}/cpu{cpu}")
