"""Trace events: one source for each set and CPU, whose records are ring pages as the kernel wrote them.

No event is looked at: the page headers say what the kernel overwrote, `per_cpu/cpuN/stats` what it counted.
Source: Documentation/trace/ftrace.rst, kernel/trace/ring_buffer.c.
"""

import contextlib
import logging
import math
import sys
import time
from pathlib import Path
from typing import Final

from producers.ftrace import events as ftrace_events
from producers.ftrace import instance as ftrace_instance
from producers.ftrace import tracefs
from producers.ftrace.formats import FormatsSource, packed
from producers.ftrace.instance import Instance
from producers.ftrace.ring import CpuRing
from producers.ftrace.session import Session
from producers.journal import Journal
from producers.registry import Opening
from producers.source import Batch, Source
from schemas import ftrace, limits
from schemas.config import Config, TraceSet
from schemas.errors import UnavailableError, UsageError
from schemas.loss import Loss, LossKind, LossUnit
from schemas.stream import Stream

log = logging.getLogger(__name__)
SURFACE: Final = "ftrace"
_FOUND_BY: Final = "agent"
_EMPTIED: Final = "ring-emptied"
#: Bytes that one drain reads before other sources have their turn.
_DRAIN_BYTES_MAX: Final = 1 << 20
#: How often its kernel's counters are looked at between heartbeats.
_LOOK_S: Final = 1.0


class CpuSource:
    """The pages of one CPU: of left-over rings first, then of the ring that records now; `position` is the next page.

    `losses` are those known before the first page.
    """

    encoding = ftrace.PAGES_ENCODING
    encoding_version = ftrace.PAGES_VERSION

    def __init__(
        self, stream: Stream, rings: list[CpuRing], position: int, losses: list[Loss], tick_s: float, session: Session
    ) -> None:
        self.stream = stream
        self.tick_s: float | None = tick_s
        self._session = session
        self._rings = rings
        self._next = position  # of what is cut
        self._read = position  # of what is read
        self._losses = list(losses)
        self._batches: list[Batch] = []
        self._pending_bytes = 0
        self._counters = {"records": 0, "lost_events": 0, "lost_unknown": 0, "read_errors": 0}
        self._ended: dict[str, int] = {}  # the last counters of rings that are done
        self._last: dict[str, int] = {}
        self._stopped = self._resized = False
        self._looked_s = -math.inf
        self._farewells = 0  # heartbeats without a ring

    def fileno(self) -> int:
        """Return the ring's descriptor: readable when it is a quarter full; -1 while only the tick counts."""
        return self._rings[0].fileno() if self._rings and not self._rings[0].left_over else -1

    def alive(self) -> bool:
        """Return whether the CPU was ever there and has a ring, or this heartbeat is the one that tells its end."""
        if not self._rings:
            return self._farewells == 1
        return self._rings[0].present or self._rings[0].left_over

    def drain(self) -> bool:
        """Read pages until the ring is empty, or a bounded number of bytes; True where there may be more at once."""
        self._look()
        read_bytes = 0
        while self._rings:
            ring = self._rings[0]
            got = ring.read(self._read)
            if got and not ring.left_over and ring.clock() != ring.instance.clock:
                self._end_of_clock(ring, got)
            self._read += got
            read_bytes += got * ring.instance.layout.page_bytes
            if ring.resized:
                self._end_resized(ring)
            if ring.free_pages == 0:
                self.seal()
            elif ring.left_over and ring.stats()["entries"] == 0:
                self._leave_ring()
            else:
                return False
            if read_bytes >= _DRAIN_BYTES_MAX:
                return True
        return False

    # A ring that was emptied counts anew: soon after, that is less than it had counted before.
    def _look(self) -> None:
        now_s = time.monotonic()
        if self._rings and not self._rings[0].left_over and now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            self._note_changes(self._rings[0].stats())

    # That empties the rings, and what comes then is of another stream: the next agent's, which finds them left over. Of
    # the pages of this read nobody knows by which clock they are.
    def _end_of_clock(self, ring: CpuRing, pages: int) -> None:
        ring.forget(pages)
        self.seal()
        self._losses.append(Loss(LossKind.DROP, self._read, pages, "clock-changed", _FOUND_BY))
        self._read += pages
        self._lose_emptied()
        name, now = ring.instance.path.name, ring.clock()
        raise UnavailableError(
            f"{name}: its clock is no longer {ring.instance.clock}, somebody set it to {now}, which emptied its rings; "
            "start the agent again"
        )

    # Once: what comes after it is to come to an end without it.
    def _end_resized(self, ring: CpuRing) -> None:
        if not self._resized:
            self._resized = True
            self.seal()
            self._lose_emptied()
            what = (
                f"{ring.instance.path.name}: its sub-buffers are no longer of {ring.instance.layout.page_bytes} bytes"
            )
            raise UnavailableError(f"{what}: somebody set another size, which emptied its rings; start the agent again")

    def pending_bytes(self) -> int:
        """Return the bytes of the pages read and not yet cut."""
        return self._pending_bytes + (self._rings[0].pending_bytes if self._rings else 0)

    def cut(self) -> list[Batch]:
        """Return what was read as batches; one without a page where losses are known and no page follows them."""
        self.seal()
        batches, self._batches, self._pending_bytes = self._batches, [], 0
        if not batches and self._losses:
            batches = [Batch(self._read, self._read, 0, b"", self._take_losses(), 0, 0)]
        self._next = self._read
        return batches

    def next_position(self) -> int:
        """Return the number of the next page to be cut."""
        return self._next

    def counters(self) -> dict[str, int]:
        """Return pages read, events lost as their headers say, and the kernel's counters since the ring was made.

        `entries` events are still in the ring, `overrun` were overwritten, `read_events` read, `dropped_events` and
        `commit_overrun` never written; so `read_events + overrun + entries` were written. Where `lost_unknown` is 0 and
        the ring was read empty, `lost_events` equals `overrun`. Those of left-over rings, since they were made by
        whichever run, begin with `left_over_`. `final` is 1 when the ring records no more.
        """
        self.seal()
        stats: dict[str, int] = {}
        if self._rings and not self._rings[0].left_over:
            ring = self._rings[0]
            self._counters["read_errors"] = ring.errors
            stats = ring.stats()
            self._note_changes(stats)
        self._farewells += not self._rings
        return {**self._counters, **stats, **self._ended, "final": int(self._stopped)}

    def stop(self) -> None:
        """Let the set record no more; what the ring holds can be drained to its end."""
        self._stopped = True
        for ring in self._rings:
            if not ring.left_over:
                self._session.freeze(ring.instance)

    def give_up(self) -> None:
        """Count what the ring still holds as dropped: nobody will read it. Left-over rings wait for the next agent."""
        for ring in self._rings:
            count = ring.stats()["entries"]
            if count and not ring.left_over:
                self._lose(LossKind.DROP, self._read, count, "stopped-before-read")

    def leave(self) -> None:
        """Let the set's instance stay as one that a dead agent left, with the note of how far it was read."""
        self._session.leave()

    def close(self) -> None:
        """Close the ring; the last source of the session removes the instances."""
        for ring in self._rings:
            ring.close()
        self._rings = []
        self._session.release(self)

    # A left-over ring is empty: its last counters are final, and the instance goes with the last of its rings.
    def _leave_ring(self) -> None:
        self.seal()
        ring = self._rings.pop(0)
        for name, value in ring.stats().items():
            ended = f"left_over_{name}"
            self._ended[ended] = self._ended.get(ended, 0) + value
        self._session.ring_done(ring)

    def seal(self) -> None:
        """Make a batch of the pages that were read; they name the description that holds now."""
        ring = self._rings[0] if self._rings else None
        if ring is None or not ring.filled:
            return
        first, count = self._read - ring.filled, ring.filled
        body, heads = ring.take()
        for index, lost in heads.lost:
            self._lose(LossKind.OVERWRITE, first + index, lost, "ring-overrun")
            self._counters["lost_unknown" if lost is None else "lost_events"] += 1 if lost is None else lost
        self._counters["records"] += count
        self._pending_bytes += len(body)
        times = (min(heads.ts_first_ns, limits.INT64_MAX), min(heads.ts_last_ns, limits.INT64_MAX))
        batch = Batch(first, first + count, count, body, self._take_losses(), *times, ring.instance.descriptor)
        self._batches.append(batch)

    # What the kernel counts and no page header says.
    def _note_changes(self, stats: dict[str, int]) -> None:
        last, self._last = self._last, stats
        if not last:
            return
        if stats["read_events"] < last["read_events"]:
            # A module whose events were on was unloaded: the kernel empties all rings, and their counters with them.
            self._lose_emptied()
            return
        for name in ("dropped_events", "commit_overrun"):
            if stats[name] > last[name]:
                self._lose(LossKind.DROP, self._read, stats[name] - last[name], name.replace("_", "-"))

    # Also where two signs of it come together.
    def _lose_emptied(self) -> None:
        if not any(loss.reason == _EMPTIED and loss.first_position == self._read for loss in self._losses):
            self._lose(LossKind.RESET, self._read, None, _EMPTIED)

    def _lose(self, kind: LossKind, position: int, count: int | None, reason: str) -> None:
        self._losses.append(Loss(kind, position, count, reason, _FOUND_BY, LossUnit.EVENT))

    def _take_losses(self) -> list[Loss]:
        losses, self._losses = self._losses[: limits.FRAME_LOSSES_MAX], self._losses[limits.FRAME_LOSSES_MAX :]
        return losses


def open_sources(opening: Opening) -> list[Source]:
    """Return the sources of all sets: for each its description of events, then its CPUs, left-over rings drained first.

    Raises:
        UsageError: no set is configured, or the kernel refuses one; the message has its own words.
        AccessError: tracefs is not there, or not for us.
    """
    sets = opening.config.ftrace.sets
    if not sets:
        raise _no_sets()
    session = Session(tracefs.attach())
    with contextlib.ExitStack() as undo:
        undo.callback(session.close)
        own = [session.add(ftrace_instance.create(session.path, wanted)) for wanted in sets]
        left = [session.add(each, left_over=True) for each in ftrace_instance.left_over(session.path)]
        if opening.state_dir is not None:
            session.open_journals(opening.state_dir / SURFACE, opening.identity.boot_id)
        groups: dict[tuple[str, str], list[Instance]] = {}
        for instance in (*left, *own):
            groups.setdefault((instance.set_name, instance.clock), []).append(instance)
        sources: list[Source] = []
        for instances in groups.values():
            sources += _open_group(opening, session, instances)
        # Together, so that hardly anything falls between: recorded by both it would come twice.
        for instance in left:
            log.info("%s is left over from an agent that died; it is read to its end and removed", instance.path.name)
            instance.freeze()
        for instance in own:
            instance.start()
        undo.pop_all()
    return sources


# One stream of descriptions and one of pages for each CPU; rings of different instances follow each other in it.
def _open_group(opening: Opening, session: Session, instances: list[Instance]) -> list[Source]:
    set_name, clock = instances[0].set_name, instances[0].clock
    stream = Stream(*opening.identity, SURFACE, set_name, clock)
    known = opening.known.get(stream)
    own = instances[-1] if session.owns(instances[-1]) else None
    cpus: list[CpuSource] = []

    def seal() -> None:
        for each in cpus:
            each.seal()

    formats = FormatsSource(stream, instances, own, known.next if known else 0, session, seal)
    session.hold(formats)
    for cpu in instances[-1].cpus():
        rings = [session.open_ring(instance, cpu) for instance in instances]
        cpus.append(_cpu_source(opening, session, stream._replace(instance=f"{set_name}/cpu{cpu}"), rings))
    return [formats, *cpus]


def _cpu_source(opening: Opening, session: Session, stream: Stream, rings: list[CpuRing]) -> CpuSource:
    known = opening.known.get(stream)
    durable = position = known.next if known else 0
    losses = []
    unsure = False
    for ring in rings:
        if ring.left_over:
            position, more = ring.known_position(position)
            unsure |= more
    for noted in session.gone(stream.instance.partition("/")[0], stream.clock):
        least, untold = _gone(noted, rings[0].cpu, known.number if known else -1)
        position = max(position, least)
        unsure |= untold
    if position > durable:
        losses.append(Loss(LossKind.DROP, durable, position - durable, "agent-died", _FOUND_BY))
    if unsure:
        losses.append(Loss(LossKind.DROP, position, None, "agent-died", _FOUND_BY, LossUnit.EVENT))
    source = CpuSource(stream, rings, position, losses, opening.config.ftrace.tick_ms / 1000, session)
    session.hold(source)
    return source


# Of a ring of ours that somebody else has taken: how far whoever died with it had read, and whether that is yet to be
# told. A stream's next frame tells it, so the journal gets the number of the last one: behind it, all is told.
def _gone(noted: Journal, cpu: int, number: int) -> tuple[int, bool]:
    least, most = noted.noted(cpu)
    if most == 0 or (most < 0 and number > -most - 2):
        noted.note(cpu, 0, 0)
        return 0, False
    noted.note(cpu, least, -number - 2)
    return least, True


def check() -> str:
    """Return where tracefs is, how many events it offers, and its clocks.

    Raises:
        AccessError: it is not there, or not for us.
    """
    found = tracefs.attach()
    try:
        events = ftrace_events.names(found.path / "events")
        clocks = (found.path / "trace_clock").read_text(encoding="ascii").replace("[", "").replace("]", "").split()
    finally:
        found.close()
    where = tracefs.mounted() or "tracefs, not mounted and reached by a private mount,"
    return f"{where} offers {len(events)} events and the clocks {', '.join(clocks)}"


def verify(config: Config) -> None:
    """Verify that there are sets, and the events, filters and clocks of all of them, and that they can be described.

    Of a filter only the fields are looked at: the rest the kernel says when it gets it.

    Raises:
        UsageError: there are not.
        AccessError: tracefs is not there, or not for us.
    """
    if not config.ftrace.sets:
        raise _no_sets()
    found = tracefs.attach()
    try:
        known = ftrace_events.names(found.path / "events")
        clocks = (found.path / "trace_clock").read_text(encoding="ascii")
        for each in config.ftrace.sets:
            _verify_set(found.path / "events", each, known)
            ftrace_instance.verify_clock(each.clock, clocks)
    finally:
        found.close()


def _verify_set(events: Path, wanted: TraceSet, known: list[str]) -> None:
    chosen = ftrace_events.resolve(wanted.events, known)
    texts = ftrace_events.read_formats(events, chosen)
    for event, expression in ftrace_events.resolve_filters(wanted.filters, chosen).items():
        hint = ftrace_events.field_hint(expression, ftrace_events.field_names(texts.get(event, "")))
        if hint:
            raise UsageError(f"ftrace set {wanted.name}: filter {event}={expression}{hint}")
    header_page = (events / "header_page").read_text(encoding="utf-8", errors="replace")
    packed(wanted.name, ftrace.Formats(header_page, wanted.clock, 0, sys.byteorder, 8, texts), len(chosen))


def _no_sets() -> UsageError:
    return UsageError("which events? give --events SYSTEM:EVENT,... or a config file with [[ftrace.sets]]")
