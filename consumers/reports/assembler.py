"""Lines of one boot's kernel log to reports: CPUs printing at once, heads overwritten, tails lost, everything twice.

A body line belongs to a report by who printed it (the caller that CONFIG_PRINTK_CALLER adds), else by the CPU that it
names, else by standing right behind it. Kernel time decides what is near, never arrival; it may step back between CPUs.
All state is bounded, and is JSON values for whoever must go on elsewhere.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

from consumers.reports import body, codec, jiffies, opened, remembered
from consumers.reports.belonging import can_end, can_have, ended_by, outlived, touch, waits
from consumers.reports.grammar import Match, match
from consumers.reports.grammar_row import Role
from consumers.reports.opened import Opened
from consumers.reports.report import Kind, Line, Report

S: Final = 10**9
#: A report is over after so much quiet in kernel time; while a CPU owes a backtrace it was asked for, after so much.
QUIET_NS: Final = 2 * S
AWAITED_NS: Final = 30 * S
#: What stands behind a report's line at most so far is still its body.
ADJACENT_NS: Final = 1 * S
ADJACENT_LINES_MAX: Final = 200
#: Further back than printk's clocks may stand on different CPUs: its time is no measure of the quiet then.
FALL_NS: Final = 90 * S
#: Lines that no row knows, kept behind one that a row does know.
UNKNOWN_RUN_MAX: Final = 4
#: Lines of one record that are looked at behind its first; no kernel prints more than one.
MORE_LINES_MAX: Final = 4
#: Reports open at a time; the oldest is closed for another.
OPEN_MAX: Final = 16
#: Closed reports for which the kernel prints an end, and how long one is waited for.
ENDING_MAX: Final = 4
ENDING_NS: Final = 600 * S
#: How long before a report context still is its context.
CONTEXT_NS: Final = 60 * S
#: Callers of one report: the one that began it, and CPUs that answered it.
CALLERS_MAX: Final = 64
_LATE_ENDS: Final = (Kind.CSD_STALL, Kind.HARD_LOCKUP)


class Change(NamedTuple):
    """What became of a report. `opened` comes with its start line, `updated` at most once per call, `closed` once."""

    what: Literal["opened", "updated", "closed"]
    report: Report


class ReportAssembler:
    """Assembles the lines of one boot of one machine; give another boot's to another. Does no input itself.

    `hz` is the guest's, where its configuration is known. `near_misses` counts lines that look like a report and are
    in no row of the grammar; `opened_in_excess` reports that were closed early because `OPEN_MAX` were open.
    """

    def __init__(self, hz: int | None = None) -> None:
        self.hz = hz
        self.near_misses = 0
        self.opened_in_excess = 0
        self._open: list[Opened] = []  # oldest first
        self._current: Opened | None = None
        self._ending: list[Report] = []
        self._seen = remembered.Seen()
        self._stalls: dict[str, tuple[int, int]] = {}  # of a grace period: jiffies and time of its newest report
        self._release = ""
        self._recent: deque[Line] = deque(maxlen=opened.NOTES_MAX)
        self._place = 0

    @property
    def open_reports(self) -> tuple[Report, ...]:
        """The reports that are open, or may be one, oldest first; after `restore` these are new objects."""
        return tuple(each.report for each in self._open)

    def feed(self, lines: Iterable[Line]) -> list[Change]:
        """Take the next lines in the order of the log and return what changed; each report is changed in place."""
        changes: list[Change] = []
        touched: dict[int, Report] = {}
        for line in lines:
            self._take(line, changes, touched)
        done = {id(change.report) for change in changes}
        changes += [Change("updated", report) for key, report in touched.items() if key not in done]
        return changes

    def tick(self, now_ns: int) -> list[Change]:
        """Say that kernel time is now `now_ns`, without a line; closes what has been quiet for too long."""
        changes: list[Change] = []
        self._close_quiet(now_ns, changes)
        self._ending = [each for each in self._ending if now_ns - (each.last_ts_ns or now_ns) < ENDING_NS]
        if not self._open:
            self._seen.forget_lines()
        while self._recent and now_ns - (self._recent[0].ts_ns or now_ns) > CONTEXT_NS:
            self._recent.popleft()
        return changes

    def close(self) -> list[Change]:
        """Close all reports: the log ends here."""
        changes: list[Change] = []
        for each in list(self._open):
            self._close(each, changes)
        return changes

    def state(self) -> dict[str, Any]:
        """Return all of this as JSON values."""
        return {
            "hz": self.hz,
            "near_misses": self.near_misses,
            "opened_in_excess": self.opened_in_excess,
            "open": [remembered.opened_to_json(each) for each in self._open],
            "current": next((i for i, each in enumerate(self._open) if each is self._current), None),
            "ending": [codec.to_json(each) for each in self._ending],
            "seen": self._seen.to_json(),
            "stalls": {key: list(value) for key, value in self._stalls.items()},
            "release": self._release,
            "recent": [list(line) for line in self._recent],
            "place": self._place,
            "context": [],  # as is the next: earlier programs want them
            "near": [],
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "ReportAssembler":
        """Return the assembler that `state` was taken of; its reports are new objects."""
        self = cls(state["hz"])
        self.near_misses, self.opened_in_excess = state["near_misses"], state["opened_in_excess"]
        self._open = [remembered.opened_from_json(each) for each in state["open"]]
        self._current = None if state["current"] is None else self._open[state["current"]]
        self._ending = [codec.from_json(each) for each in state["ending"]]
        self._seen = remembered.Seen.from_json(state["seen"])
        self._stalls = {key: (length, ts_ns) for key, (length, ts_ns) in state["stalls"].items()}
        self._release, self._place = state["release"], state["place"]
        self._recent.extend(Line(*each) for each in state["recent"])
        return self

    def _take(self, line: Line, changes: list[Change], touched: dict[int, Report]) -> None:
        found = match(line)
        opens = found is not None and found.row.role in (Role.START, Role.TAIL)
        if (opens or self._open) and self._seen.again(line, opens=opens):
            return
        if line.ts_ns is not None:
            self._close_quiet(line.ts_ns, changes)
        self._pass(line, changes)
        if found is not None and found.rest:
            line = line._replace(text=line.text.partition("\n")[0])
        self._take_as(found, line, changes, touched)
        for text in found.rest.split("\n", MORE_LINES_MAX)[:MORE_LINES_MAX] if found is not None else ():
            self._more(line._replace(text=text), changes, touched)

    def _take_as(self, found: Match | None, line: Line, changes: list[Change], touched: dict[int, Report]) -> None:
        if found is None:
            self._attach_unknown(line, touched)
        elif found.row.role is Role.START:
            self._begin(found, line, changes)
        elif found.row.role is Role.FATAL:
            self._die(found, line, touched)
        elif found.row.role in (Role.CONTEXT, Role.SILENCE):
            self._beside(line, touched)
        elif found.row.role is Role.BOOT:
            self._boot(found)
        elif found.row.role is Role.NEAR:
            self.near_misses += 1
        elif found.row.role is Role.LOSS:
            self._lose(found, line, touched)
        else:
            self._body(found, line, changes, touched)

    # A further line of a record whose first is a row: body of what is open, and never more.
    def _more(self, line: Line, changes: list[Change], touched: dict[int, Report]) -> None:
        found = match(line)
        if found is not None and found.row.role is Role.BODY:
            self._body(found, line, changes, touched)
        elif line.text:
            self._attach_unknown(line, touched)

    # Every open report sees the log go by.
    def _pass(self, line: Line, changes: list[Change]) -> None:
        gap = line.structured and self._place and line.place > self._place + 1
        self._place = max(self._place, line.place) if line.structured else 0
        for each in list(self._open):
            each.passed += 1
            each.gapped = each.gapped or bool(gap)
            ahead = line.ts_ns is None or each.heard_ns is None or each.heard_ns > line.ts_ns + FALL_NS
            if each.passed > ADJACENT_LINES_MAX and ahead:
                self._close(each, changes)

    def _begin(self, found: Match, line: Line, changes: list[Change]) -> None:
        new = body.begin(found, line)
        dying = self._dying(new, line)
        if dying is not None:
            dying.row, dying.report.corrupted = new.row, new.report.corrupted
            self._current = dying
            self._apply(dying, found, line)
            changes.append(Change("opened", dying.report))
            return
        heir = self._panicked(new, line)
        for each in list(self._open):
            if each is not heir and ended_by(each, new, line.caller):
                self._close(each, changes)
        while len(self._open) >= OPEN_MAX:
            self.opened_in_excess += 1
            self._close(self._open[0], changes)
        self._add(new, found, line)
        self._current = heir or new
        changes.append(Change("opened", new.report))

    def _add(self, new: Opened, found: Match, line: Line) -> None:
        new.report.release = self._release
        self._open.append(new)
        for context in self._recent:
            if line.ts_ns is not None and context.ts_ns is not None and abs(line.ts_ns - context.ts_ns) <= CONTEXT_NS:
                new.note(context.text.strip())
        self._apply(new, found, line)

    # Nothing that is open is closed for what most kernels live on after.
    def _die(self, found: Match, line: Line, touched: dict[int, Report]) -> None:
        for each in [each for each in self._open if outlived(each, line)]:
            self._close(each, [])
        target = self._target(found, line)
        if target is not None:
            self._attach(target, found, line, touched)
        elif len(self._open) < OPEN_MAX:
            self._current = body.begin(found, line)
            self._add(self._current, found, line)

    # What the kernel said, before it panicked, of why.
    def _dying(self, new: Opened, line: Line) -> Opened | None:
        if new.report.kind is not Kind.PANIC:
            return None
        fitting = (each for each in self._open if not line.caller or not each.callers or line.caller in each.callers)
        return next(filter(waits, fitting), None)

    # A kernel that panics at a lockup says so before it dumps the stack, which is the lockup's.
    def _panicked(self, new: Opened, line: Line) -> Opened | None:
        if new.report.kind is not Kind.PANIC:
            return None
        for each in reversed(self._open):
            if not each.stack and (line.caller in each.callers if line.caller else self._adjacent(line) is each):
                new.callers.clear()
                return each
        return None

    def _body(self, found: Match, line: Line, changes: list[Change], touched: dict[int, Report]) -> None:
        if found.row.role is Role.END and self._end(found, line, touched):
            return
        target = self._target(found, line)
        tail = found.row.role is Role.TAIL
        if target is not None and not (tail and waits(target)):
            self._attach(target, found, line, touched)
        elif tail and not self._spare(found, line):
            self._begin(found, line, changes)

    # Whether the report that a tail could be of has one already: two of a kind that printed into each other.
    def _spare(self, found: Match, line: Line) -> bool:
        near = self._adjacent(line._replace(caller=""))
        return near is not None and near.report.kind is found.row.kind

    def _attach(self, target: Opened, found: Match, line: Line, touched: dict[int, Report]) -> None:
        if line.caller and line.caller not in target.callers and len(target.callers) < CALLERS_MAX:
            target.callers.append(line.caller)
        self._current = target
        self._apply(target, found, line)
        touch(target, touched)

    def _apply(self, target: Opened, found: Match, line: Line) -> None:
        body.apply(target, found, line, self.hz)
        report = target.report
        if report.kind is Kind.RCU_STALL and "jiffies" in found.groups and line.ts_ns is not None:
            self._learn(report, report.numbers.get("jiffies"), line.ts_ns)
            body.measure(target, self.hz)

    # Two reports of one stall, each its length in jiffies and its time, say how many jiffies a second has.
    def _learn(self, report: Report, length: int | None, ts_ns: int) -> None:
        grace_period = report.numbers.get("gp")
        if length is None or grace_period is None:
            return
        key = f"{report.flavor} {grace_period}"
        before = self._stalls.pop(key, None)
        self._stalls[key] = (length, ts_ns)
        if len(self._stalls) > ENDING_MAX:
            self._stalls.pop(next(iter(self._stalls)))
        if before is not None and self.hz is None:
            self.hz = jiffies.hz_from_two(before[0], before[1], length, ts_ns)

    def _target(self, found: Match, line: Line) -> Opened | None:
        cpu = opened.number(found.groups.get("cpu"))
        # An accused task's own stack, whoever prints it; else the caller; else the CPU that is named.
        if found.row.name == "holder":
            waiter, newest = opened.number(found.groups.get("waiter_pid")), self._fitting(found)
            return next((each for each in newest if each.report.pid == waiter), newest[0] if newest else None)
        if line.caller:
            for each in reversed(self._open):
                if line.caller in each.callers and can_have(each, found):
                    return each
            cpu = int(line.caller[1:]) if cpu is None and line.caller[:1] == "C" and line.caller[1:].isdigit() else cpu
        if cpu is not None:
            for each in self._fitting(found):
                if cpu in each.awaited or cpu in each.report.cpus:
                    return each
        if found.row.kind is not None:
            return next(iter(self._fitting(found)), None)
        return self._adjacent(line)

    # The newest first.
    def _fitting(self, found: Match) -> list[Opened]:
        return [each for each in reversed(self._open) if can_have(each, found)]

    # What stands right behind the newest report; a caller that is not its own is another's.
    def _adjacent(self, line: Line) -> Opened | None:
        each = self._current
        if each is None or (line.caller and each.callers) or each.passed > ADJACENT_LINES_MAX:
            return None
        if line.ts_ns is not None and each.heard_ns is not None and line.ts_ns - each.heard_ns > ADJACENT_NS:
            return None
        return each

    def _attach_unknown(self, line: Line, touched: dict[int, Report]) -> None:
        if not self._open:
            return
        target = next((each for each in reversed(self._open) if line.caller and line.caller in each.callers), None)
        target = target or self._adjacent(line)
        if target is not None and target.passed <= UNKNOWN_RUN_MAX:
            body.apply(target, None, line, self.hz)
            touch(target, touched)

    def _beside(self, line: Line, touched: dict[int, Report]) -> None:
        line = opened.note_of(line)
        self._recent.append(line)
        for each in self._open:
            each.note(line.text.strip())
            touch(each, touched)

    def _boot(self, found: Match) -> None:
        self._release = opened.clipped(found.groups.get("release", self._release), opened.NAME_SIZE_MAX)
        lpj = opened.number(found.groups.get("lpj"))
        if lpj is not None and self.hz is None:
            self.hz = jiffies.hz_from_lpj(float(found.groups["bogomips"]), lpj)

    def _lose(self, found: Match, line: Line, touched: dict[int, Report]) -> None:
        target = self._adjacent(line._replace(caller=""))
        if target is not None:
            target.report.corrupted = True
            numbers = target.report.numbers
            numbers["lost"] = numbers.get("lost", 0) + (opened.number(found.groups["lost"]) or 0)
            body.apply(target, None, line, self.hz)
            touch(target, touched)

    # The end of a report that was closed long ago.
    def _end(self, found: Match, line: Line, touched: dict[int, Report]) -> bool:
        lock, cpu = (opened.number(found.groups.get(key)) for key in ("csd_lock", "cpu"))
        for report in reversed(self._ending):
            same = report.numbers.get("csd_lock") == lock if lock is not None else cpu in report.cpus
            if report.kind is found.row.kind and same and not any(can_end(each, found) for each in self._open):
                report.ended = True
                report.last_place, report.last_ts_ns = max(report.last_place, line.place), line.ts_ns
                self._ending.remove(report)
                touched[id(report)] = report
                return True
        return False

    def _close_quiet(self, now_ns: int, changes: list[Change]) -> None:
        for each in list(self._open):
            quiet_ns = AWAITED_NS if each.awaited else QUIET_NS
            if each.heard_ns is not None and now_ns - each.heard_ns > quiet_ns:
                self._close(each, changes)

    def _close(self, each: Opened, changes: list[Change]) -> None:
        body.finish(each)
        self._open.remove(each)
        if self._current is each:
            self._current = None
        if each.report.kind in _LATE_ENDS and not each.report.ended:
            self._ending = [*self._ending, each.report][-ENDING_MAX:]
        if not waits(each):
            changes.append(Change("closed", each.report))
