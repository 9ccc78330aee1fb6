"""Runs of raw trace pages to one table for each kind of event, and what was lost, unknown or wrong on the way.

Pure: pages and formats in, Arrow tables out. Rows are in the order of (stream, cpu, page, position), which is the
kernel's order within a CPU; across CPUs only times compare, and only where the clock allows it.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumers.decode import ftrace_columns, ftrace_pages, slice_columns
from consumers.decode.ftrace_format import UNKNOWN_TABLE, Format, Formats
from consumers.decode.ftrace_pages import Fault, Walked
from consumers.decode.slice_columns import Slices
from consumers.decode.slices import Bytes, Ints
from consumers.lake.tables import WORD, TableSpec
from schemas.stream import Stream

_PLACE: Final = (
    *(pa.field(name, WORD, nullable=False) for name in ("machine", "boot_id", "layer", "surface", "instance")),
    pa.field("cpu", pa.int32(), nullable=False),
    pa.field("clock", WORD, nullable=False),
    pa.field("page", pa.int64(), nullable=False),
    pa.field("position", pa.int32(), nullable=False),
    pa.field("ts_ns", pa.int64(), nullable=False),
)
_SORT_KEYS: Final = ("machine", "boot_id", "layer", "surface", "instance", "cpu", "clock", "page", "position")
_DELTA: Final = ("page", "position", "ts_ns", "arrival_ns")
_ARRIVAL: Final = pa.field("arrival_ns", pa.int64(), nullable=False)
#: The columns in front of every event's own.
FRONT: Final = (*_PLACE, _ARRIVAL, *ftrace_columns.CONTEXT_FIELDS)
#: Names that no column of a field has: those in front, and those that the view adds.
TAKEN: Final = frozenset((*(each.name for each in FRONT), *ftrace_columns.CONTEXT_SQL))
_NARROW: Final = frozenset((pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32()))
#: The table of events whose id has no format, or that are shorter than their format says.
UNKNOWN: Final = TableSpec(
    UNKNOWN_TABLE,
    pa.schema(
        [
            *_PLACE,
            _ARRIVAL,
            pa.field("event_id", pa.int32(), nullable=False),
            pa.field("reason", WORD, nullable=False),
            pa.field("data", pa.binary(), nullable=False),
        ]
    ),
    _SORT_KEYS,
    (*(key for key in _SORT_KEYS if key not in _DELTA), "event_id", "reason"),
    _DELTA,
)
# Pages decoded in one go: enough that the cost of a column is that of its rows, little enough to stay in a cache.
_GROUP_BYTES: Final = 4 << 20
_threads: Final = threading.local()


class PageRun(NamedTuple):
    """Pages of one CPU of one stream, one behind the other, as the kernel gave them; `first_page` is their number.

    `arrival_ns` is when the log got them (CLOCK_REALTIME, ns).
    """

    stream: Stream
    cpu: int
    first_page: int
    page_bytes: int
    data: Any
    arrival_ns: int = 0


class PageLoss(NamedTuple):
    """Events lost before the first event of `page`; `count` is None where the kernel did not keep it."""

    stream: Stream
    cpu: int
    page: int
    count: int | None  # type: ignore[assignment]  # shadows tuple.count


class PageFault(NamedTuple):
    """A page that is wrong from byte `at` on; the `events` before it are rows."""

    stream: Stream
    cpu: int
    page: int
    fault: Fault
    at: int
    events: int
    data: bytes


@dataclass(slots=True)
class Events:
    """What `decode` found.

    `tables` by name, `pages` and `events` read in all and `by_stream`, among them those `unknown` by id and `short` by
    table (both kept raw in `trace_unknown`); `dangling` counts fields that point outside their event, by table and
    column.
    """

    tables: dict[str, pa.Table] = field(default_factory=dict)
    pages: int = 0
    events: int = 0
    by_stream: Counter[Stream] = field(default_factory=Counter)
    losses: list[PageLoss] = field(default_factory=list)
    faults: list[PageFault] = field(default_factory=list)
    unknown: Counter[int] = field(default_factory=Counter)
    short: Counter[str] = field(default_factory=Counter)
    dangling: Counter[tuple[str, str]] = field(default_factory=Counter)


class _Group(NamedTuple):
    """Some pages of one size in one buffer; by page its run, the codes of its stream's tags, and its number.

    `octets` and `walked` are valid until the next group.
    """

    runs: list[PageRun]
    octets: Bytes
    walked: Walked
    run_of: Ints
    tags: list[npt.NDArray[np.int32]]
    number: Ints
    zeros: npt.NDArray[np.int32]


def schema(event: Format) -> pa.Schema:
    """Return the columns of one event's table: those of `FRONT`, then the event's own."""
    own = ftrace_columns.columns(event, TAKEN)
    context = ftrace_columns.context_fields(event)
    return pa.schema([*_PLACE, _ARRIVAL, *context, *(ftrace_columns.arrow_field(column) for column in own)])


def spec(table: str, schema: pa.Schema) -> TableSpec:
    """Return how a table with this schema is laid out."""
    # Addresses, times and sums have as many values as rows, so that a dictionary of them would only add to them. What
    # has names is neither, whatever its width.
    names = frozenset(schema.names)
    few = tuple(
        each.name
        for each in schema
        if each.name not in _DELTA and (each.type == WORD or each.type in _NARROW or f"{each.name}_name" in names)
    )
    return TableSpec(table, schema, _SORT_KEYS, few, _DELTA)


def decode(runs: list[PageRun], formats: Formats) -> Events:
    """Return the events of `runs`, which may be of any number of streams for which `formats` hold, in any order.

    A run that does not end with a whole page has a fault there. No bytes raise an error.
    """
    found = Events()
    batches: dict[str, list[pa.RecordBatch]] = defaultdict(list)
    runs = sorted(runs, key=lambda run: (run.stream, run.cpu, run.first_page))
    words = [list(dict.fromkeys(run.stream[i] for run in runs)) for i in range(len(Stream._fields))]
    own = {number: ftrace_columns.columns(event, TAKEN) for number, event in formats.events.items()}
    schemas = {number: schema(event) for number, event in formats.events.items()}
    for group in _groups(runs, words, formats, found):
        _report(group, found)
        for number, rows in _by_id(group.walked):
            event = formats.events.get(number)
            if event is None:
                found.unknown[number] += len(rows)
                batches[UNKNOWN_TABLE].append(_unknown(group, rows, words, "unknown id"))
                continue
            table = formats.table_names[number]
            long_enough = group.walked.length[rows] >= event.size
            if not long_enough.all():
                found.short[table] += int(np.count_nonzero(~long_enough))
                batches[UNKNOWN_TABLE].append(_unknown(group, rows[~long_enough], words, "short"))
            whole = rows[long_enough]
            if len(whole):
                arrays = _place(group, whole, words) | _fields(group, whole, event, own[number], formats)
                batches[table].append(pa.RecordBatch.from_arrays(list(arrays.values()), schema=schemas[number]))
                _dangling(arrays, table, own[number], found)
    for table in sorted(batches):
        found.tables[table] = pa.Table.from_batches(batches[table]).unify_dictionaries()
    return found


def _groups(runs: list[PageRun], words: list[list[str]], formats: Formats, found: Events) -> Iterator[_Group]:
    kept: list[PageRun] = []
    size_bytes = 0
    for run in runs:
        whole = len(run.data) // run.page_bytes
        if kept and (size_bytes >= _GROUP_BYTES or kept[0].page_bytes != run.page_bytes):
            yield _group(kept, words, formats)
            kept, size_bytes = [], 0
        rest = bytes(run.data[whole * run.page_bytes :])
        if rest:
            where = (run.stream, run.cpu, run.first_page + whole)
            found.faults.append(PageFault(*where, Fault.TRUNCATED, 0, 0, rest))
            run = run._replace(data=memoryview(run.data)[: whole * run.page_bytes])  # noqa: PLW2901
        if whole:
            kept.append(run)
            size_bytes += len(run.data)
    if kept:
        yield _group(kept, words, formats)


def _group(runs: list[PageRun], words: list[list[str]], formats: Formats) -> _Group:
    try:
        space = _threads.space
    except AttributeError:
        space = _threads.space = ftrace_pages.Space()
    octets = np.frombuffer(runs[0].data, np.uint8) if len(runs) == 1 else space.joined([run.data for run in runs])
    walked = ftrace_pages.walk(octets, formats.header, runs[0].page_bytes, space)
    pages = [len(run.data) // run.page_bytes for run in runs]
    run_of = np.repeat(np.arange(len(runs)), pages)
    tags = []
    for i, values in enumerate(words):
        code = {value: n for n, value in enumerate(values)}
        tags.append(np.array([code[run.stream[i]] for run in runs], np.int32)[run_of])
    before = np.cumsum([0, *pages[:-1]])
    number = (np.array([run.first_page for run in runs], np.int64) - before)[run_of] + np.arange(len(run_of))
    return _Group(runs, octets, walked, run_of, tags, number, np.zeros(len(walked.ts), np.int32))


def _by_id(walked: Walked) -> Iterator[tuple[int, Ints]]:
    order = np.argsort(walked.event_id, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(walked.event_id[order])) + 1):
        if len(rows):
            yield int(walked.event_id[rows[0]]), rows


def _report(group: _Group, found: Events) -> None:
    walked, page_bytes = group.walked, group.runs[0].page_bytes
    found.pages += len(group.number)
    found.events += len(walked.page)
    for i, run in enumerate(group.runs):
        found.by_stream[run.stream] += int(walked.events[group.run_of == i].sum())

    def where(page: int) -> tuple[Stream, int, int]:
        run = group.runs[int(group.run_of[page])]
        return run.stream, run.cpu, int(group.number[page])

    for page in np.flatnonzero(walked.lost).tolist():
        count = int(walked.lost[page])
        found.losses.append(PageLoss(*where(page), count if count > 0 else None))
    for page in np.flatnonzero(walked.fault).tolist():
        data = group.octets[page * page_bytes : (page + 1) * page_bytes].tobytes()
        what = (Fault(int(walked.fault[page])), int(walked.fault_at[page]), int(walked.events[page]))
        found.faults.append(PageFault(*where(page), *what, data))


def _place(group: _Group, rows: Ints, words: list[list[str]]) -> dict[str, pa.Array]:
    page = group.walked.page[rows]
    arrays: dict[str, pa.Array] = {}
    for name, values, codes in zip(Stream._fields, words, group.tags, strict=True):
        codes_of = codes[page] if len(values) > 1 else group.zeros[: len(rows)]
        arrays[name] = pa.DictionaryArray.from_arrays(codes_of, pa.array(values, pa.string()))
    cpu, arrival_ns = (np.array([run[i] for run in group.runs]) for i in (1, 5))
    arrays["cpu"] = pa.array(cpu.astype(np.int32)[group.run_of][page])
    arrays["arrival_ns"] = pa.array(arrival_ns[group.run_of][page])
    arrays["page"] = pa.array(group.number[page])
    arrays["position"] = pa.array(group.walked.position[rows])
    arrays["ts_ns"] = pa.array(group.walked.ts[rows])
    return {each.name: arrays[each.name] for each in (*_PLACE, _ARRIVAL)}


def _fields(
    group: _Group, rows: Ints, event: Format, own: list[ftrace_columns.Column], formats: Formats
) -> dict[str, pa.Array]:
    walked, big_endian = group.walked, formats.header.big_endian
    starts, lengths = walked.start[rows], walked.length[rows].astype(np.int64)
    found = ftrace_columns.gather(group.octets, starts, lengths, event.size, big_endian=big_endian)
    arrays = ftrace_columns.context_arrays(found, event)
    return arrays | {column.name: ftrace_columns.column_array(found, column) for column in own}


def _dangling(arrays: dict[str, pa.Array], table: str, own: list[ftrace_columns.Column], found: Events) -> None:
    for column in own:
        if column.names is None and arrays[column.name].null_count:
            found.dangling[table, column.name] += arrays[column.name].null_count


def _unknown(group: _Group, rows: Ints, words: list[list[str]], reason: str) -> pa.RecordBatch:
    walked = group.walked
    arrays = _place(group, rows, words)
    arrays["event_id"] = pa.array(walked.event_id[rows].astype(np.int32))
    arrays["reason"] = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int32), pa.array([reason]))
    where = (group.octets, walked.start[rows], walked.length[rows].astype(np.int64))
    arrays["data"] = slice_columns.binaries(Slices(*where))
    return pa.RecordBatch.from_arrays(list(arrays.values()), schema=UNKNOWN.schema)
