"""One panic, one incident: what a VM's monitor told belongs to the incident of its guest's own log, if there is one.

The two come by two topics, and may be followed by two alerters. What is known in this process is looked up at once; the
lake, which has what all alerters found, in a thread. A page of the monitor's waits for the answer, and not for long.
Where the guest's own lines come only later, what the monitor told joins them then: it is asked again for a minute.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple

import duckdb

from consumers.alerts.case import Case
from consumers.alerts.partition import PartitionAlerter
from consumers.lake.snapshot import Snapshot, snapshot
from consumers.lake.storage import Storage
from consumers.reports.report import Kind
from consumers.transport.base import Partition
from consumers.views import connect
from schemas.errors import StorageError

log = logging.getLogger(__name__)
#: Of a VM whose guest has an incident, these are a part of that.
KINDS: Final = frozenset((Kind.PANIC, Kind.WATCHDOG))
_S: Final = 10**9
#: A guest that was silent for less, or for less than its incident lasted, was still in it.
_WITHIN_NS: Final = 10 * _S
#: What a guest had said before its panic may come so long behind the end of that.
_LATE_NS: Final = 10 * _S
_STEPS_S: Final = (0.0, 5.0, 15.0, 60.0)
#: A page waits so long for the lake.
_WAIT_NS: Final = 2 * _S
_ENDED_BY: Final = frozenset(("reboot", ""))
_SQL: Final = """
select incident_id, min(opened_ns), max_by(changed_ns, version), max_by(ended_ns, version), max_by(ended_by, version),
       max_by(duration_high_s, version)
from incidents where list_contains(?, machine) and layer in ('guest-kernel', 'guest-userspace')
group by incident_id order by 2, 1
"""


class Guest(NamedTuple):
    """An incident of a guest's own log, as far as a join asks; times are the log's append times, ns."""

    id: str
    opened_ns: int
    changed_ns: int
    ended_ns: int | None
    ended_by: str
    length_s: float | None


def guest_of(case: Case) -> Guest:
    """Return what a join asks of a case."""
    incident = case.incident
    length_s = None if incident.duration is None else incident.duration.high
    return Guest(incident.id, case.opened_ns, case.changed_ns, case.ended_ns, incident.ended_by, length_s)


def part_of(case: Case, guests: Iterable[Guest]) -> str | None:
    """Return the id of the guest's incident that the `case` of its VM is a part of: the one nearest to it, if any."""
    found = [each for each in guests if _belongs(case, each)]
    nearest = min(found, key=lambda each: (abs(case.opened_ns - each.opened_ns), each.id), default=None)
    return None if nearest is None else nearest.id


def _belongs(case: Case, guest: Guest) -> bool:
    if guest.opened_ns > case.opened_ns:
        # The kernel that panicked says no more: these lines are of before, and took longer.
        return case.ended_ns is None or guest.opened_ns <= case.ended_ns + _LATE_NS
    over = guest.ended_ns is not None and guest.ended_ns < case.opened_ns
    silent_ns = case.opened_ns - guest.changed_ns
    within_ns = max(_WITHIN_NS, int((guest.length_s or 0) * _S))
    return not over and guest.ended_by in _ENDED_BY and silent_ns <= within_ns


@dataclass(slots=True)
class _Plan:
    opened_ns: int  # CLOCK_MONOTONIC
    step: int = 0
    answered: bool = False
    told: bool = False


class Joins:
    """Joins cases of VMs to their guests' own among all of `alerters`, and asks the lake of `storage` in a thread.

    `guests` gives the names of a VM's guest, by the name of the VM and the machine of its host. Times are
    CLOCK_MONOTONIC, ns.
    """

    def __init__(
        self,
        storage: Storage,
        guests: Callable[[str, str], frozenset[str]],
        alerters: Mapping[Partition, PartitionAlerter],
    ) -> None:
        self._storage, self._guests, self._alerters = storage, guests, alerters
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="joins")
        self._plans: dict[str, _Plan] = {}
        self._running: tuple[str, Future[list[Guest]]] | None = None

    @property
    def busy(self) -> bool:
        """Whether a first answer is still to come."""
        return any(not plan.answered for plan in self._plans.values())

    def tells(self, case: Case, now_ns: int) -> bool:
        """Return whether somebody is to be told of `case` now: a VM's waits until it is known to be no part of another.

        Of what turned out to be a part before anybody was told of it, nobody ever is.
        """
        if not case.incident.vm or case.incident.kind not in KINDS:
            return True
        plan = self._plans.setdefault(case.incident.id, _Plan(now_ns, told=bool(case.opened_by)))
        if not case.incident.joined and (plan.answered or case.opened_by):
            plan.told = True
        return plan.told

    def forget(self, key: str) -> None:
        """Ask of case `key` no more."""
        self._plans.pop(key, None)

    def known(self) -> list[Case]:
        """Join what can be joined by the cases at hand; return those that changed.

        A panic that is part of a case is told to that one, again where a kill came between.
        """
        told: list[Case] = []
        of_machine: dict[str, list[Case]] = {}
        for each in self._alerters.values():
            for case in each.cases.values():
                if not case.incident.vm:
                    of_machine.setdefault(case.incident.source.machine, []).append(case)
                elif case.incident.kind in KINDS:
                    told.append(case)
        changed = []
        for case in told:
            if case.incident.joined:
                changed += self._panicked(case)
                continue
            machines = self._guests(case.whose.vm, case.whose.host)
            mine = [each for machine in machines for each in of_machine.get(machine, ())]
            other = part_of(case, [guest_of(each) for each in mine if not each.incident.joined])
            if other is not None:
                changed += self._join(case, other)
        return changed

    def step(self, now_ns: int) -> list[Case]:
        """Return the cases that an answer changed, or that are to be told now; begin with the next question."""
        found = self._reap()
        for key, plan in self._plans.items():
            case = self._case(key)
            if case is not None and not plan.answered and now_ns - plan.opened_ns >= _WAIT_NS:
                plan.answered = True
                found.append(case)
        if self._running is None:
            self._begin(now_ns)
        return found

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _case(self, key: str) -> Case | None:
        return next((each.cases[key] for each in self._alerters.values() if key in each.cases), None)

    def _join(self, case: Case, other: str) -> list[Case]:
        log.info("incident %s is part of %s", case.incident.id, other)
        found = [each.joined(case.incident.id, other) for each in self._alerters.values()]
        return [*(each for each in found if each is not None), *self._panicked(case)]

    def _panicked(self, case: Case) -> list[Case]:
        if case.incident.kind is not Kind.PANIC:
            return []
        found = [each.panicked(case.incident.joined) for each in self._alerters.values()]
        return [each for each in found if each is not None]

    def _reap(self) -> list[Case]:
        if self._running is None or not self._running[1].done():
            return []
        (key, future), self._running = self._running, None
        case, plan = self._case(key), self._plans.get(key)
        if case is None or plan is None or case.incident.joined:
            return []
        first, plan.answered = not plan.answered, True
        error = future.exception()
        if error is not None:
            log.warning("whether incident %s is part of another was not read: %s", key, error)
        other = None if error is not None else part_of(case, future.result())
        return self._join(case, other) if other is not None else [case] if first else []

    def _begin(self, now_ns: int) -> None:
        for key, plan in self._plans.items():
            case = self._case(key)
            if case is None or case.incident.joined or plan.step >= len(_STEPS_S):
                plan.answered = True
            elif now_ns >= plan.opened_ns + int(_STEPS_S[plan.step] * _S):
                plan.step += 1
                machines = self._guests(case.whose.vm, case.whose.host)
                self._running = key, self._pool.submit(read, self._storage, machines)
                return


def read(storage: Storage, machines: frozenset[str]) -> list[Guest]:
    """Return the incidents that the lake has of the kernels of `machines`.

    Raises:
        StorageError: the lake cannot be read.
    """
    taken = snapshot(storage).of(["incidents"]) if machines else Snapshot()
    if not taken.files:
        return []
    try:
        connection = connect(storage, taken, "incidents")
        try:
            rows = connection.execute(_SQL, [sorted(machines)]).fetchall()
        finally:
            connection.close()
    except duckdb.Error as e:
        raise StorageError(f"the table incidents cannot be read: {e}") from None
    return [Guest(*row) for row in rows]
