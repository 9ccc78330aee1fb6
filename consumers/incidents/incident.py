"""An incident as everybody passes it on: the assembly makes it, the verdict judges it, alerts and pages show it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from consumers.reports.report import Kind, Report, Seconds


class State(StrEnum):
    """Whether it goes on. Silence ends nothing: after three times its re-report interval it is `stale`."""

    OPEN = "open"
    STALE = "stale"
    ENDED = "ended"


class StartLine(NamedTuple):
    """One start line or re-report."""

    place: int
    kind: Kind


class Source(NamedTuple):
    """Whose kernel log it is; all empty for a file whose machine nobody knows."""

    machine: str
    boot_id: str
    layer: str


@dataclass(slots=True)
class Incident:
    """One failure of one boot of one machine; of the VM `vm` where records of its host tell of it, and no kernel's log.

    `id` follows from the source and the first record, so a replay gives the same. `kind` is the root's, which is the
    report whose stall began first; `first_kind` that of the first line, which never changes. `since_ns` and `until_ns`
    are when it began (the first report less its length) and the newest record, on printk's clock; of a `vm` on its
    host's CLOCK_BOOTTIME. `lengths` has every length that is known by what told it, `duration` is the one of
    `duration_from`. `ended_by` is `end-line`, `progress` (`proof` names the record that showed it, where one did),
    `reboot`, `shutdown` (of a VM), `displaced` (more incidents of its machine came than are followed), empty, or
    `joined`: more lines showed it to be part of the incident whose id is `joined`. `skipped` counts records of its log
    that nobody read while it was open, because more came than are read of one machine: lines of its own may be among
    them, so it is `corrupted` too. `version` grows with each change.
    """

    id: str
    source: Source
    kind: Kind
    first_kind: Kind
    first_place: int
    last_place: int
    since_ns: int | None
    until_ns: int | None
    duration: Seconds | None
    duration_from: str
    cpus: tuple[int, ...]
    task: str | None
    pid: int | None
    victims: tuple[str, ...]
    root: Report
    reports: list[Report] = field(default_factory=list)
    dropped_reports: int = 0
    start_lines: list[StartLine] = field(default_factory=list)
    dropped_start_lines: int = 0
    panicked: bool = False
    structured: bool = True
    corrupted: bool = False
    skipped: int = 0
    state: State = State.OPEN
    ended_by: str = ""
    joined: str = ""
    vm: str = ""
    proof: str = ""
    lengths: dict[str, Seconds] = field(default_factory=dict)
    version: int = 1
