"""Lakes with a history, made quickly: the real files and commits, only never synced."""

import os
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from benchmarks.text import frames, records, stream
from consumers.books import StreamBook
from consumers.decode import kmsg as decoder
from consumers.decode.base import FrameIn
from consumers.lake.chain import Chain
from consumers.lake.layout import open_lake
from consumers.lake.storage import LocalStorage
from consumers.lake.writer import Batch, CommitWriter
from consumers.transport.base import Partition
from schemas.surfaces import TOPIC_LOG

FIRST_SEQ = 1_000_000
_RECORDS_PER_FRAME = 500


class UnsyncedStorage(LocalStorage):
    """Puts objects without a single fsync."""

    def put_file(self, local: Path, key: str) -> None:
        """See `Storage`."""
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(local, target)  # noqa: PTH104

    def put_exclusive(self, key: str, data: bytes) -> bool:
        """See `Storage`."""
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True


def rows(count: int) -> pa.Table:
    """Return `count` rows of the table kmsg, of machine 1."""
    lines = list(records(count, first=FIRST_SEQ))
    partition = Partition(TOPIC_LOG, 0)
    items = [
        FrameIn(frame, frame.realtime_ns + 30_000_000, partition, offset)
        for offset, frame in enumerate(frames(lines, 1, _RECORDS_PER_FRAME, first=FIRST_SEQ))
    ]
    return decoder.decode_many(items).tables["kmsg"]


def open_chain(storage: LocalStorage, topic: str = TOPIC_LOG) -> Chain:
    """Return the chain of partition 0, loaded."""
    chain = Chain(storage, topic, 0, log_id="bench", topic_id="bench", first_offset=0)
    chain.load()
    return chain


def batch(table: pa.Table, number: int, streams: int = 1) -> Batch:
    """Return the `number`-th of equal batches: `table` again, its book and offsets moved on."""
    size = table.num_rows
    states = {}
    for machine in range(1, streams + 1):
        book = StreamBook(FIRST_SEQ, FIRST_SEQ + (number + 1) * size)
        book.stored = book.rows = (number + 1) * size
        book.frames = (number + 1) * max(1, size // _RECORDS_PER_FRAME)
        book.runs = {"5f1e2d3c-2f4e-4c1b-9d3a-5f1e2d3c4b5a": book.frames - 1}
        states[stream(machine)] = asdict(book)
    return Batch(number * 1000, (number + 1) * 1000, {"kmsg": table}, states, {})


def build(root: Path, commits: int, table: pa.Table) -> LocalStorage:
    """Make a lake of `commits` commits of `table` each and return it, synced from now on."""
    open_lake(root, create=True)
    storage = UnsyncedStorage(root)
    chain, writer = open_chain(storage), CommitWriter(storage)
    for number in range(commits):
        assert writer.commit(chain, batch(table, number))
    return LocalStorage(root)
