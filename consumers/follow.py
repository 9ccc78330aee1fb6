"""The collector's loop: poll, enter, commit when due; for ever, or to the end seen at the start."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from consumers.collector import Cut, PartitionCollector
from consumers.lake.chain import Chain
from consumers.lake.compact import compact, expire
from consumers.lake.storage import Storage
from consumers.lake.writer import CommitWriter
from consumers.transport.base import LogReader, Partition, RetentionOvertookError
from schemas.config import CollectConfig
from schemas.errors import StorageError, UnavailableError
from schemas.surfaces import TOPICS

log = logging.getLogger(__name__)
_POLL_MS: Final = 100
_RETRY_S: Final = 1.0
_RELIST_S: Final = 30.0
_COMPACT_S: Final = 600.0


class Follower:
    """Collects the partitions of `reader` into `storage`."""

    def __init__(self, reader: LogReader, storage: Storage, config: CollectConfig) -> None:
        self._reader = reader
        self._storage = storage
        self._config = config
        self._cut = Cut(config.cut_bytes, config.cut_rows, int(config.cut_age_s * 1e9))
        self._writer = CommitWriter(storage)
        self._collectors: dict[Partition, PartitionCollector] = {}
        self.rows = 0

    def run(self, stop: threading.Event, *, until_end: bool, progress: Callable[[int, int], None] | None = None) -> None:
        """Collect until `stop` is set, or until the ends seen at the start; what is buffered is committed first.

        Raises:
            StorageError, UnavailableError: with `until_end`; without, both are waited out.
        """
        self._assign(self._wanted())
        ends = {partition: self._reader.end_offset(partition) for partition in self._collectors}
        starts = {partition: each.position for partition, each in self._collectors.items()}
        total = sum(max(0, end - starts[partition]) for partition, end in ends.items())
        relist_s = compact_s = time.monotonic()
        while not stop.is_set():
            behind = sum(max(0, end - self._collectors[partition].position) for partition, end in ends.items())
            if progress:
                progress(total - behind, total)
            if until_end and behind == 0:
                break
            self._guarded(self._step, until_end=until_end, stop=stop)
            now_s = time.monotonic()
            if not until_end and now_s - relist_s > _RELIST_S:
                relist_s = now_s
                self._guarded(lambda: self._assign(self._wanted()), until_end=False, stop=stop)
            if not until_end and self._config.compact and now_s - compact_s > _COMPACT_S:
                compact_s = now_s
                self._guarded(self._compact, until_end=False, stop=stop)
        for partition in list(self._collectors):
            self._commit(partition)

    def assigned(self, partitions: list[Partition]) -> None:
        """Take over `partitions` (a consumer group's callback): go on where their chains end."""
        self._assign(partitions)

    def revoked(self, partitions: list[Partition]) -> None:
        """Give up `partitions` in good order: commit, then forget."""
        for partition in partitions:
            if partition in self._collectors:
                self._commit(partition)
                del self._collectors[partition]

    def lost(self, partitions: list[Partition]) -> None:
        """Forget `partitions` that somebody else owns by now, without writing."""
        for partition in partitions:
            self._collectors.pop(partition, None)

    def _wanted(self) -> list[Partition]:
        if self._config.group:
            return []
        found = self._reader.partitions(list(TOPICS))
        if not self._config.partitions:
            return found
        return [partition for partition in found if f"{partition.topic}:{partition.number}" in self._config.partitions]

    def _assign(self, partitions: list[Partition]) -> None:
        for partition in partitions:
            if partition in self._collectors:
                continue
            chain = Chain(
                self._storage,
                partition.topic,
                partition.number,
                log_id=self._reader.log_id(),
                topic_id=self._reader.topic_id(partition.topic),
                first_offset=self._reader.start_offset(partition),
            )
            collector = PartitionCollector(partition, chain, self._writer, self._cut)
            self._collectors[partition] = collector
            self._reader.seek(partition, collector.position)

    def _step(self) -> None:
        now_ns = time.monotonic_ns()
        try:
            polled = self._reader.poll(_POLL_MS)
        except RetentionOvertookError as e:
            self._collectors[e.partition].overtaken(e.start, time.time_ns())
            self._reader.seek(e.partition, e.start)
            return
        for partition, messages in polled.items():
            if partition in self._collectors:
                self._collectors[partition].add(messages, now_ns)
        for partition, collector in list(self._collectors.items()):
            if collector.due(time.monotonic_ns()):
                self._commit(partition)

    def _commit(self, partition: Partition) -> None:
        collector = self._collectors[partition]
        try:
            if not collector.commit():
                self._reader.seek(partition, collector.position)
        except StorageError:
            # The log still holds what was buffered: read it again when the disk takes it.
            collector.reload()
            self._reader.seek(partition, collector.position)
            raise

    def _guarded(self, step: Callable[[], None], *, until_end: bool, stop: threading.Event) -> None:
        try:
            step()
        except (StorageError, UnavailableError) as e:
            if until_end:
                raise
            log.error("%s; trying again, the log keeps what is not yet stored", e)  # noqa: TRY400
            stop.wait(_RETRY_S)

    def _compact(self) -> None:
        report = compact(self._storage, time.time_ns())
        expire(self._storage, time.time_ns())
        log.info("compacted: %s", report)
