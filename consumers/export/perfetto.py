"""A trace that Perfetto's viewer opens, written window by window: never more in memory than one window of events.

The file is one message `Trace`: packets, one behind the other. Events are bundles of one CPU each, in the order of the
ring; a bundle in front of which something was lost says so (`lost_events`). Its bytes are made by compiled loops from
columns; only packets that are few are built as objects.

Source: protos/perfetto/trace/trace_packet.proto, protos/perfetto/trace/ftrace/ftrace_event_bundle.proto.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final

import duckdb
import numpy as np
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
    FtraceEventBundle,
    SystemInfo,
    Trace,
    TracePacket,
    Utsname,
)

from consumers.decode.slices import Ints
from consumers.export import perfetto_loops as loops
from consumers.export.perfetto_clocks import Clocks, read_clocks
from consumers.export.perfetto_events import Encoded, encoded, kinds, varint
from consumers.export.perfetto_tracks import LOSSES_MAX, kmsg_packets, loss_packets, read_losses
from consumers.export.scope import Scope, Window, windows
from consumers.output import replacing
from schemas import ftrace
from schemas.errors import BadInputError, UsageError

#: A bundle has at most so many events, and bytes unless one event has more.
BUNDLE_EVENTS: Final = 4096
BUNDLE_BYTES: Final = 1 << 20
#: A window whose messages are more than this is split in two.
WINDOW_BYTES: Final = 128 << 20
# Readers refuse a whole file for a CPU with this number.
_CPUS: Final = 1024
# Writers of a trace have numbers of their own: this one's events, and its tracks.
_EVENTS_SEQUENCE: Final = 1
_TRACKS_SEQUENCE: Final = 2
_PACKET: Final = Trace.DESCRIPTOR.fields_by_name["packet"].number << 3 | 2
_BUNDLE: Final = TracePacket.DESCRIPTOR.fields_by_name["ftrace_events"].number << 3 | 2
_FORMATS_READ: Final = 16
_RELEASE: Final = re.compile(r"Linux version (\S{1,200})")
# Since Linux 4.14 an idle thread of the kernel has a state of its own, and the numbers of others moved.
_IDLE_STATE: Final = re.compile(r'\{\s*0x0*80,\s*"I"\s*\}')


@dataclass(slots=True)
class Report:
    """What was written: events by kind, rings, marks, records and bytes; `notes` are sentences for the user."""

    events: int = 0
    kinds: int = 0
    losses: int = 0
    records: int = 0
    size_bytes: int = 0
    generic: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write(
    connection: duckdb.DuckDBPyConnection,
    scope: Scope,
    path: Path,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Report:
    """Write the events of `scope` to `path`, under another name until all is there; what was there is replaced.

    Raises:
        UsageError: there is no such directory, `path` is no file, or there is a CPU that Perfetto does not take.
        StorageError: the disk refuses; `path` is as it was.
    """
    beyond = next((ring.instance for ring in scope.rings if ring.cpu >= _CPUS), None)
    if beyond is not None:
        raise UsageError(f"Perfetto takes CPUs below {_CPUS}: there is {beyond}, choose others with --instance")
    with replacing(path) as out:
        return _Writer(connection, scope, out, progress).run()


class _Writer:
    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        scope: Scope,
        out: BinaryIO,
        progress: Callable[[int, int], None],
    ) -> None:
        self._connection, self._scope, self._out, self._progress = connection, scope, out, progress
        self._clocks = read_clocks(connection, scope)
        self._losses = read_losses(connection, scope)
        self._kinds = kinds(connection, scope)
        self._tails = _tails(scope, self._clocks)
        self._tracks_begun = False
        self._report = Report(kinds=len(scope.tables))

    def run(self) -> Report:
        for packet in _first_packets(self._connection, self._scope, self._clocks):
            self._packet(packet)
        total = sum(self._scope.tables.values())
        for window in windows(self._connection, self._scope):
            self._window(window)
            self._progress(self._report.events, total)
        self._report_events()
        self._marks()
        kmsg = kmsg_packets(self._connection, self._scope, self._clocks)
        self._track_packets(kmsg.packets)
        self._report.records = max(0, len(kmsg.packets) - 1)
        self._report.notes += kmsg.notes
        self._report.size_bytes = self._out.tell()
        return self._report

    def _window(self, window: Window) -> None:
        parts: list[Encoded] = []
        size_bytes = 0
        for table in window.tables:
            for part in encoded(self._connection, self._scope, self._kinds[table], window, self._clocks.written):
                parts.append(part)
                size_bytes += len(part.octets)
                if size_bytes > WINDOW_BYTES and window.until_ns - window.since_ns > 1:
                    middle_ns = (window.since_ns + window.until_ns) // 2
                    self._window(window._replace(until_ns=middle_ns))
                    self._window(window._replace(since_ns=middle_ns))
                    return
        if parts:
            self._events(parts)

    # Of each ring the events in its own order, whatever tables they came from.
    def _events(self, parts: list[Encoded]) -> None:
        octets = np.concatenate([part.octets for part in parts])
        bases = np.cumsum([0, *(len(part.octets) for part in parts[:-1])])
        starts = np.concatenate([part.starts + base for part, base in zip(parts, bases, strict=True)])
        lengths, ring, page, position, ts_ns = (
            np.concatenate([part[i] for part in parts]) for i in range(2, len(Encoded._fields))
        )
        order = np.lexsort((position, page, ring))
        ends = np.searchsorted(ring[order], np.arange(len(self._scope.rings) + 1))
        for number, (first, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)):
            rows = order[first:end]
            if not len(rows):
                continue
            lost = self._losses[number].cut(page[rows], position[rows], ts_ns[rows])
            after_loss = set(lost)
            for since, until in _bundles(np.cumsum(lengths[rows]), lost):
                self._bundle(number, octets, starts, lengths, rows[since:until], lost=since in after_loss)
        self._report.events += len(ring)

    def _bundle(self, ring: int, octets: Any, starts: Ints, lengths: Ints, rows: Ints, *, lost: bool) -> None:
        body = np.empty(int(lengths[rows].sum()), np.uint8)
        loops.gather(octets, starts, lengths, rows, body)
        tail = self._tails[ring, lost]
        bundle = varint(_BUNDLE) + varint(len(body) + len(tail))
        rest = TracePacket(trusted_packet_sequence_id=_EVENTS_SEQUENCE).SerializeToString()
        size = len(bundle) + len(body) + len(tail) + len(rest)
        self._out.write(varint(_PACKET) + varint(size) + bundle)
        self._out.write(body.data)
        self._out.write(tail + rest)

    def _report_events(self) -> None:
        self._report.generic = [kind.table.removeprefix("trace_") for kind in self._kinds.values() if not kind.typed]
        left_out = [
            f"{kind.table.removeprefix('trace_')}.{name}" for kind in self._kinds.values() for name in kind.left_out
        ]
        if left_out:
            self._report.notes.append(
                f"Perfetto has no place for these fields, they are left out: {', '.join(left_out)}"
            )
        note = self._clocks.note()
        if note:
            self._report.notes.append(note)

    def _marks(self) -> None:
        unplaced = sum(each.close(to_end=self._scope.to_end) for each in self._losses)
        self._track_packets(loss_packets(self._scope, self._losses))
        self._report.losses = sum(len(each.marks) for each in self._losses)
        if unplaced:
            self._report.notes.append(f"{unplaced:,} losses are not marked: their rings have no event that tells when")
        if self._report.losses > LOSSES_MAX:
            self._report.notes.append(f"only {LOSSES_MAX:,} losses are marked; the bundles behind all of them say so")

    def _track_packets(self, packets: Iterable[dict[str, Any]]) -> None:
        for values in packets:
            packet = TracePacket(trusted_packet_sequence_id=_TRACKS_SEQUENCE, **values)
            if "track_event" in values:
                packet.timestamp_clock_id = self._clocks.primary
            if not self._tracks_begun:
                packet.sequence_flags = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
                self._tracks_begun = True
            self._packet(packet)

    def _packet(self, packet: Any) -> None:
        data = packet.SerializeToString()
        self._out.write(varint(_PACKET) + varint(len(data)) + data)


# Where to cut events that end at `ends_bytes` into bundles: at every loss, and where one is full.
def _bundles(ends_bytes: Ints, lost: list[int]) -> Iterator[tuple[int, int]]:
    starts = sorted({0, *lost})
    for since, until in pairwise((*starts, len(ends_bytes))):
        at = since
        while at < until:
            limit_bytes = (int(ends_bytes[at - 1]) if at else 0) + BUNDLE_BYTES
            full = int(np.searchsorted(ends_bytes, limit_bytes, side="right"))
            end = min(until, at + BUNDLE_EVENTS, max(at + 1, full))
            yield at, end
            at = end


# What each bundle of a ring says beside its events, by ring and whether something was lost in front of it.
def _tails(scope: Scope, clocks: Clocks) -> dict[tuple[int, bool], bytes]:
    found = {}
    for number, ring in enumerate(scope.rings):
        for lost in (False, True):
            bundle = FtraceEventBundle(cpu=ring.cpu)
            if lost:
                bundle.lost_events = True
            if clocks.ftrace_clock is not None:
                bundle.ftrace_clock = clocks.ftrace_clock
            if clocks.pair_ns is not None:
                bundle.ftrace_timestamp = bundle.boot_timestamp = clocks.pair_ns
            found[number, lost] = bundle.SerializeToString()
    return found


def _first_packets(connection: duckdb.DuckDBPyConnection, scope: Scope, clocks: Clocks) -> Iterator[Any]:
    for snapshot in clocks.snapshots():
        yield TracePacket(clock_snapshot=snapshot, trusted_packet_sequence_id=_EVENTS_SEQUENCE)
    release = _release(connection, scope)
    if release is not None:
        yield TracePacket(
            system_info=SystemInfo(utsname=Utsname(sysname="Linux", release=release), machine_name=scope.machine),
            trusted_packet_sequence_id=_EVENTS_SEQUENCE,
        )


# Readers go by the kernel's version to say what a thread's state is: without one they take it for 4.4.
def _release(connection: duckdb.DuckDBPyConnection, scope: Scope) -> str | None:
    of_boot = "machine = ? and boot_id = ?"
    params = [scope.machine, scope.boot_id]
    sql = (
        f"select message from kmsg where {of_boot} and facility = 0 and starts_with(message, 'Linux version ') limit 1"  # noqa: S608
    )
    for (message,) in connection.execute(sql, params).fetchall():
        match = _RELEASE.match(message)
        if match:
            return match[1]
    sql = f"select body from artifacts where {of_boot} and clock = ? order by position desc limit {_FORMATS_READ}"  # noqa: S608
    for (body,) in connection.execute(sql, [*params, scope.clock]).fetchall():
        try:
            text = ftrace.unpack_formats(body).events.get("sched:sched_switch", "")
        except BadInputError:
            continue
        if _IDLE_STATE.search(text):
            return "4.14.0 or later, as its sched_switch says"
    return None
