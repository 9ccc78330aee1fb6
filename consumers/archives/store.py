"""From an archive to a lake: its frames through the collector's books and decoders, into one commit chain of its own.

The chain is named by the content, so an archive imported again changes nothing, and one that was cut off half way goes
on where it was, under the names that it has: those of another import would make two machines of one log.
"""

from collections.abc import Collection, Container
from pathlib import Path
from typing import Final, NamedTuple

from consumers.archives.base import Archive, Progress, Tags
from consumers.collector import Cut, PartitionCollector
from consumers.lake.chain import Chain
from consumers.lake.layout import open_lake
from consumers.lake.writer import CommitWriter
from consumers.transport.base import Message, Partition
from schemas.errors import StorageError, UsageError
from schemas.frame import encode
from schemas.stream import Stream

_CUT: Final = Cut(bytes_max=64 << 20, rows_max=1_000_000, age_ns=1 << 62)


class Stored(NamedTuple):
    """What the lake has of an archive: `rows` by table, under which `tags`, and whether this call added any."""

    rows: dict[str, int]
    tags: Tags
    added: bool


def store(
    archive: Archive, tags: Tags, lake: Path, now_ns: int, progress: Progress, said: Container[str] = ()
) -> Stored:
    """Store what the lake does not yet have of `archive`, as `tags` say; those not `said` give way to those it has.

    Raises:
        UsageError: some of it is there under other tags than were said.
        BadInputError: the archive changed while it was read.
        StorageError: the disk refuses, or somebody else imports the same.
    """
    storage = open_lake(lake, create=True)
    partition = Partition(f"import.{archive.surface}.{archive.digest[:16]}", 0)
    chain = Chain(storage, partition.topic, 0, log_id="import", topic_id=archive.digest, first_offset=0)
    collector = PartitionCollector(partition, chain, CommitWriter(storage), _CUT)
    tags, before = _agreed(archive, tags, chain.state.streams, said), collector.position
    # The same content gives the same frames: those of an earlier, interrupted import are behind `position`.
    for offset, frame in enumerate(archive.frames(tags, now_ns, progress)):
        if offset < before:
            continue
        collector.add([Message(offset, now_ns, encode(frame, compress=False))], 0)
        if collector.due(0):
            _commit(collector)
    _commit(collector)
    return Stored(dict(chain.state.totals), tags, added=collector.position > before)


def _agreed(archive: Archive, tags: Tags, streams: Collection[Stream], said: Container[str]) -> Tags:
    there = sorted({Tags(each.machine, each.boot_id, each.layer, tags.run) for each in streams})
    if not there or tags in there:
        return tags
    if any(name in said and value != getattr(tags, name) for name, value in there[0]._asdict().items()):
        flags = f"--machine {there[0].machine} --boot-id {there[0].boot_id} --layer {there[0].layer}"
        raise UsageError(f"{archive.name} is in this lake under other names, and can have no second ones: {flags}")
    return there[0]


def _commit(collector: PartitionCollector) -> None:
    if not collector.commit():
        raise StorageError("another import of the same file is under way; run this one again")
