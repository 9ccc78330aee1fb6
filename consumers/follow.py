"""The collector's loop: poll, enter, commit when due; for ever, or to the end seen at the start."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from consumers.chains import chain_of
from consumers.collector import Cut, PartitionCollector
from consumers.housekeeping import Housekeeper
from consumers.lake.retire import Retention
from consumers.lake.storage import Storage
from consumers.lake.writer import CommitWriter
from consumers.metrics import CollectorMetrics, Lag
from consumers.transport.base import (
    LogReader,
    LogReplacedError,
    LogWentBackError,
    Message,
    Partition,
    RetentionOvertookError,
)
from schemas.config import CollectConfig
from schemas.errors import HypocenterError, StorageError, UnavailableError, UsageError
from schemas.surfaces import FRAME_TOPICS

log = logging.getLogger(__name__)
_POLL_MS: Final = 100
_RETRY_S: Final = 1.0
_RELIST_S: Final = 5.0
_SAY_AGAIN_S: Final = 10.0
#: What all partitions together may hold in memory, in cuts of one.
_BUFFERED_CUTS_MAX: Final = 4


class Follower:
    """Collects the partitions of `reader` into `storage`; a consumer group's listener where the reader has a group."""

    def __init__(
        self, reader: LogReader, storage: Storage, config: CollectConfig, metrics: CollectorMetrics | None = None
    ) -> None:
        self._reader = reader
        self._storage = storage
        self._config = config
        self._cut = Cut(config.cut_bytes, config.cut_rows, int(config.cut_age_s * 1e9))
        self._writer = CommitWriter(storage)
        self._collectors: dict[Partition, PartitionCollector] = {}
        self._waiting: set[Partition] = set()  # ours, but not yet taken over
        self._back: set[Partition] = set()  # whose log went back, and whose chain is not closed yet
        self._until_end = False
        self._given_up = 0  # records of partitions that are no longer ours
        self._ends: dict[Partition, int] = {}  # of ours, as last heard
        self._housekeeper = Housekeeper(storage, Retention(config.retention_hours, config.retention_bytes))
        self._metrics = metrics or CollectorMetrics()
        self._metrics.lags = self.lags

    def run(
        self, stop: threading.Event, *, until_end: bool, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Collect until `stop` is set, or until the ends seen at the start; what is buffered is committed first.

        Raises:
            StorageError, UnavailableError: with `until_end`; without, both are waited out.
            LogReplacedError: with `until_end`, a topic was made anew or went back meanwhile; without, it goes on.
            UsageError: the configuration names a partition that the log does not have.
        """
        self._until_end = until_end
        if until_end:
            self._to_the_end(stop, progress or (lambda _done, _total: None))
        else:
            self._for_ever(stop)
        for partition in list(self._collectors):
            try:
                self._commit(partition)
            except UnavailableError as e:
                if until_end:
                    raise
                log.warning("%s: not committed, the next start reads it again: %s", partition, e)
        if until_end:
            self._expect_all()

    @property
    def records(self) -> int:
        """Return how many records were entered since the start, committed or not."""
        return self._given_up + sum(each.records for each in self._collectors.values())

    @property
    def housekeeping(self) -> bool:
        """Return whether hours are being merged or let go at this moment, which is cut off with the process."""
        return self._housekeeper.running

    def lags(self) -> list[Lag]:
        """Return how far each partition of ours is behind; from any thread."""
        found = []
        for partition, each in self._collectors.copy().items():
            end = self._ends.get(partition)
            offsets = None if end is None else max(0, end - each.committed)
            found.append(Lag(partition, offsets, each.oldest_arrival_ns, each.buffered_bytes, len(each.unbalanced)))
        return found

    def assigned(self, partitions: list[Partition]) -> None:
        """Take over `partitions` (a consumer group's callback): go on where their chains end."""
        for partition in partitions:
            self._waiting.add(partition)
            try:
                self._take_over(partition)
            except (StorageError, UnavailableError) as e:
                # Never read from a position that is not the chain's; the loop tries again.
                log.error("%s: not taken over yet: %s", partition, e)  # noqa: TRY400
                self._reader.forget(partition)

    def revoked(self, partitions: list[Partition]) -> None:
        """Give up `partitions` in good order: commit, then forget."""
        for partition in partitions:
            if partition in self._collectors:
                try:
                    self._commit(partition)
                except (StorageError, UnavailableError) as e:
                    log.warning("%s: given up uncommitted, its next owner reads it again: %s", partition, e)
            self._forget(partition)
        self._waiting.difference_update(partitions)

    def lost(self, partitions: list[Partition]) -> None:
        """Forget `partitions` that somebody else owns by now, without writing."""
        self._waiting.difference_update(partitions)
        for partition in partitions:
            self._forget(partition)

    def _forget(self, partition: Partition) -> None:
        collector = self._collectors.pop(partition, None)
        self._given_up += collector.records if collector else 0
        self._ends.pop(partition, None)

    def _to_the_end(self, stop: threading.Event, progress: Callable[[int, int], None]) -> None:
        self._find_partitions()
        ends = {partition: self._reader.end_offset(partition) for partition in self._collectors}
        self._ends = dict(ends)
        first = {partition: each.position for partition, each in self._collectors.items()}
        total = sum(max(0, end - first[partition]) for partition, end in ends.items())
        while not stop.is_set():
            self._expect_all()
            behind = sum(max(0, end - self._collectors[partition].position) for partition, end in ends.items())
            progress(total - behind, total)
            if behind == 0:
                return
            self._step()

    def _for_ever(self, stop: threading.Event) -> None:
        relist_s = said_s = float("-inf")
        while not stop.is_set():
            try:
                if time.monotonic() - relist_s > _RELIST_S:
                    relist_s = time.monotonic()
                    self._leave_replaced()
                    self._find_partitions()
                    self._hear_ends()
                if self._config.compact:
                    self._housekeeper.tick(time.monotonic())
                self._step()
            except (StorageError, UnavailableError) as e:
                if time.monotonic() - said_s > _SAY_AGAIN_S:
                    said_s = time.monotonic()
                    log.error("%s; trying again, the log keeps what is not yet stored", e)  # noqa: TRY400
                self._metrics.waited("disk" if isinstance(e, StorageError) else "log")
                stop.wait(_RETRY_S)
                relist_s = float("-inf")  # what was given up is taken over again at once

    # Nobody takes over during a run to the end: what was given up is another log now.
    def _expect_all(self) -> None:
        for partition in sorted(self._waiting):
            raise LogReplacedError(f"{partition} is another log now: start again to read that one")

    # One whose topic has no more than was read of the one before would wait for more for ever. Where nobody can say,
    # the next look asks again, and so does a commit.
    def _leave_replaced(self) -> None:
        with contextlib.suppress(UnavailableError):
            for partition in list(self._collectors):
                self._replaced(partition)

    # Whether what was polled of `partition` may be of another topic of its name, whose offsets begin anew: then none of
    # it counts, and the new topic gets a chain of its own.
    def _replaced(self, partition: Partition) -> bool:
        collector = self._collectors[partition]
        if self._reader.topic_id(partition.topic) == collector.topic_id:
            return False
        log.error(
            "%s: its topic was deleted and made again, and is read from its start; of the old one all before offset %d"
            " is stored",
            partition, collector.committed,
        )  # fmt: skip
        self._give_up(partition)
        return True

    # Taken over anew at the next look: the log still holds what was buffered.
    def _give_up(self, partition: Partition) -> None:
        self._forget(partition)
        self._waiting.add(partition)
        self._reader.forget(partition)

    def _hear_ends(self) -> None:
        ends = {partition: self._reader.known_end(partition) for partition in self._collectors}
        self._ends = {partition: end for partition, end in ends.items() if end is not None}

    def _find_partitions(self) -> None:
        if not self._config.group:
            found = self._reader.partitions(list(FRAME_TOPICS))
            self._waiting.update(partition for partition in self._wanted(found) if partition not in self._collectors)
        for partition in sorted(self._waiting):
            self._take_over(partition)

    def _wanted(self, found: list[Partition]) -> list[Partition]:
        if not self._config.partitions:
            return found
        by_name = {f"{partition.topic}:{partition.number}": partition for partition in found}
        absent = [name for name in self._config.partitions if name not in by_name]
        if absent:
            raise UsageError(f"the log has no partition {absent[0]!r}; it has: {', '.join(by_name) or 'none'}")
        return [by_name[name] for name in self._config.partitions]

    def _take_over(self, partition: Partition) -> None:
        chain = chain_of(self._reader, self._storage, partition, went_back=partition in self._back)
        self._back.discard(partition)
        collector = PartitionCollector(partition, chain, self._writer, self._cut, self._metrics.committed)
        self._reader.seek(partition, collector.position)
        self._collectors[partition] = collector
        self._waiting.discard(partition)
        log.info("%s: going on at offset %d", partition, collector.position)

    def _step(self) -> None:
        self._metrics.loop_ns = time.time_ns()
        try:
            polled = self._reader.poll(self._wait_ms())
        except RetentionOvertookError as e:
            self._collectors[e.partition].overtaken(e.start, time.time_ns())
            self._reader.seek(e.partition, e.start)
            return
        except LogWentBackError as e:
            if e.partition in self._collectors and not self._replaced(e.partition):
                self._went_back(e)
            return
        self._add_all({partition: found for partition, found in polled.items() if partition in self._collectors})
        for partition, collector in list(self._collectors.items()):
            if collector.due(time.monotonic_ns()):
                self._commit(partition)
        # Many partitions, each below its own cut: the fullest goes first.
        while sum(each.buffered_bytes for each in self._collectors.values()) > _BUFFERED_CUTS_MAX * self._cut.bytes_max:
            self._commit(max(self._collectors, key=lambda partition: self._collectors[partition].buffered_bytes))

    # What was read before is stored first: it is nowhere else any more.
    def _went_back(self, error: LogWentBackError) -> None:
        partition = error.partition
        if partition not in self._back:
            log.error("%s", error)
        self._back.add(partition)
        self._commit(partition)
        self._give_up(partition)
        self._take_over(partition)
        if self._until_end:
            raise error

    # A commit may be refused between two partitions: what was polled of those behind it comes again.
    def _add_all(self, polled: dict[Partition, list[Message]]) -> None:
        waiting = list(polled)
        try:
            while waiting:
                partition = waiting.pop(0)
                self._add(partition, polled[partition])
        except HypocenterError:
            for partition in waiting:
                self._reader.seek(partition, self._collectors[partition].position)
            raise

    # One poll may give the bytes of several cuts, and memory is for one.
    def _add(self, partition: Partition, messages: list[Message]) -> None:
        collector, taken = self._collectors[partition], 0
        while taken < len(messages):
            taken += collector.add(messages[taken:], time.monotonic_ns())
            # Behind another collector's commit the reader goes on elsewhere, and brings the rest again.
            if taken < len(messages) and not self._commit(partition):
                return

    # No longer than the oldest buffer may wait: its commit is not to be late by a poll.
    def _wait_ms(self) -> int:
        now_ns = time.monotonic_ns()
        due_ms = [each.due_in_ms(now_ns) for each in self._collectors.values()]
        return min([_POLL_MS, *(wait_ms for wait_ms in due_ms if wait_ms is not None)])

    def _commit(self, partition: Partition) -> bool:
        collector, start_s = self._collectors[partition], time.monotonic()
        committing = collector.buffered > 0
        try:
            if committing and self._replaced(partition):
                return False
        except UnavailableError:
            self._reader.seek(partition, collector.position)  # the rest of a poll comes again, what is buffered stays
            raise
        try:
            won = collector.commit()
        except HypocenterError:
            self._metrics.refused()
            self._give_up(partition)
            raise
        if committing and won:
            self._metrics.commit_s.observe(time.monotonic() - start_s)
        elif not won:
            self._metrics.rivalled()
        if won:
            self._reader.commit_advisory(partition, collector.position)
        else:
            self._reader.seek(partition, collector.position)
        return won
