"""One partition's incidents: messages in, cases out, and what a commit of the alerter's own chain holds.

Pure but for the chain. A commit carries the rows of cases that changed and the state of the machines that did, so
whoever takes over goes on from there and reads what follows again; the same messages give the same incidents.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from consumers import chains
from consumers.alerts import stored
from consumers.alerts.case import Case
from consumers.alerts.machine import SURFACE, Machine
from consumers.alerts.payload import Whose
from consumers.alerts.signs import Sign
from consumers.alerts.vm import SURFACE as MONITOR
from consumers.alerts.vm import Vm, Who
from consumers.incidents.incident import Incident, State
from consumers.lake.chain import Chain
from consumers.lake.layout import ALERTS
from consumers.lake.storage import Storage
from consumers.transport.base import LogReader, Message, Partition
from consumers.verdict.verdict import Verdict
from schemas.errors import BadInputError
from schemas.frame import Frame, decode, decode_tags
from schemas.stream import Layer, Stream
from schemas.surfaces import TOPIC_LOG

log = logging.getLogger(__name__)
#: Machines of one partition that are followed; of more the log says so, and the collector stores them all the same.
MACHINES_MAX: Final = 1 << 17
#: Cases of one partition whose end is not told yet, and of one machine.
CASES_MAX: Final = 1 << 16
MACHINE_CASES_MAX: Final = 16
#: How long a VM stands before that is an incident, unless the configuration says otherwise.
STOPPED_NS: Final = 10 * 10**9
#: How a case ends for which a newer one of its machine had to have its place.
DISPLACED: Final = "displaced"
_NAME: Final = "alerts"


class Batch(NamedTuple):
    """What one commit will hold: the offsets from `start` to `end`, rows, states; and what it covers if it fails."""

    start: int
    end: int
    rows: list[dict[str, Any]]
    streams: dict[Stream, dict[str, Any]]
    notes: dict[str, int]
    cases: frozenset[str]
    machines: frozenset[Who]


@dataclass(slots=True)
class Counts:
    """Sums since the start, for people and metrics."""

    messages: int = 0
    unreadable: int = 0
    opened: int = 0
    left_out: int = 0
    offsets_lost: int = 0
    parsed: int = 0
    skipped: int = 0
    near_misses: int = 0


@dataclass(slots=True)
class _Due:
    cases: set[str] = field(default_factory=set)
    machines: set[Who] = field(default_factory=set)
    urgent: bool = False  # an incident opened, ended, was judged or told


class PartitionAlerter:
    """Assembles the incidents of one partition of `hypocenter.log`, or of `hypocenter.state`: what hosts say of VMs.

    `whose` knows a machine's VM and host; a VM is stopped when it was so for `stopped_ns`.
    """

    def __init__(
        self, partition: Partition, chain: Chain, whose: Callable[[str], Whose], stopped_ns: int = STOPPED_NS
    ) -> None:
        self.partition = partition
        self.chain = chain
        self._whose = whose
        self._stopped_ns = stopped_ns
        self.counts = Counts()
        self.reload()

    def reload(self) -> None:
        """Forget everything and go to where the chain ends."""
        state = self.chain.load()
        self.position = self._committed = state.frontier
        self._arrival_ns, self._end, self._until_ns = 0, -1, 0
        self._due = _Due()
        self._notes = dict(state.notes)
        found = [stored.unpack(stream, value, self._stopped_ns) for stream, value in state.streams.items()]
        kept = [each.followed for each in found]
        self._machines = {Who(*each.name): each for each in kept if isinstance(each, Machine)}
        self._vms = {each.name: each for each in kept if isinstance(each, Vm)}
        self.cases = {case.incident.id: case for each in found for case in each.cases}
        self._keys: dict[Who, dict[str, None]] = {}  # of the cases of each machine, the oldest first
        for key, case in self.cases.items():
            self._keys.setdefault(_machine_of(case), {})[key] = None

    @property
    def uncommitted(self) -> int:
        """How many offsets wait for a commit."""
        return self.position - self._committed

    @property
    def changed(self) -> bool:
        """Whether a case waits for a commit."""
        return bool(self._due.cases)

    @property
    def urgent(self) -> bool:
        """Whether a commit is due at once."""
        return self._due.urgent

    @property
    def watched(self) -> set[tuple[str, str]]:
        """The machines (machine, layer) with an incident that has not ended."""
        going = (case for case in self.cases.values() if case.ended_ns is None and not case.incident.vm)
        return {(case.incident.source.machine, case.incident.source.layer) for case in going}

    @property
    def arrival_ns(self) -> int:
        """The append time of the newest message that was taken."""
        return self._arrival_ns

    def catch_up(self, end: int, until_ns: int) -> None:
        """Take that the log ended at `end` when the partition was taken over; `until_ns` is when to wait no longer."""
        self._end, self._until_ns = end, until_ns

    def untold(self, urls: Collection[str]) -> list[Case]:
        """Return the cases that have ended, or of which not all `urls` know that they are open."""
        found = self.cases.values()
        return [case for case in found if case.ended_ns is not None or not case.opened_by.issuperset(urls)]

    def caught_up(self, now_ns: int) -> list[Case]:
        """Return all cases, once, when the log is read so far: of what was open an end may have been told already."""
        if self._end < 0 or (self.position < self._end and now_ns < self._until_ns):
            return []
        self._end = -1
        return [*self.cases.values()]

    def add(self, messages: list[Message]) -> list[Case]:
        """Take `messages`, which continue at `position`; return the cases that changed, each once."""
        changed: dict[str, Case] = {}
        for message in messages:
            if message.offset < self.position:
                continue
            self.position = message.offset + 1
            self._arrival_ns = max(self._arrival_ns, message.ts_ns)
            self.counts.messages += 1
            changed |= {case.incident.id: case for case in self._add(message)}
        return list(changed.values())

    def overtaken(self, start: int) -> None:
        """Take that retention deleted what lies before offset `start`: the collector books it, here nobody read it."""
        log.error(
            "%s: retention deleted offsets %d to %d unread; incidents in them are missed",
            self.partition, self.position, start - 1,
        )  # fmt: skip
        self.counts.offsets_lost += start - self.position
        self.position = start

    def alive(self, sign: Sign) -> list[Case]:
        """Take a sign of life, which came by another topic; return the cases that changed."""
        who = Who(sign.machine, sign.layer)
        machine = self._machines.get(who)
        if machine is None:
            return []
        return [self._note(who, incident, sign.arrival_ns) for incident in machine.alive(sign)]

    def joined(self, key: str, other: str) -> Case | None:
        """Take that the case `key` of a VM is part of `other`, its guest's own; return it if that is news."""
        case = self.cases.get(key)
        vm = None if case is None else self._vms.get(_machine_of(case))
        incident = None if vm is None else vm.joined(key, other)
        return None if vm is None or incident is None else self._note(vm.name, incident, self._arrival_ns)

    def panicked(self, key: str) -> Case | None:
        """Take that a host told of a panic, which belongs to case `key`; return it if that is news."""
        case = self.cases.get(key)
        machine = None if case is None else self._machines.get(_machine_of(case))
        if case is None or machine is None:
            return None
        found = machine.panicked(key)
        return self._note(_machine_of(case), found[0], case.changed_ns) if found else None

    def judged(self, key: str, verdict: Verdict) -> Case | None:
        """Take a verdict about case `key`; return the case if it is there and that is news."""
        case = self.cases.get(key)
        if case is None or not case.judged(verdict):
            return None
        self._touch(case, urgent=True)
        return case

    def told(self, key: str, who: str, *, ended: bool) -> None:
        """Take that the Alertmanager `who` took case `key`, as open or (`ended`) its end."""
        case = self.cases.get(key)
        if case is not None:
            (case.ended_by if ended else case.opened_by).add(who)
            self._due.machines.add(_machine_of(case))
            self._due.urgent = True

    def close(self, key: str) -> bool:
        """Drop case `key` if nothing more can come of it, which has been told; its rows stay. Not beside a commit."""
        case = self.cases[key]
        who = _machine_of(case)
        if key in self._due.cases or self._holds(who, key):
            return False
        self._drop(key)
        self._due.machines.add(who)
        return True

    def batch(self) -> Batch | None:
        """Return what a commit is to hold now, None where the log has not gone on: then what changed waits.

        What it holds counts as committed until `failed` says otherwise.
        """
        if not self.uncommitted:
            return None
        due, self._due = self._due, _Due()
        rows = []
        for key in sorted(due.cases & self.cases.keys()):
            case = self.cases[key]
            case.version += 1
            rows.append(_settled(case.row(self.partition, self.position - 1, max(self._arrival_ns, case.changed_ns))))
        streams = {
            Stream(name.machine, "", name.layer, _NAME, name.vm, ""): stored.pack(
                self._followed(name), self._cases_of(name)
            )
            for name in due.machines
        }
        batch = Batch(
            self._committed, self.position, rows, streams, self._notes, frozenset(due.cases), frozenset(due.machines)
        )
        self._committed = self.position
        return batch

    def failed(self, batch: Batch) -> None:
        """Take that `batch` was not committed: it is to be done again, with what came since."""
        self._committed = batch.start
        self._due.cases |= batch.cases
        self._due.machines |= batch.machines
        self._due.urgent = True

    def _add(self, message: Message) -> Iterator[Case]:
        try:
            # Of most that states of machines say, nothing is an incident.
            if self.partition.topic != TOPIC_LOG:
                stream = decode_tags(message.value).stream
                if stream.surface == MONITOR and stream.layer == Layer.VIRTUAL_PLATFORM and stream.instance:
                    yield from self._of_vm(decode(message.value), message.ts_ns)
                return
            frame = decode(message.value)
            if frame.stream.surface != SURFACE:
                return
            name = Who(frame.stream.machine, frame.stream.layer)
            machine = self._machines.get(name) or self._new(name)
            if machine is None:
                return
            before = machine.parsed, machine.skipped, machine.near_misses, machine.exceeded
            found = machine.feed(frame, message.ts_ns)
        except BadInputError:
            self.counts.unreadable += 1  # a dead letter for the collector
            return
        self.counts.parsed += machine.parsed - before[0]
        self.counts.skipped += machine.skipped - before[1]
        self.counts.near_misses += machine.near_misses - before[2]
        if machine.exceeded and not before[3]:
            log.error(
                "%s: machine %s (%s) prints more lines like reports than are read of one; the others are left out",
                self.partition, *name[:2],
            )  # fmt: skip
        self._due.machines.add(name)
        yield from self._noted(name, [*found, *(self._orphans(machine) if machine.rebooted else ())], message.ts_ns)

    def _of_vm(self, frame: Frame, arrival_ns: int) -> Iterator[Case]:
        name = Who(frame.stream.machine, frame.stream.layer, frame.stream.instance)
        vm = self._vms.get(name)
        if vm is None:
            if self._full():
                return
            vm = self._vms[name] = Vm(name, self._stopped_ns)
        found = vm.feed(frame)
        self._due.machines.add(name)
        yield from self._noted(name, found, arrival_ns)

    def _noted(self, name: Who, found: list[Incident], arrival_ns: int) -> Iterator[Case]:
        for incident in found:
            gone = None if incident.id in self.cases else self._displaced(name)
            if gone is not None:
                yield self._note(name, gone, arrival_ns)
            yield self._note(name, incident, arrival_ns)

    # What was silent for so long that its assembly has forgotten it: a reboot ends that, too.
    def _orphans(self, machine: Machine) -> Iterator[Incident]:
        for case in self._cases_of(Who(*machine.name)):
            incident = case.incident
            if incident.state is not State.ENDED and not machine.holds(incident.id):
                incident.state, incident.ended_by = State.ENDED, "reboot"
                incident.version += 1
                yield incident

    def _new(self, name: Who) -> Machine | None:
        return None if self._full() else self._machines.setdefault(name, Machine(name.machine, name.layer))

    def _full(self) -> bool:
        if len(self._machines) + len(self._vms) < MACHINES_MAX:
            return False
        if not self.counts.left_out:
            log.error("%s: more than %d machines, the others are not followed", self.partition, MACHINES_MAX)
        self.counts.left_out += 1
        return True

    def _holds(self, name: Who, key: str) -> bool:
        return self._followed(name).holds(key)

    def _followed(self, name: Who) -> Machine | Vm:
        return self._vms[name] if name.vm else self._machines[name]

    def _note(self, name: Who, incident: Incident, arrival_ns: int) -> Case:
        case = self.cases.get(incident.id)
        if case is None:
            self._make_room()
            whose = Whose(name.vm, name.machine) if name.vm else self._whose(name.machine)
            case = Case(incident, whose, arrival_ns, arrival_ns)
            self.cases[incident.id] = case
            self._keys.setdefault(name, {})[incident.id] = None
            self.counts.opened += 1
            self._due.urgent = True
        before = case.ended_ns
        case.note(incident, arrival_ns)
        self._touch(case, urgent=case.ended_ns != before)
        return case

    # A machine has few at a time. The oldest of which nothing more can be heard ends, and that is told; where nobody
    # takes ends for long, the oldest end is not told.
    def _displaced(self, name: Who) -> Incident | None:
        cases = self._cases_of(name)
        if len(cases) < MACHINE_CASES_MAX:
            return None
        over = (case for case in cases if case.incident.state is State.ENDED)
        ended = [case for case in over if not self._holds(name, case.incident.id)]
        if len(ended) >= MACHINE_CASES_MAX:
            key = ended[0].incident.id
            log.error("%s: the end of incident %s is not told: its machine has too many", self.partition, key)
            self._drop(key)
        going = (case.incident for case in cases if case.incident.state is not State.ENDED)
        incident = next((each for each in going if not self._holds(name, each.id)), None)
        if incident is not None:
            incident.state, incident.ended_by = State.ENDED, DISPLACED
            incident.version += 1
        return incident

    # The oldest that has ended goes: nobody took its end for long.
    def _make_room(self) -> None:
        if len(self.cases) < CASES_MAX:
            return
        key = next((key for key, case in self.cases.items() if case.incident.state is State.ENDED), None)
        if key is not None:
            log.error("%s: more than %d cases, the end of incident %s is not told", self.partition, CASES_MAX, key)
            self._drop(key)

    def _cases_of(self, name: Who) -> list[Case]:
        return [self.cases[key] for key in self._keys.get(name, ())]

    def _drop(self, key: str) -> None:
        name = _machine_of(self.cases.pop(key))
        self._keys[name].pop(key)
        if not self._keys[name]:
            del self._keys[name]

    def _touch(self, case: Case, *, urgent: bool) -> None:
        self._due.cases.add(case.incident.id)
        self._due.machines.add(_machine_of(case))
        self._due.urgent |= urgent


def chain_of(reader: LogReader, storage: Storage, partition: Partition) -> Chain:
    """Return the alerter's own chain of `partition` of the log of `reader`; raises as the collector's."""
    return chains.chain_of(reader, storage, partition, ALERTS)


# What is written meanwhile by another thread must not change with its incident.
def _settled(value: dict[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(value))
    return copy


def _machine_of(case: Case) -> Who:
    return Who(case.incident.source.machine, case.incident.source.layer, case.incident.vm)
