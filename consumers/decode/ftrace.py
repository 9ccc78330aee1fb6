"""Frames of trace pages to one table for each kind of event, as the descriptor that the frames name says.

The pages are read by `ftrace_pages`, the columns by `ftrace_columns`; `ftrace_events` puts both together. A page that
is wrong keeps what comes before the fault, and is a dead letter beside its rows.
"""

import dataclasses
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from consumers.decode import ftrace_columns, ftrace_events, ftrace_format, ftrace_pages, ftrace_text
from consumers.decode.base import Admit, BadRecord, Decoded, FrameIn, bad_frame, every_kind
from consumers.decode.ftrace_events import UNKNOWN, Events, PageRun
from consumers.decode.ftrace_format import Formats
from consumers.decode.ftrace_print import printk_texts
from consumers.held import Held
from consumers.lake.tables import TableSpec
from consumers.lake.unify import concatenated, folded
from schemas import ftrace
from schemas.errors import BadInputError
from schemas.frame import Frame

if TYPE_CHECKING:
    from schemas.stream import Stream

TABLES: Final = (UNKNOWN,)
POSITION: Final = "page"
ONE_ROW_EACH: Final = False
_FRONT: Final = frozenset(each.name for each in ftrace_events.FRONT)
_FAMILY: Final = "trace_"
_CPU: Final = re.compile(r"[^/]*/cpu([0-9]{1,6})")
#: What is made of a description takes twelve times as many bytes.
_FORMATS_BYTES_MAX: Final = 8 << 20
_known: Final[Held[tuple[Formats, int]]] = Held(_FORMATS_BYTES_MAX)


def owns(table: str) -> bool:
    """Return whether `table` is that of a kind of event."""
    return table.startswith(_FAMILY)


def spec(table: str, schema: pa.Schema) -> TableSpec:
    """Return the layout of the event table `table` with this `schema`."""
    return UNKNOWN if table == UNKNOWN.name else ftrace_events.spec(table, schema)


def columns_sql(table: str, names: Sequence[str]) -> str:  # noqa: ARG001 - every decoder has this signature
    """Return the columns with the context of an event readable behind its `flags` and `preempt_count`."""
    if not {"flags", "preempt_count"} <= set(names):
        return "*"
    front = [f'"{name}"' for name in names if name in _FRONT]
    context = [f"{sql} as {name}" for name, sql in ftrace_columns.CONTEXT_SQL.items()]
    own = [f'"{name}"' for name in names if name not in _FRONT]
    return ", ".join([*front, *context, *own])


def time_order(table: str) -> str:  # noqa: ARG001 - every decoder has this signature
    """Return nothing: within a stream positions are in the order of time."""
    return ""


def check(frame: Frame) -> None:
    """Verify that the body holds exactly one page for each position, of a CPU, with a descriptor.

    Raises:
        BadInputError: `reason` is `body`.
    """
    pages = ftrace.unpack(frame.body)
    if not pages.count == frame.count == frame.next - frame.first:
        what = f"{pages.count} pages in the body, {frame.count} stated, for [{frame.first}, {frame.next})"
        raise BadInputError("body", what)
    if frame.descriptor is None or not _CPU.fullmatch(frame.stream.instance):
        raise BadInputError("body", f"pages of {frame.stream.instance!r:.80}: they need SET/cpuN and a descriptor")


def head(frame: Frame, end: int) -> Frame:
    """Return the part of `frame` before position `end`.

    Raises:
        BadInputError: as `check`.
    """
    return _cut(frame, frame.first, min(end, frame.next))


def trim(frame: Frame, start: int) -> Frame:
    """Return the part of `frame` from position `start` on.

    Raises:
        BadInputError: as `check`.
    """
    return frame if start <= frame.first else _cut(frame, start, frame.next)


def decode_many(frames: list[FrameIn], descriptors: Mapping[bytes, bytes], admit: Admit = every_kind) -> Decoded:
    """Return the tables of `frames`; a frame whose descriptor nobody has, or that is none, is a bad record.

    Events of a kind that `admit` refuses are rows of `trace_unknown`, and a dead letter of no position says so.
    """
    bad: list[BadRecord] = []
    tables: dict[str, list[pa.Table]] = {}
    rows: Counter[Stream] = Counter()
    for name, items in _by_descriptor(frames, bad).items():
        try:
            formats, page_bytes = _formats(name, descriptors)
        except KeyError:
            bad += [bad_frame(item, "descriptor", f"nobody has sent the formats {name.hex()}") for item in items]
            continue
        except BadInputError as e:
            bad += [bad_frame(item, "descriptor", f"the formats {name.hex()}: {e}") for item in items]
            continue
        runs = [_run(item) for item in items]
        other = [item for item, run in zip(items, runs, strict=True) if run.page_bytes != page_bytes]
        bad += [
            bad_frame(item, "descriptor", f"the formats {name.hex()} are of pages of {page_bytes} bytes")
            for item in other
        ]
        found = ftrace_events.decode([run for run in runs if run.page_bytes == page_bytes], formats, admit)
        for table, part in found.tables.items():
            tables.setdefault(table, []).append(part)
        rows += found.by_stream
        bad += _faults(found, items)
        if found.refused:
            bad.append(_refused(found.refused, items[0]))
    return Decoded({table: concatenated(parts) for table, parts in tables.items()}, bad, rows)


def text_lines(decoded: Decoded) -> Iterator[str]:
    """Yield the events of all tables and CPUs by time, in the shape of the kernel's own `trace` file."""
    return ftrace_text.lines({name: folded(table) for name, table in decoded.tables.items()})


def _by_descriptor(frames: list[FrameIn], bad: list[BadRecord]) -> dict[bytes, list[FrameIn]]:
    found: dict[bytes, list[FrameIn]] = {}
    for item in frames:
        try:
            check(item.frame)
        except BadInputError as e:
            bad.append(bad_frame(item, e.reason, e.detail))
            continue
        assert item.frame.descriptor is not None
        found.setdefault(item.frame.descriptor, []).append(item)
    return found


# Parsing a boot's formats takes milliseconds for each event, and every commit needs the same.
def _formats(name: bytes, descriptors: Mapping[bytes, bytes]) -> tuple[Formats, int]:
    found = _known.get(name)
    if found is None:
        body = descriptors[name]
        found = _parsed(body)
        _known.put(name, found, len(body))
    return found


def _parsed(body: bytes) -> tuple[Formats, int]:
    told = ftrace.unpack_formats(body)
    header = ftrace_format.parse_header(told.header_page, big_endian=told.byteorder == "big")
    if not ftrace_pages.fits(header, told.page_bytes):
        raise BadInputError("format", f"records begin at byte {header.data_offset} of {told.page_bytes}")
    events, texts = [], printk_texts(told.printk_formats)
    for name, text in told.events.items():
        try:
            events.append(ftrace_format.parse(text, name.partition(":")[0], told.word_bytes, texts))
        except BadInputError:
            continue  # its events are rows of `trace_unknown`
    return ftrace_format.formats(header, events), told.page_bytes


def _run(item: FrameIn) -> PageRun:
    frame = item.frame
    pages = ftrace.unpack(frame.body)
    match = _CPU.fullmatch(frame.stream.instance)
    assert match is not None
    return PageRun(frame.stream, int(match[1]), frame.first, pages.page_bytes, pages.data, item.arrival_ns)


def _cut(frame: Frame, start: int, end: int) -> Frame:
    check(frame)
    pages = ftrace.unpack(frame.body)
    first, last = ((at - frame.first) * pages.page_bytes for at in (start, end))
    body = ftrace.head(end - start, pages.page_bytes) + bytes(pages.data[first:last])
    return dataclasses.replace(frame, first=start, next=end, count=end - start, body=body)


# A dead letter of no position: the events are rows.
def _refused(refused: Counter[str], item: FrameIn) -> BadRecord:
    what = f"{refused.total()} events of {len(refused)} kinds, as {min(refused)}, are rows of {UNKNOWN.name}"
    return bad_frame(item, "too-many-kinds", what)._replace(data=b"", positions=0)


# A dead letter beside the page's rows: its position is not given up.
def _faults(found: Events, items: list[FrameIn]) -> Iterator[BadRecord]:
    by_stream: dict[Stream, list[FrameIn]] = {}
    for item in items if found.faults else ():
        by_stream.setdefault(item.frame.stream, []).append(item)
    for mine in by_stream.values():
        mine.sort(key=lambda item: item.frame.first)
    for fault in found.faults:
        mine = by_stream[fault.stream]
        item = mine[bisect_right(mine, fault.page, key=lambda item: item.frame.first) - 1]
        what = f"byte {fault.at}: {fault.fault.name.lower()}, {fault.events} events before it are rows"
        where = (item.offset, item.arrival_ns)
        yield BadRecord(fault.stream, fault.page, "page", what, bytes(fault.data[fault.at :]), *where, positions=0)
