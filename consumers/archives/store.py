"""From an archive to a lake: its frames through the collector's books and decoders, into one commit chain of its own.

The chain is named by the content, so an archive imported again changes nothing, and one that was cut off half way goes
on where it was.
"""

from pathlib import Path
from typing import Final, NamedTuple

from consumers.archives.base import Archive, Progress, Tags
from consumers.collector import Cut, PartitionCollector
from consumers.lake.chain import Chain
from consumers.lake.layout import open_lake
from consumers.lake.writer import CommitWriter
from consumers.transport.base import Message, Partition
from schemas.errors import StorageError
from schemas.frame import encode

_CUT: Final = Cut(bytes_max=64 << 20, rows_max=1_000_000, age_ns=1 << 62)


class Stored(NamedTuple):
    """What the lake has of an archive: `rows` by table, and whether this call added any."""

    rows: dict[str, int]
    added: bool


def store(archive: Archive, tags: Tags, lake: Path, now_ns: int, progress: Progress) -> Stored:
    """Store what the lake does not yet have of `archive`.

    Raises:
        BadInputError: the archive changed while it was read.
        StorageError: the disk refuses, or somebody else imports the same.
    """
    storage = open_lake(lake, create=True)
    partition = Partition(f"import.{archive.surface}.{archive.digest[:16]}", 0)
    chain = Chain(storage, partition.topic, 0, log_id="import", topic_id=archive.digest, first_offset=0)
    collector = PartitionCollector(partition, chain, CommitWriter(storage), _CUT)
    before = collector.position
    # The same content gives the same frames: those of an earlier, interrupted import are behind `position`.
    for offset, frame in enumerate(archive.frames(tags, now_ns, progress)):
        if offset < before:
            continue
        collector.add([Message(offset, now_ns, encode(frame, compress=False))], 0)
        if collector.due(0):
            _commit(collector)
    _commit(collector)
    return Stored(dict(chain.state.totals), added=collector.position > before)


def _commit(collector: PartitionCollector) -> None:
    if not collector.commit():
        raise StorageError("another import of the same file is under way; run this one again")
