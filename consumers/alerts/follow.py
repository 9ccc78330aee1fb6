"""The alerter's loop: poll, assemble, tell, commit; for ever, or to the end seen at the start.

The order is what exactly once rests on. A page goes out before its commit, so that no disk delays it; it is known by
labels that follow from the log alone, so telling it again after a kill is telling the same. State and offset are one
commit, so whatever was told and not committed is assembled again and told again.
"""

import logging
import threading
import time
from collections.abc import Iterable
from typing import Final

from consumers.alert_metrics import AlertMetrics
from consumers.alerts.access import OPEN, Access
from consumers.alerts.case import Case
from consumers.alerts.commits import Committer, Outcome, Publisher
from consumers.alerts.deliver import Backlog, Deliverer
from consumers.alerts.early import Early
from consumers.alerts.hosts import Hosts
from consumers.alerts.joins import Joins
from consumers.alerts.judge import Judge
from consumers.alerts.keeper import LeaseKeeper
from consumers.alerts.lease import Lease, this_process
from consumers.alerts.outbox import Timing
from consumers.alerts.partition import PartitionAlerter, chain_of
from consumers.alerts.post import Client
from consumers.alerts.signs import SignReader
from consumers.alerts.tally import Tally
from consumers.chains import replaced
from consumers.lake.storage import Storage
from consumers.transport.base import LogReader, LogReplacedError, Message, Partition, RetentionOvertookError
from schemas.alert_config import AlertConfig
from schemas.crashpoints import crash_point
from schemas.errors import StorageError, UnavailableError
from schemas.surfaces import TOPIC_LOG, TOPIC_STATE

log = logging.getLogger(__name__)
_S: Final = 10**9
_POLL_MS: Final = 50
_RETRY_S: Final = 1.0
_RELIST_NS: Final = 5 * _S
_LOOK_NS: Final = 1 * _S
_CLOSE_S: Final = 5.0
_COUNTS: Final = {"incidents": "opened"} | {name: name for name in ("near_misses", "skipped", "messages")}
#: Kernel logs, and what hosts say of their VMs.
TOPICS: Final = (TOPIC_LOG, TOPIC_STATE)
#: Messages that are read before what was found in them is told.
MESSAGES_UNTOLD_MAX: Final = 16
#: Changes that no page waits for are committed together.
_GATHER_NS: Final = _S


class AlertFollower:
    """Alerts from the partitions of `reader`; a consumer group's listener where the reader has a group."""

    def __init__(
        self,
        reader: LogReader,
        storage: Storage,
        config: AlertConfig,
        judge: Judge,
        signs: SignReader,
        publisher: Publisher | None = None,
        metrics: AlertMetrics | None = None,
        access: Access = OPEN,
    ) -> None:
        self._reader, self._storage, self._config, self._judge, self._signs = reader, storage, config, judge, signs
        self._tally = Tally(metrics or AlertMetrics(config.alertmanager))
        self._us = this_process()
        self._alerters: dict[Partition, PartitionAlerter] = {}
        self._committed_ns: dict[Partition, int] = {}
        self._standby: dict[Partition, Lease] = {}
        self._wanted: set[Partition] = set()  # what the log has, or the group has given us
        self._hosts = Hosts(storage)
        self._joins = Joins(storage, self._hosts.guests, self._alerters)
        self._early = Early(reader, self._alerters)
        self._keeper = LeaseKeeper(config.lease_s / 3)
        self._committer = Committer(storage, publisher)
        timing = Timing(*(int(each * _S) for each in (config.resend_s, config.ends_ahead_s, config.hold_s)))
        self._pause_ns = int(config.lease_s * _S / 2)
        self._seen_ns = time.monotonic_ns()
        self._deliverers = {
            url: Deliverer(Client(url, config.timeout_s, access), timing, self._not_ours, self._pause_ns)
            for url in config.alertmanager
        }
        self._backlog = Backlog(config.queue_max)
        self._relist_ns = self._look_ns = self._retry_ns = 0

    def run(self, stop: threading.Event, *, until_end: bool) -> None:
        """Alert until `stop` is set, or until the ends seen at the start are read, told and committed.

        Raises:
            StorageError, UnavailableError: with `until_end`, also of an Alertmanager; without, they are waited out.
        """
        self._hosts.step(time.monotonic_ns())
        self._hosts.wait(_CLOSE_S)
        try:
            if until_end:
                self._to_the_end(stop)
            else:
                self._for_ever(stop)
            self._finish(strict=until_end)
        finally:
            for each in self._deliverers.values():
                each.close(0)
            self._signs.close()
            self._judge.close()
            self._hosts.close()
            self._joins.close()
            self._committer.close()
            self._keeper.close()

    @property
    def counts(self) -> dict[str, int]:
        """Sums since the start, over the partitions that are ours."""
        found = [each.counts for each in self._alerters.values()]
        sums = {name: sum(getattr(each, field) for each in found) for name, field in _COUNTS.items()}
        sums["sent"] = sum(each.sent for each in self._deliverers.values())
        return sums | {"delivery_errors": sum(each.errors for each in self._deliverers.values())}

    @property
    def cases(self) -> list[Case]:
        """The incidents that go on, and those whose end somebody is still to be told."""
        return [case for each in self._alerters.values() for case in each.cases.values()]

    def assigned(self, partitions: list[Partition]) -> None:
        """Take over `partitions` (a consumer group's callback): go on where their chains end."""
        self._wanted.update(partitions)
        for partition in partitions:
            try:
                self._take_over(partition, at_once=True)
            except (StorageError, UnavailableError) as e:
                # Never read from a position that is not the chain's; the loop tries again.
                log.error("%s: not taken over yet: %s", partition, e)  # noqa: TRY400
                self._reader.forget(partition)

    def revoked(self, partitions: list[Partition]) -> None:
        """Give up `partitions` in good order: commit, then forget."""
        for partition in partitions:
            if partition in self._alerters:
                self._commit_now(partition)
            self._forget(partition)
        self._wanted.difference_update(partitions)

    def lost(self, partitions: list[Partition]) -> None:
        """Forget `partitions` that somebody else owns by now, without writing."""
        self._wanted.difference_update(partitions)
        for partition in partitions:
            self._forget(partition)

    def _to_the_end(self, stop: threading.Event) -> None:
        ends = {each: self._reader.end_offset(each) for each in self._reader.partitions([*TOPICS])}
        hastened, ids = False, {each.topic: self._reader.topic_id(each.topic) for each in ends}
        while not stop.is_set():
            self._step(at_once=False)
            if any(ids[each.topic] != self._alerters[each].chain.topic_id for each in ends if each in self._alerters):
                raise LogReplacedError("a topic was deleted and made again: start again to read the new one")
            taken = {each: self._alerters[each].position for each in ends if each in self._alerters}
            if any(taken.get(each, -1) < end for each, end in ends.items()):
                continue
            if not hastened:
                hastened = not self._joins.busy  # what waits for an answer is judged behind it
                self._judge.hasten()
            elif self._settled():
                return

    # Whether everything was judged for the last time, and told to whoever is there.
    def _settled(self) -> bool:
        waiting = any(each.waiting and not each.away for each in self._deliverers.values())
        return not (waiting or self._joins.busy or self._judge.busy({case.incident.id for case in self.cases}))

    def _for_ever(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._step()
            except (StorageError, UnavailableError) as e:
                log.error("%s; trying again, the log keeps what is not yet read", e)  # noqa: TRY400
                stop.wait(_RETRY_S)
                self._relist_ns = self._look_ns = 0

    # To the end, the verdicts are to be in the last commit: behind it there is no offset that could carry them.
    def _step(self, *, at_once: bool = True) -> None:
        now_ns = time.monotonic_ns()
        if now_ns >= self._look_ns:
            self._look_ns = now_ns + _LOOK_NS
            self._find_partitions(now_ns)
            self._close_cases()
            self._take_signs()
            self._tell_all(self._joins.known())
            counts = self.counts
            self._tally.look(self.cases, self._deliverers, counts["near_misses"], counts["skipped"])
        if self._backlog.full(each.waiting for each in self._deliverers.values()):
            time.sleep(_POLL_MS / 1000)
        else:
            self._read()
        for each in self._alerters.values():
            self._tell_all(each.caught_up(now_ns))
        for partition in self._keeper.lost():
            self._step_back(partition, "another alerter has taken over")
        self._hosts.step(now_ns)
        self._take_verdicts()
        self._tell_all(self._joins.step(now_ns))
        self._take_told()
        self._commit_due(at_once=at_once)

    def _read(self) -> None:
        try:
            polled = self._reader.poll(_POLL_MS)
            self._tally.polled()
            self._come_to()
        except RetentionOvertookError as e:
            if e.partition in self._alerters:
                self._alerters[e.partition].overtaken(e.start)
                self._reader.seek(e.partition, e.start)
            return
        for partition, messages in polled.items():
            if partition.topic != TOPIC_LOG:
                self._early.put(partition, messages)
            elif partition in self._alerters:
                self._take(self._alerters[partition], messages)
        for alerter, messages in self._early.ready():
            self._take(alerter, messages)

    # What is known is told before much more is read: behind it may stand a flood.
    def _take(self, alerter: PartitionAlerter, messages: list[Message]) -> None:
        for at in range(0, len(messages), MESSAGES_UNTOLD_MAX):
            cases = alerter.add(messages[at : at + MESSAGES_UNTOLD_MAX])
            crash_point("alert:read")
            joined = self._joins.known() if any(case.incident.vm for case in cases) else []
            self._tell_all([*cases, *joined])

    # Stopped for long, others may own by now what we had: to go on telling of it would raise again what they ended.
    def _come_to(self) -> None:
        seen_ns, self._seen_ns = self._seen_ns, time.monotonic_ns()
        if self._seen_ns - seen_ns > self._pause_ns:
            for partition in list(self._keeper.confirm()):
                self._step_back(partition, "another alerter has taken over")

    def _find_partitions(self, now_ns: int) -> None:
        if now_ns >= self._relist_ns:
            self._relist_ns = now_ns + _RELIST_NS
            for partition in [at for at, each in self._alerters.items() if replaced(self._reader, at, each.chain)]:
                self._step_back(partition, "its topic was deleted and made again, which is read from its start")
            if not self._config.group:
                self._wanted = set(self._reader.partitions([*TOPICS]))
        for partition in sorted(self._wanted - self._alerters.keys()):
            self._take_over(partition, at_once=False)

    # Where a group has just decided that it is us, at once; else whoever owned it must be gone, or silent for long.
    def _take_over(self, partition: Partition, *, at_once: bool) -> None:
        lease = self._standby.get(partition)
        if lease is None:
            lease = Lease(self._storage, partition, self._us, int(self._config.lease_s * _S), self._reader.log_id())
        if not lease.acquire(time.monotonic_ns(), at_once=at_once):
            if partition not in self._standby:
                log.info("%s: another alerter owns it; standing by", partition)
            self._standby[partition] = lease
            return
        self._standby.pop(partition, None)
        self._keeper.keep(partition, lease)
        try:
            chain = chain_of(self._reader, self._storage, partition)
            alerter = PartitionAlerter(partition, chain, self._hosts, int(self._config.stopped_s * _S))
            alerter.catch_up(self._reader.end_offset(partition), time.monotonic_ns() + int(self._config.resend_s * _S))
            self._reader.seek(partition, alerter.position)
        except (StorageError, UnavailableError):
            self._keeper.let_go(partition)
            raise
        self._alerters[partition] = alerter
        self._committed_ns[partition] = time.monotonic_ns()
        self._tell_all(alerter.untold(self._deliverers.keys()))
        log.info("%s: going on at offset %d, %d cases are open", partition, alerter.position, len(alerter.cases))

    # What is too old to wake anybody is stored alone; where it goes on it is told.
    def _tell(self, case: Case) -> None:
        now_ns = time.monotonic_ns()
        if not self._joins.tells(case, now_ns):
            if case.incident.joined:
                case.ended_by.update(self._deliverers)
            return
        self._judge.follow(case, now_ns)
        old = time.time_ns() - case.changed_ns > self._config.page_age_s * _S
        for url, deliverer in self._deliverers.items():
            if url in case.ended_by:
                continue
            if old and url not in case.opened_by:
                if case.ended_ns is not None:
                    case.ended_by.add(url)
                continue
            deliverer.put(case.alert(), opened=url in case.opened_by)
        crash_point("alert:queued")

    def _tell_all(self, cases: Iterable[Case]) -> None:
        for case in cases:
            self._tell(case)

    def _take_verdicts(self) -> None:
        found = self._judge.step(time.monotonic_ns(), self._case)
        if found is None or (case := self._case(found.id)) is None:
            return
        self._tally.judged(case, found.verdict, found.seconds)
        for alerter in self._alerters.values():
            if found.verdict is not None and alerter.judged(found.id, found.verdict):
                self._tell(case)

    def _case(self, key: str) -> Case | None:
        return next((each.cases[key] for each in self._alerters.values() if key in each.cases), None)

    def _take_told(self) -> None:
        for url, deliverer in self._deliverers.items():
            for told in deliverer.told():
                for alerter in self._alerters.values():
                    alerter.told(told.id, url, ended=told.ended)

    def _take_signs(self) -> None:
        for sign in self._signs.poll({partition: each.watched for partition, each in self._alerters.items()}):
            for alerter in self._alerters.values():
                self._tell_all(alerter.alive(sign))

    # Of what has ended, and was told and judged, there is nothing more to keep.
    def _close_cases(self) -> None:
        for partition, alerter in self._alerters.items():
            if self._committer.running(partition):
                continue
            ended = [key for key, case in alerter.cases.items() if case.ended_ns is not None]
            for key in ended:
                told_all = self._deliverers.keys() <= alerter.cases[key].ended_by
                if told_all and not self._judge.busy({key}) and alerter.close(key):
                    self._judge.forget(key)
                    self._joins.forget(key)
                    self._tally.forget(key)

    def _commit_due(self, *, at_once: bool) -> None:
        for outcome in self._committer.done():
            self._committed(outcome)
        now_ns = time.monotonic_ns()
        if now_ns < self._retry_ns:
            return
        for partition, alerter in self._alerters.items():
            waited_ns = now_ns - self._committed_ns[partition]
            quiet_ns = _GATHER_NS if alerter.changed and at_once else int(self._config.commit_s * _S)
            if (alerter.urgent and at_once) or waited_ns >= quiet_ns:
                self._committer.begin(alerter)

    def _committed(self, outcome: Outcome) -> None:
        partition = outcome.alerter.partition
        self._committed_ns[partition] = time.monotonic_ns()
        if outcome.error:
            log.error("%s: not committed, pages go on and it is tried again: %s", partition, outcome.error)
            self._retry_ns = time.monotonic_ns() + int(_RETRY_S * _S)
        elif outcome.won:
            self._reader.commit_advisory(partition, outcome.batch.end)
        elif self._alerters.get(partition) is outcome.alerter:
            self._step_back(partition, f"another alerter committed offset {outcome.batch.start}")

    def _commit_now(self, partition: Partition) -> str:
        outcome = self._committer.wait(partition)
        if outcome is None or outcome.won:
            self._committer.begin(self._alerters[partition])
            outcome = self._committer.wait(partition)
        if outcome is None or not outcome.error:
            return ""
        log.error("%s: given up uncommitted, its next owner reads it again: %s", partition, outcome.error)
        return outcome.error

    # Somebody else tells of it now, and may know better what has ended; or it is another log, with a chain of its own.
    def _step_back(self, partition: Partition, why: str) -> None:
        log.warning("%s: %s", partition, why)
        self._forget(partition)
        self._reader.forget(partition)

    def _forget(self, partition: Partition) -> None:
        alerter = self._alerters.pop(partition, None)
        self._early.forget(partition)
        self._keeper.let_go(partition)
        self._standby.pop(partition, None)
        if alerter is not None:
            for deliverer in self._deliverers.values():
                deliverer.forget(alerter.cases)
            for key in alerter.cases:
                self._judge.forget(key)
                self._joins.forget(key)
                self._tally.forget(key)

    # Called in a deliverer's thread: what must not be told, because meanwhile somebody else does.
    def _not_ours(self) -> Iterable[str]:
        for partition in self._keeper.confirm():
            if (alerter := self._alerters.get(partition)) is not None:
                yield from list(alerter.cases)

    def _finish(self, *, strict: bool) -> None:
        untold = [each.waiting for each in self._deliverers.values() if not each.close(_CLOSE_S)]
        said = [f"{count} incidents are not told yet; the next start does" for count in untold]
        self._take_told()
        errors = [error for partition in list(self._alerters) if (error := self._commit_now(partition))]
        if strict and (errors or said):
            raise StorageError(errors[0]) if errors else UnavailableError(said[0])
        for each in said:
            log.warning(each)
