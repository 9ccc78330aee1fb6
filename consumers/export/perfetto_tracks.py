"""What is no event of a ring, as track events of Perfetto: what was lost, and what the kernel logged meanwhile.

A loss is a slice from the last event before it to the first behind it, on a track of its CPU, or an instant where the
export has only one of them. Source: protos/perfetto/trace/track_event/track_event.proto.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackDescriptor, TrackEvent

from consumers.decode.slices import Ints
from consumers.export.perfetto_clocks import Clocks
from consumers.export.scope import Scope
from schemas.loss import LossUnit

#: No more marks of either sort than this; what is left out is told.
LOSSES_MAX: Final = 100_000
RECORDS_MAX: Final = 100_000
_LOSSES_UUID: Final = 1
_KMSG_UUID: Final = 2
_RINGS_UUID: Final = 1000
_NAME_CHARS_MAX: Final = 1000
_PRINTK: Final = frozenset(("global", "perf"))
_FETCHED: Final = 10_000
_LOSSES_SQL: Final = """
select instance, first_position + case when unit = 'position' then coalesce(count, 1) else 0 end as next_page,
       kind, first_position, count, unit, reason, found_by
from losses where machine = ? and boot_id = ? and clock = ? and surface = 'ftrace' order by next_page, first_position
"""


class Loss(NamedTuple):
    """One row of `losses`; the first event behind it is in page `next_page` or a later one."""

    next_page: int
    kind: str
    first_position: int
    count: int | None  # type: ignore[assignment]  # shadows tuple.count
    unit: str
    reason: str
    found_by: str

    @property
    def title(self) -> str:
        """Return how many of what were lost."""
        unit = "page" if self.unit == LossUnit.POSITION else self.unit
        if self.count is None:
            return f"unknown number of {unit}s lost"
        return f"{self.count:,} {unit}{'' if self.count == 1 else 's'} lost" if self.count else self.kind


class Mark(NamedTuple):
    """A loss in the time of its ring; both ends are the same where only one is known."""

    loss: Loss
    since_ns: int
    until_ns: int


@dataclass(slots=True)
class RingLosses:
    """The losses of one ring, in the order of its pages, and how far the ring's events have come."""

    losses: list[Loss]
    from_start: bool
    done: int = 0
    last_ns: int | None = None
    marks: list[Mark] = field(default_factory=list)

    def cut(self, page: Ints, position: Ints, ts_ns: Ints) -> list[int]:
        """Return the rows in front of which something was lost; the arrays are the ring's next events, in order."""
        if self.last_ns is None:
            self._skip(int(page[0]), int(position[0]))
        cuts = []
        while self.done < len(self.losses) and self.losses[self.done].next_page <= page[-1]:
            loss = self.losses[self.done]
            row = int(np.searchsorted(page, loss.next_page))
            before_ns = int(ts_ns[row - 1]) if row else self.last_ns
            after_ns = int(ts_ns[row])
            since_ns = after_ns if before_ns is None else min(before_ns, after_ns)
            self.marks.append(Mark(loss, since_ns, after_ns))
            cuts.append(row)
            self.done += 1
        self.last_ns = int(ts_ns[-1])
        return cuts

    def close(self, *, to_end: bool) -> int:
        """Mark what was lost behind the last event unless a flag cut that off; return how many have no time."""
        rest = self.losses[self.done :] if to_end else []
        self.done = len(self.losses)
        if self.last_ns is None:
            return len(rest)
        self.marks += [Mark(loss, self.last_ns, self.last_ns) for loss in rest]
        return 0

    # Before the range begins: a loss right in front of its first event belongs to it.
    def _skip(self, page: int, position: int) -> None:
        while not self.from_start and self.done < len(self.losses):
            next_page = self.losses[self.done].next_page
            if next_page > page or (next_page == page and position == 0):
                return
            self.done += 1


class Tracks(NamedTuple):
    """Track events to write: the packets' fields, in order, and sentences for the user."""

    packets: list[dict[str, Any]]
    notes: list[str]


def read_losses(connection: duckdb.DuckDBPyConnection, scope: Scope) -> list[RingLosses]:
    """Return the losses of each of the rings of `scope`, in their order."""
    rows = connection.execute(_LOSSES_SQL, [scope.machine, scope.boot_id, scope.clock]).fetchall()
    found: dict[str, list[Loss]] = defaultdict(list)
    for instance, *values in rows:
        found[instance].append(Loss(*values))
    return [RingLosses(found[ring.instance], scope.from_start) for ring in scope.rings]


def loss_packets(scope: Scope, rings: list[RingLosses]) -> Iterator[dict[str, Any]]:
    """Yield the tracks of losses, and a slice or an instant for each mark, up to `LOSSES_MAX`."""
    left = LOSSES_MAX
    for i, (ring, losses) in enumerate(zip(scope.rings, rings, strict=True)):
        if not losses.marks:
            continue
        if left == LOSSES_MAX:
            yield {"track_descriptor": TrackDescriptor(uuid=_LOSSES_UUID, name="Lost")}
        uuid = _RINGS_UUID + i
        name = f"Lost, CPU {ring.cpu} ({ring.instance})"
        yield {"track_descriptor": TrackDescriptor(uuid=uuid, parent_uuid=_LOSSES_UUID, name=name)}
        for mark in losses.marks[:left]:
            yield from _loss_events(mark, uuid)
        left -= len(losses.marks[:left])


def kmsg_packets(connection: duckdb.DuckDBPyConnection, scope: Scope, clocks: Clocks) -> Tracks:
    """Return the records of the kernel log between the first event of `scope` and the last, as far as times compare.

    The trace clocks `global` and `perf` are printk's own clock, `sched_clock_cpu` (kernel/trace/trace_clock.c,
    kernel/sched/clock.c); `local` is behind it by what nobody records. For `mono` and `boot` a record stands where the
    agent had read it, which is a time of CLOCK_REALTIME. For others there is no way.
    """
    direct = scope.clock in _PRINTK
    where, params = "machine = ? and boot_id = ?", [scope.machine, scope.boot_id]
    total = connection.execute(f"select count(*) from kmsg where {where}", params).fetchall()[0][0]  # noqa: S608
    if not total:
        return Tracks([], [])
    if not direct and clocks.from_realtime(0) is None:
        what = f"the {total:,} kernel log records of this boot are left out: printk's clock does not compare with"
        return Tracks([], [f"{what} {scope.clock}"])
    packets: list[dict[str, Any]] = []
    column = "ts_ns" if direct else "captured_ns"
    ends = (scope.first_ns, scope.last_ns) if direct else clocks.realtime_range(scope.first_ns, scope.last_ns)
    sql = (
        "select ts_ns, captured_ns, seq, level, facility, caller, message from kmsg "  # noqa: S608
        f"where {where} and {column} between ? and ? order by instance, seq"
    )
    result = connection.execute(sql, [*params, *ends])
    over = 0
    while rows := result.fetchmany(_FETCHED):
        for ts_ns, captured_ns, *rest in rows:
            at_ns = ts_ns if direct else clocks.from_realtime(captured_ns)
            if at_ns is None or not scope.first_ns <= at_ns <= scope.last_ns:
                continue
            if len(packets) < RECORDS_MAX:
                packets.append(_record(at_ns, ts_ns, *rest))
            else:
                over += 1
    notes = []
    name = "Kernel log" if direct else "Kernel log, when the agent had read it"
    if packets:
        packets.insert(0, {"track_descriptor": TrackDescriptor(uuid=_KMSG_UUID, name=name)})
        if not direct:
            notes.append(
                f"printk's clock does not compare with {scope.clock}: kernel log records stand where the agent had "
                "read them, some 25 ms late, later those that it found at its start"
            )
    if over:
        notes.append(f"{over:,} kernel log records are left out: a file takes {RECORDS_MAX:,}")
    return Tracks(packets, notes)


def _loss_events(mark: Mark, uuid: int) -> Iterator[dict[str, Any]]:
    loss = mark.loss
    begin = TrackEvent(track_uuid=uuid, name=loss.title, categories=["loss"])
    count = "unknown" if loss.count is None else loss.count
    _annotate(begin, kind=loss.kind, reason=loss.reason, count=count, unit=loss.unit)
    _annotate(begin, first_position=loss.first_position, found_by=loss.found_by)
    if mark.since_ns >= mark.until_ns:
        begin.type = TrackEvent.TYPE_INSTANT
        yield {"timestamp": mark.until_ns, "track_event": begin}
        return
    begin.type = TrackEvent.TYPE_SLICE_BEGIN
    yield {"timestamp": mark.since_ns, "track_event": begin}
    end = TrackEvent(track_uuid=uuid, type=TrackEvent.TYPE_SLICE_END)
    yield {"timestamp": mark.until_ns, "track_event": end}


def _record(
    at_ns: int, ts_ns: int, seq: int, level: int, facility: int, caller: str | None, message: str
) -> dict[str, Any]:
    event = TrackEvent(
        track_uuid=_KMSG_UUID, name=message[:_NAME_CHARS_MAX], categories=["kmsg"], type=TrackEvent.TYPE_INSTANT
    )
    _annotate(event, seq=seq, level=level, facility=facility, printk_ns=ts_ns)
    if caller is not None:
        _annotate(event, caller=caller)
    return {"timestamp": at_ns, "track_event": event}


def _annotate(event: Any, **values: int | str) -> None:
    for name, value in values.items():
        note = event.debug_annotations.add(name=name)
        if isinstance(value, str):
            note.string_value = value
        else:
            note.int_value = value
