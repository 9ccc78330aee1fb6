"""The alerter's metrics: incidents by kind and owner, pages, what goes wrong on their way, and that it lives at all."""

import time
from collections.abc import Iterable, Mapping
from typing import Final

from consumers.reports.report import Kind
from consumers.verdict.verdict import Owner
from schemas.command_line import version
from schemas.metrics import OTHER, Counts, Family, Histogram, Type, Values, expose

_WHOSE: Final = ("kind", "owner")
_COUNTER, _GAUGE = Type.COUNTER, Type.GAUGE
_KINDS, _OWNERS = frozenset(Kind), frozenset(Owner)
_VERDICT_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

BUILD = Family("hypocenter_alert_build_info", _GAUGE, "Always 1; the version is in the label.", ("version",))
START = Family("hypocenter_alert_start_time_seconds", _GAUGE, "When the alerter started, Unix time.")
POLL = Family("hypocenter_alert_poll_timestamp_seconds", _GAUGE, "When it last read the log, Unix time.")
TARGETS = Family("hypocenter_alert_targets", _GAUGE, "Receivers that are told of incidents; 0: nobody is paged.")
OPENED = Family("hypocenter_alert_incidents_total", _COUNTER, "Incidents opened, with the owner first named.", _WHOSE)
OPEN = Family("hypocenter_alert_incidents_open", _GAUGE, "Incidents that go on, with the owner named now.", _WHOSE)
PAGES = Family("hypocenter_alert_pages_total", _COUNTER, "Pages that a receiver took.", ("target",))
DELIVERY_ERRORS = Family(
    "hypocenter_alert_delivery_errors_total", _COUNTER, "Pages not taken; they wait and are sent again.", ("target",)
)
QUEUE = Family("hypocenter_alert_queue_length", _GAUGE, "Pages that wait to be sent.")
VERDICT_S = Family("hypocenter_alert_verdict_seconds", Type.HISTOGRAM, "How long a verdict took.")
NEAR_MISSES = Family(
    "hypocenter_alert_near_misses_total", _COUNTER, "Lines like those of a report, in words that the grammar lacks."
)
SKIPPED = Family(
    "hypocenter_alert_skipped_records_total",
    _COUNTER,
    "Records left out: their machine prints more than is read of one.",
)

FAMILIES: Final = tuple(each for each in dict(vars()).values() if isinstance(each, Family))


class AlertMetrics:
    """Counts for the alerter's loop, one thread; give `text` to `schemas.metrics_http.serve`.

    `targets` are the receivers of pages: each counts from 0 on, because the first error is no increase otherwise.
    """

    def __init__(self, targets: Iterable[str] = ()) -> None:
        self._start_s = time.time()
        self._poll_ns: int | None = None
        targets = frozenset(targets)
        self._targets = len(targets)
        self._counts = {family: Counts() for family in (OPENED, PAGES, DELIVERY_ERRORS)}
        for target in targets:
            self._counts[PAGES].add((target,), 0)
            self._counts[DELIVERY_ERRORS].add((target,), 0)
        self._open: Values = {}
        self._queue = self._near_misses = self._skipped = 0
        self._verdict_s = Histogram(_VERDICT_S)
        self._version: str | None = None

    def polled(self, realtime_ns: int) -> None:
        """Enter that the log was read, also where nothing new was in it: rules for a dead alerter go by this."""
        self._poll_ns = realtime_ns

    def opened(self, kind: str, owner: str) -> None:
        """Enter an incident."""
        self._counts[OPENED].add(_whose(kind, owner))

    def now_open(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Enter how many incidents go on, by kind and owner; what is not in `counts` is none."""
        found = Counts()
        for (kind, owner), count in counts.items():
            found.add(_whose(kind, owner), count)
        self._open = found.taken()

    def paged(self, target: str) -> None:
        """Enter that the receiver `target`, as the configuration calls it, took a page."""
        self._counts[PAGES].add((target,))

    def not_paged(self, target: str) -> None:
        """Enter that it did not."""
        self._counts[DELIVERY_ERRORS].add((target,))

    def queued(self, count: int) -> None:
        """Enter how many pages wait."""
        self._queue = count

    def judged(self, seconds: float) -> None:
        """Enter how long a verdict took."""
        self._verdict_s.observe(seconds)

    def near_miss(self, count: int = 1) -> None:
        """Enter lines that look like a report's, and are none that the grammar knows."""
        self._near_misses += count

    def skipped(self, count: int) -> None:
        """Enter records that were left out, because their machine printed more than is read of one."""
        self._skipped += count

    def text(self) -> bytes:
        """Return all of it, as it is now; from any thread."""
        if self._version is None:
            self._version = version() or "unknown"
        return expose(self._values())

    def _values(self) -> Iterable[tuple[Family, float | Values | Histogram | None]]:
        yield BUILD, {(self._version or "",): 1}
        yield START, self._start_s
        yield POLL, None if self._poll_ns is None else self._poll_ns / 1e9
        yield TARGETS, self._targets
        yield OPEN, self._open
        for family, counts in self._counts.items():
            yield family, counts.taken()
        yield QUEUE, self._queue
        yield VERDICT_S, self._verdict_s
        yield NEAR_MISSES, self._near_misses
        yield SKIPPED, self._skipped


def _whose(kind: str, owner: str) -> tuple[str, str]:
    return (kind if kind in _KINDS else OTHER, owner if owner in _OWNERS else OTHER)
