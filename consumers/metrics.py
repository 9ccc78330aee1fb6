"""The collector's metrics: how far behind it is, and what its commits held; sums are of commits that stand.

What a guest can name is bounded: a surface or a kind of loss is one that this program knows, else `other`; of tables
and reasons the first `LABEL_SETS_MAX` are told apart.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from consumers.collector import Committed
from consumers.lake.rows import LossRow
from consumers.transport.base import Partition
from schemas.command_line import version
from schemas.loss import LossKind, LossUnit
from schemas.metrics import OTHER, Counts, Family, Histogram, Type, Values, expose
from schemas.surfaces import SURFACES

_LOSS: Final = ("surface", "kind", "reason")
_PARTITION: Final = ("topic", "partition")
_COUNTER, _GAUGE = Type.COUNTER, Type.GAUGE
_KINDS: Final = frozenset(LossKind)
_COMMIT_S: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

BUILD = Family("hypocenter_collector_build_info", _GAUGE, "Always 1; the version is in the label.", ("version",))
START = Family("hypocenter_collector_start_time_seconds", _GAUGE, "When the collector started, Unix time.")
LOOP = Family("hypocenter_collector_loop_timestamp_seconds", _GAUGE, "When its loop last began a step, Unix time.")
LAG_OFFSETS = Family(
    "hypocenter_collector_lag_offsets", _GAUGE, "Messages of the log that are in no commit yet.", _PARTITION
)
LAG_S = Family(
    "hypocenter_collector_lag_seconds",
    _GAUGE,
    "How old the oldest message is that was read and is in no commit; 0 when none is.",
    _PARTITION,
)
BUFFERED = Family(
    "hypocenter_collector_buffered_bytes",
    _GAUGE,
    "Bytes in memory that wait for a commit: of frame bodies, and 1 KiB for each loss and dead letter.",
)
OFFSETS = Family("hypocenter_collector_offsets_total", _COUNTER, "Messages of the log that are in a commit.")
ROWS = Family("hypocenter_collector_rows_total", _COUNTER, "Rows committed.", ("table",))
COMMITS = Family("hypocenter_collector_commits_total", _COUNTER, "Commits made.")
COMMIT_S = Family("hypocenter_collector_commit_seconds", Type.HISTOGRAM, "How long a commit took, with its decoding.")
COMMITTED_AT = Family("hypocenter_collector_commit_timestamp_seconds", _GAUGE, "When the last one was made, Unix time.")
FAILURES = Family("hypocenter_collector_commit_failures_total", _COUNTER, "Commits that failed; all are tried again.")
RIVALS = Family("hypocenter_collector_commits_lost_total", _COUNTER, "Commits that another collector made first.")
ERRORS = Family(
    "hypocenter_collector_errors_total",
    _COUNTER,
    "Times that the disk refused or the log did not answer; both are waited out.",
    ("what",),
)
LOST_POSITIONS = Family("hypocenter_collector_lost_positions_total", _COUNTER, "Positions lost, as rows say.", _LOSS)
LOST_EVENTS = Family("hypocenter_collector_lost_events_total", _COUNTER, "Events without a position lost.", _LOSS)
UNKNOWN_LOSSES = Family("hypocenter_collector_unknown_losses_total", _COUNTER, "Losses of an unknown number.", _LOSS)
LOST_OFFSETS = Family(
    "hypocenter_collector_lost_offsets_total", _COUNTER, "Messages missing in the log, whosever they were.", ("kind",)
)
DUPLICATES = Family("hypocenter_collector_duplicates_total", _COUNTER, "Positions that came again, and were dropped.")
DEAD = Family("hypocenter_collector_dead_letters_total", _COUNTER, "Inputs that nobody could read.", ("reason",))
UNBALANCED = Family("hypocenter_collector_unbalanced_books", _GAUGE, "Streams whose book does not close.")

FAMILIES: Final = tuple(each for each in dict(vars()).values() if isinstance(each, Family))


class Lag(NamedTuple):
    """How far a partition is behind: offsets, None while its end is not known, and the oldest buffered arrival."""

    partition: Partition
    offsets: int | None
    oldest_arrival_ns: int | None
    buffered_bytes: int
    unbalanced: int


class CollectorMetrics:
    """Counts for the collector's loop; `text` is asked for by the server's thread."""

    def __init__(self) -> None:
        #: How far each partition is behind, by whoever follows them.
        self.lags: Callable[[], Iterable[Lag]] = tuple
        self.commit_s = Histogram(_COMMIT_S)
        self.loop_ns: int | None = None
        self._start_s = time.time()
        self._committed_ns: int | None = None
        self._version: str | None = None
        labelled = (ROWS, ERRORS, LOST_POSITIONS, LOST_EVENTS, UNKNOWN_LOSSES, LOST_OFFSETS, DEAD)
        self._counts = {family: Counts() for family in labelled}
        self._sums = dict.fromkeys((OFFSETS, COMMITS, FAILURES, RIVALS, DUPLICATES), 0)

    def committed(self, done: Committed) -> None:
        """Enter a commit that stands."""
        self._committed_ns = time.time_ns()
        self._sums[COMMITS] += 1
        self._sums[OFFSETS] += done.offsets
        self._sums[DUPLICATES] += done.duplicates
        for table, rows in done.rows.items():
            self._counts[ROWS].add((table,), rows)
        for reason in done.dead:
            self._counts[DEAD].add((reason,))
        for row in done.losses:
            self._lost(row)

    def refused(self) -> None:
        """Enter a commit that failed."""
        self._sums[FAILURES] += 1

    def rivalled(self) -> None:
        """Enter a commit that another collector made first."""
        self._sums[RIVALS] += 1

    def waited(self, what: str) -> None:
        """Enter an error that is waited out: of the disk, or of the log."""
        self._counts[ERRORS].add((what,))

    def text(self) -> bytes:
        """Return all of it, as it is now."""
        if self._version is None:
            self._version = version() or "unknown"
        return expose(self._values(time.time_ns()))

    def _lost(self, row: LossRow) -> None:
        kind, count = row.loss.kind if row.loss.kind in _KINDS else OTHER, row.loss.count
        if row.stream is None:
            self._counts[LOST_OFFSETS].add((kind,), count or 0)
            return
        labels = (row.stream.surface if row.stream.surface in SURFACES else OTHER, kind, row.loss.reason)
        if count is None:
            self._counts[UNKNOWN_LOSSES].add(labels)
        else:
            self._counts[LOST_EVENTS if row.loss.unit == LossUnit.EVENT else LOST_POSITIONS].add(labels, count)

    def _values(self, now_ns: int) -> Iterable[tuple[Family, float | Values | Histogram | None]]:
        lags = list(self.lags())
        yield BUILD, {(self._version or "",): 1}
        yield START, self._start_s
        yield LOOP, None if self.loop_ns is None else self.loop_ns / 1e9
        yield LAG_OFFSETS, {_labels(each): each.offsets for each in lags if each.offsets is not None}
        yield LAG_S, {_labels(each): age_s for each in lags if (age_s := _age_s(each, now_ns)) is not None}
        yield BUFFERED, sum(each.buffered_bytes for each in lags)
        yield UNBALANCED, sum(each.unbalanced for each in lags)
        yield COMMIT_S, self.commit_s
        yield COMMITTED_AT, None if self._committed_ns is None else self._committed_ns / 1e9
        yield from self._sums.items()
        for family, counts in self._counts.items():
            yield family, counts.taken()


def _labels(lag: Lag) -> tuple[str, ...]:
    return lag.partition.topic, str(lag.partition.number)


# Of messages that were not read yet nobody here knows the age.
def _age_s(lag: Lag, now_ns: int) -> float | None:
    if lag.oldest_arrival_ns is not None:
        return max(0, now_ns - lag.oldest_arrival_ns) / 1e9
    return 0.0 if lag.offsets == 0 else None
