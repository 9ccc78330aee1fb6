"""One batch into the lake: its files, by hour of the log's append time, then the commit that makes them visible."""

import os
import socket
import time
import uuid
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from consumers.decode import registry
from consumers.lake import layout
from consumers.lake.chain import Chain, Changes, Commit, FileEntry
from consumers.lake.parquet import write_table
from consumers.lake.storage import Storage
from schemas.crashpoints import crash_point
from schemas.errors import StorageError


class Batch(NamedTuple):
    """The offsets from `start` to `end` as rows by table, the stream states that changed, and the partition's notes.

    `kinds` are those of rows that nobody had brought before.
    """

    start: int
    end: int
    tables: dict[str, pa.Table]
    streams: Changes
    notes: dict[str, int]
    kinds: Mapping[str, str] = {}


class CommitWriter:
    """Writes batches into `storage`."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._writer = f"{socket.gethostname()}:{os.getpid()}"

    def commit(self, chain: Chain, batch: Batch) -> bool:
        """Write and commit `batch`; False when another writer won, whose commit stands and whose files alone count.

        Raises:
            StorageError: the disk refuses; nothing is committed, what was written is removed.
        """
        attempt = uuid.uuid4().hex
        files: list[FileEntry] = []
        won = False
        try:
            for table, hour, rows in _by_hour(batch.tables):
                files.append(self._write(chain, batch, attempt, table, hour, len(files), rows))
                crash_point("writer:file")
            crash_point("writer:files")
            won = chain.commit(
                Commit(
                    batch.start,
                    batch.end,
                    files,
                    batch.streams,
                    batch.notes,
                    attempt,
                    self._writer,
                    time.time_ns(),
                    batch.kinds,
                )
            )
        except StorageError:
            self._drop(chain, batch, attempt, files)
            raise
        if not won:
            self._drop(chain, batch, attempt, files)
        crash_point("writer:committed")
        return won

    def close(self, chain: Chain) -> None:
        """End the generation of `chain`, as `Chain.close` does."""
        chain.close(self._writer, time.time_ns())

    def _write(
        self, chain: Chain, batch: Batch, attempt: str, table: str, hour: int, k: int, rows: pa.Table
    ) -> FileEntry:
        key = layout.data_key(table, hour, chain.topic, chain.partition, batch.start, batch.end, k, attempt)
        local = self.storage.scratch() / f"{attempt}-{k}.parquet"
        metadata = {"topic": chain.topic, "partition": str(chain.partition), "range": f"{batch.start}-{batch.end}"}
        try:
            spec = registry.spec_of(table, rows.schema)
            stats = write_table(rows, spec, local, {**metadata, "writer": self._writer})
            self.storage.put_file(local, key)
        finally:
            local.unlink(missing_ok=True)
        return FileEntry(table, key, *stats)

    # Whether it stands a disk that refuses may not have said: files of a standing commit stay.
    def _drop(self, chain: Chain, batch: Batch, attempt: str, files: list[FileEntry]) -> None:
        if not chain.has(batch.start, attempt):
            for entry in files:
                self.storage.delete(entry.key)


def _by_hour(tables: dict[str, pa.Table]) -> list[tuple[str, int, pa.Table]]:
    found = []
    for name, table in tables.items():
        if not table.num_rows:
            continue
        span = pc.min_max(table["arrival_ns"])
        low, high = (span[end].as_py() // layout.HOUR_NS for end in ("min", "max"))
        if low == high:
            found.append((name, low, table))
            continue
        hours = pc.divide(table["arrival_ns"], layout.HOUR_NS)
        found += [(name, hour.as_py(), table.filter(pc.equal(hours, hour))) for hour in pc.unique(hours).sort()]
    return found
