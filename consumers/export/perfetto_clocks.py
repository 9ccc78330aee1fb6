"""The clock of a ring as a trace of Perfetto says it.

A reader takes an event's time for CLOCK_BOOTTIME unless the bundle names another clock, and there are names for four:
boot (none), local, global and mono_raw (protos/perfetto/trace/ftrace/ftrace_event_bundle.proto). `mono` has none, so
its times are written as CLOCK_BOOTTIME, by the agent's readings of both clocks, which the trace holds too as
ClockSnapshot: a reader, told that the trace's clock is CLOCK_MONOTONIC, comes back to exactly `ts_ns`. Any other clock
has no name and no relation: its times are written as they are.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

from consumers.decode.slices import Ints
from consumers.export.scope import Scope

#: Readings further apart than this belong to different spans: the machine slept, or its CLOCK_REALTIME was set.
_TOLERANCE_NS: Final = 1_000_000
#: No more spans than this: where there would be more, smaller steps are taken for none.
_SPANS_MAX: Final = 1000
_READING_EVERY_NS: Final = 10_000_000_000
_NAMED: Final = {
    "local": proto.FTRACE_CLOCK_LOCAL,
    "global": proto.FTRACE_CLOCK_GLOBAL,
    "mono_raw": proto.FTRACE_CLOCK_MONO_RAW,
}
_PRIMARY: Final = {
    "mono": proto.BUILTIN_CLOCK_MONOTONIC,
    "mono_raw": proto.BUILTIN_CLOCK_MONOTONIC_RAW,
}


class Reading(NamedTuple):
    """Three clocks read together within `bracket_ns`, all ns."""

    monotonic_ns: int
    boottime_ns: int
    realtime_ns: int
    bracket_ns: int


class Span(NamedTuple):
    """From `monotonic_ns` on the other clocks are so much ahead of CLOCK_MONOTONIC."""

    monotonic_ns: int
    boottime_ahead_ns: int
    realtime_ahead_ns: int


@dataclass(frozen=True, slots=True)
class Clocks:
    """What a trace says of the clock `name`; `spans` is empty where nobody read other clocks beside it."""

    name: str
    spans: tuple[Span, ...]
    first_ns: int

    @property
    def ftrace_clock(self) -> int | None:
        """Return the bundle's `ftrace_clock`, None where it has none."""
        return _NAMED.get(self.name)

    @property
    def primary(self) -> int:
        """Return the id of the clock that the trace's times are of."""
        return int(_PRIMARY.get(self.name, proto.BUILTIN_CLOCK_BOOTTIME))

    @property
    def pair_ns(self) -> int | None:
        """Return the time that the ring's clock and CLOCK_BOOTTIME are said to have had at once.

        Readers need one for `local` and `global`, and there is none: so the trace's times are the ring's own.
        """
        return self.first_ns if self.name in ("local", "global") else None

    def written(self, ts_ns: Ints) -> Ints:
        """Return the times to write for events at `ts_ns`."""
        if self.name != "mono" or not self.spans:
            return ts_ns
        since = np.array([span.monotonic_ns for span in self.spans[1:]], np.int64)
        ahead = np.array([span.boottime_ahead_ns for span in self.spans], np.int64)
        found: Ints = ts_ns + ahead[np.searchsorted(since, ts_ns, side="right")]
        return found

    def snapshots(self) -> list[Any]:
        """Return the ClockSnapshot messages, in the order of time; the first one says which clock is the trace's."""
        if self.name not in ("mono", "boot", "mono_raw"):
            return []
        if self.name == "mono_raw" or not self.spans:
            ids = {self.primary, proto.BUILTIN_CLOCK_BOOTTIME} if self.name == "mono" else {self.primary}
            return [self._snapshot(dict.fromkeys(sorted(ids), max(0, self.first_ns)))]
        found = []
        for span in self.spans:
            readings = {
                proto.BUILTIN_CLOCK_REALTIME: span.monotonic_ns + span.realtime_ahead_ns,
                proto.BUILTIN_CLOCK_MONOTONIC: span.monotonic_ns,
                proto.BUILTIN_CLOCK_BOOTTIME: span.monotonic_ns + span.boottime_ahead_ns,
            }
            found.append(self._snapshot(readings))
        return found

    def from_realtime(self, realtime_ns: int) -> int | None:
        """Return the ring's time at CLOCK_REALTIME `realtime_ns`, None where they cannot be compared."""
        if self.name not in ("mono", "boot") or not self.spans:
            return None
        span = self.spans[0]
        for each in self.spans:
            if each.monotonic_ns + each.realtime_ahead_ns <= realtime_ns:
                span = each
        monotonic_ns = realtime_ns - span.realtime_ahead_ns
        return monotonic_ns if self.name == "mono" else monotonic_ns + span.boottime_ahead_ns

    def realtime_range(self, first_ns: int, last_ns: int) -> tuple[int, int]:
        """Return between which times of CLOCK_REALTIME the ring's times `first_ns` to `last_ns` were, in any span."""
        ahead = [span.realtime_ahead_ns - (span.boottime_ahead_ns if self.name == "boot" else 0) for span in self.spans]
        return first_ns + min(ahead), last_ns + max(ahead)

    def note(self) -> str | None:
        """Return the sentence that a user must know of this clock, if there is one."""
        if self.name in ("mono", "boot"):
            if self.spans:
                return None
            return (
                "the lake has no reading of this boot's other clocks: the trace cannot show UTC"
                + (", and takes CLOCK_BOOTTIME for the same as CLOCK_MONOTONIC" if self.name == "mono" else "")
            )  # fmt: skip
        return f"nothing in the lake relates the clock {self.name} to UTC: the trace shows its times as they are"

    def _snapshot(self, readings: dict[int, int]) -> Any:
        clocks = [proto.ClockSnapshot.Clock(clock_id=name, timestamp=at) for name, at in readings.items()]
        return proto.ClockSnapshot(clocks=clocks, primary_trace_clock=self.primary)


def read_clocks(connection: duckdb.DuckDBPyConnection, scope: Scope) -> Clocks:
    """Return the clock of `scope`, as the heartbeats of its boot relate it to others."""
    reading = "{'m': monotonic_ns, 'b': boottime_ns, 'r': realtime_ns, 'k': bracket_ns}"
    sql = (
        f"select arg_min({reading}, bracket_ns) from coverage where machine = ? and boot_id = ? "  # noqa: S608
        f"and bracket_ns between 0 and {_TOLERANCE_NS} group by monotonic_ns // {_READING_EVERY_NS}"
    )
    rows = connection.execute(sql, [scope.machine, scope.boot_id]).fetchall()
    readings = sorted(Reading(row["m"], row["b"], row["r"], row["k"]) for (row,) in rows)
    return Clocks(scope.clock, spans(readings), scope.first_ns)


def spans(readings: list[Reading]) -> tuple[Span, ...]:
    """Return the spans in which the clocks of `readings`, sorted, ran side by side; of each the tightest reading."""
    tolerance_ns = _TOLERANCE_NS
    while True:
        found: list[list[Reading]] = []
        for each in readings:
            if found and _apart_ns(found[-1][0], each) <= tolerance_ns:
                found[-1].append(each)
            else:
                found.append([each])
        if len(found) <= _SPANS_MAX:
            return tuple(_span(group) for group in found)
        tolerance_ns *= 10


def _span(group: list[Reading]) -> Span:
    best = min(group, key=lambda reading: reading.bracket_ns)
    return Span(group[0].monotonic_ns, best.boottime_ns - best.monotonic_ns, best.realtime_ns - best.monotonic_ns)


def _apart_ns(one: Reading, other: Reading) -> int:
    moved_ns = other.monotonic_ns - one.monotonic_ns
    return max(abs(other.boottime_ns - one.boottime_ns - moved_ns), abs(other.realtime_ns - one.realtime_ns - moved_ns))
