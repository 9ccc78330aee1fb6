"""Commits of the alerter, made in a thread: a disk that is slow or full delays no page."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Protocol

import pyarrow as pa

from consumers.alerts.partition import Batch, PartitionAlerter
from consumers.lake.storage import Storage
from consumers.lake.tables import TABLES
from consumers.lake.writer import Batch as Written
from consumers.lake.writer import CommitWriter
from consumers.transport.base import Partition
from schemas.crashpoints import crash_point
from schemas.errors import StorageError, UnavailableError

_TABLE: Final = TABLES["incidents"]


class Publisher(Protocol):
    """Takes the rows of a commit before it is made."""

    def send(self, rows: list[dict[str, Any]]) -> None:
        """Send `rows`; they are durable when it returns.

        Raises:
            UnavailableError: they may not be.
        """
        ...

    def close(self) -> None:
        """Release everything."""
        ...


class Outcome(NamedTuple):
    """What became of one commit: `won` False when another alerter made one here; with an `error` it is due again."""

    alerter: PartitionAlerter
    batch: Batch
    won: bool
    error: str


class Committer:
    """One commit of each partition under way, one at a time."""

    def __init__(self, storage: Storage, publisher: Publisher | None) -> None:
        self._writer = CommitWriter(storage)
        self._publisher = publisher
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="commits")
        self._running: dict[Partition, Future[Outcome]] = {}
        self.commits = self.failures = 0

    def running(self, partition: Partition) -> bool:
        """Return whether a commit of `partition` is under way."""
        return partition in self._running

    def begin(self, alerter: PartitionAlerter) -> None:
        """Commit what `alerter` has, if it has anything and no commit of its partition is under way."""
        if alerter.partition not in self._running and (batch := alerter.batch()) is not None:
            self._running[alerter.partition] = self._pool.submit(self._commit, alerter, batch)

    def done(self) -> list[Outcome]:
        """Return what became of commits that ended since the last call."""
        return [self._end(partition) for partition, future in list(self._running.items()) if future.done()]

    def wait(self, partition: Partition) -> Outcome | None:
        """Wait for the commit of `partition` that is under way, if there is one."""
        return self._end(partition) if partition in self._running else None

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown(wait=True)
        if self._publisher is not None:
            self._publisher.close()

    def _end(self, partition: Partition) -> Outcome:
        outcome = self._running.pop(partition).result()
        if outcome.error:
            self.failures += 1
            outcome.alerter.failed(outcome.batch)
        else:
            self.commits += outcome.won
        return outcome

    def _commit(self, alerter: PartitionAlerter, batch: Batch) -> Outcome:
        try:
            if self._publisher is not None:
                self._publisher.send(batch.rows)
                if batch.rows:
                    crash_point("alert:told")
            tables = {_TABLE.name: pa.Table.from_pylist(batch.rows, schema=_TABLE.schema)} if batch.rows else {}
            written = Written(batch.start, batch.end, tables, batch.streams, batch.notes)
            won = self._writer.commit(alerter.chain, written)
        except (StorageError, UnavailableError) as e:
            return Outcome(alerter, batch, won=False, error=str(e))
        crash_point("alert:committed")
        return Outcome(alerter, batch, won=won, error="")
