"""A flood: 200,000 records written flat out to /dev/kmsg. How much of it is lost, and is the account exact?

The kernel's ring holds a thousand records, the writer makes hundreds of thousands a second, agent, shipper and broker
share the cores with it. Everything is then read back from Kafka (or from the embedded log): records stored and losses
told, which together must be exactly the positions that the kernel gave out. Known shares for other readers of the same
flood: 57 to 75 % lost without a number.
"""

from collections.abc import Iterator

from benchmarks.base import Options, Reach, Row, scratch
from benchmarks.kernel import Agent, Writer, kernel_log
from benchmarks.processes import broker
from consumers.transport.base import LogReader, Message, Partition
from consumers.transport.kafka import KafkaReader
from consumers.transport.log import DirectoryReader
from schemas import kmsg
from schemas.frame import decode
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import TOPIC_LOG

_COUNT = 200_000
_PARTITION = Partition(TOPIC_LOG, 0)


def run(options: Options) -> list[Row]:
    """Return the share lost, and how far the account is off."""
    repeats = 3 if options.quick else 6
    rows = []
    with kernel_log() as writer:
        with broker() as bootstrap:
            found = [_flood(writer, bootstrap) for _ in range(repeats)]
        rows += _rows("to Kafka", found)
        rows += _rows("to the embedded log", [_flood(writer, None) for _ in range(repeats)])
    return rows


def _rows(where: str, found: list[tuple[float, float, float]]) -> list[Row]:
    lost, off, rates = (list(values) for values in zip(*found, strict=True))
    how = f"{_COUNT:,} records at {min(rates) / 1e6:.2f} to {max(rates) / 1e6:.2f} M/s, {where}"
    return [
        Row(f"flood lost, {where}", lost, "%", Reach(64, inclusive=False), how),
        Row(
            "flood: stored + lost - written",
            off,
            "records",
            Reach(0),
            "off by so many of the kernel's own numbers; 0 is exact",
        ),
    ]


# Returns percent lost, records by which the account is off, and the writer's rate.
def _flood(writer: Writer, bootstrap: str | None) -> tuple[float, float, float]:
    with scratch() as root:
        agent = Agent(root, kafka=bootstrap)
        try:
            reader: LogReader = KafkaReader(KafkaConfig(bootstrap)) if bootstrap else DirectoryReader(agent.log)
            offset = reader.end_offset(_PARTITION)
            start = agent.settle()
            seconds = writer.write(_COUNT, 0)
            end = agent.settle()
        finally:
            agent.stop()
        stored, foreign, lost = _account(_read(reader, offset), start, end, writer.tag)
        reader.close()
    off = abs(stored + foreign + lost - (end - start))
    return 100 * lost / _COUNT, off, _COUNT / seconds


def _read(reader: LogReader, offset: int) -> Iterator[Message]:
    end = reader.end_offset(_PARTITION)
    reader.seek(_PARTITION, offset)
    while offset < end:
        for message in reader.poll(1000).get(_PARTITION, []):
            offset = message.offset + 1
            yield message


# Returns ours, others' and lost records at the positions from `start` to `end`.
def _account(messages: Iterator[Message], start: int, end: int, tag: bytes) -> tuple[int, int, int]:
    mine = foreign = lost = 0
    for message in messages:
        frame = decode(message.value)
        lost += sum(loss.count or 0 for loss in frame.losses if start <= loss.first_position < end)
        if not frame.count:
            continue
        lengths, data = kmsg.unpack(frame.body)
        at = 0
        for position, length in enumerate(lengths, frame.first):
            if start <= position < end:
                ours = tag in bytes(data[at : at + length])
                mine, foreign = mine + ours, foreign + (not ours)
            at += length
    return mine, foreign, lost
