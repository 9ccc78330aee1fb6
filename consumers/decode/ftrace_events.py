"""Runs of raw trace pages to one table for each kind of event, and what was lost, unknown or wrong on the way.

Pure: pages and formats in, Arrow tables out. Rows are in the order of (stream, cpu, page, position), which is the
kernel's order within a CPU; across CPUs only times compare, and only where the clock allows it.
"""

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumers.decode import ftrace_columns, ftrace_cut, ftrace_names, ftrace_pages, memory, slice_columns
from consumers.decode.base import Admit, every_kind
from consumers.decode.ftrace_cut import Part, Texts, Wanted
from consumers.decode.ftrace_format import UNKNOWN_TABLE, Format, Formats
from consumers.decode.ftrace_pages import Fault, Walked
from consumers.decode.slice_columns import Slices
from consumers.decode.slices import Bytes, Ints
from consumers.lake.tables import WORD, TableSpec
from consumers.lake.unify import columns_id
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
_DELTA: Final = ("page", "ts_ns", "arrival_ns")
_ARRIVAL: Final = pa.field("arrival_ns", pa.int64(), nullable=False)
#: The columns in front of every event's own.
FRONT: Final = (*_PLACE, _ARRIVAL, *ftrace_columns.CONTEXT_FIELDS)
#: Names that no column of a field has: those in front, and those that the view adds.
TAKEN: Final = frozenset((*(each.name for each in FRONT), *ftrace_columns.CONTEXT_SQL))
#: The table of events whose id has no format, that are shorter than their format says, or that may have no table.
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
    ("machine", "boot_id", "layer", "surface", "instance", "clock", "reason"),
    _DELTA,
    ("cpu", "position", "event_id"),
)
# Pages decoded in one go: enough that the cost of a column is that of its rows also with a hundred kinds of events, of
# which each takes 0.1 ms, little enough to stay in a cache.
_GROUP_BYTES: Final = 16 << 20
_TAGS: Final = len(Stream._fields)
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

    `tables` by name, `pages` and `events` read in all and `by_stream`, among them those `unknown` by id, and by table
    those `short` and those `refused`, which are to have no table (all three kept raw in `trace_unknown`); `dangling`
    counts fields that point outside their event, by table and column.
    """

    tables: dict[str, pa.Table] = field(default_factory=dict)
    pages: int = 0
    events: int = 0
    by_stream: Counter[Stream] = field(default_factory=Counter)
    losses: list[PageLoss] = field(default_factory=list)
    faults: list[PageFault] = field(default_factory=list)
    unknown: Counter[int] = field(default_factory=Counter)
    short: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    dangling: Counter[tuple[str, str]] = field(default_factory=Counter)


class _Group(NamedTuple):
    """Some pages of one size in one buffer, their events by id, and the rows of those that no format describes.

    By page its run, its number and time of arrival. `tags` are for each column of the place of a CPU the numbers of the
    runs' words, or one for all. All but `numbers` of the parts is valid until the next group.
    """

    runs: list[PageRun]
    octets: Bytes
    walked: Walked
    parts: dict[int, Part]
    others: Ints
    run_of: Ints
    number: Ints
    arrival_ns: Ints
    tags: dict[str, npt.NDArray[np.int32] | int]


class _Kinds:
    """What is wanted of the events of each kind that came, the texts in them so far, and by id their least bytes.

    Those `refused` are to have no table, so nothing is.
    """

    def __init__(self, formats: Formats, machines: Collection[str], admit: Admit) -> None:
        self.formats = formats
        self.wanted: dict[int, Wanted] = {}
        self.refused: set[int] = set()
        self._machines, self._admit = machines, admit
        self.texts: Texts = {}
        # What no format describes is never whole.
        self.least_bytes = np.full(ftrace_pages.IDS, np.iinfo(np.int32).max, np.int32)
        self.least_bytes[list(formats.events)] = [event.size for event in formats.events.values()]

    def come(self, counts: Ints) -> None:
        """Take note of the kinds of which there are some, as `counts` says by id."""
        for number in np.flatnonzero(counts).tolist():
            if number in self.wanted or number in self.refused:
                continue
            if self._admit(self._machines, self.formats.table_names[number], self._columns_id(number)):
                self.wanted[number] = ftrace_columns.wanted(self.formats.events[number])
            else:
                self.refused.add(number)

    def _columns_id(self, number: int) -> str:
        known = self.formats.columns_ids
        if number not in known:
            known[number] = columns_id(schema(self.formats.events[number]))
        return known[number]


class _Table:
    """What the table of one event, None of the unknown, has got so far.

    By column its chunks, and the words that all chunks of such a column share.
    """

    def __init__(self, event: Format | None) -> None:
        self.own = ftrace_columns.columns(event, TAKEN) if event else []
        self.schema = schema(event) if event else UNKNOWN.schema
        self.chunks: dict[str, list[pa.Array]] = {name: [] for name in self.schema.names}
        self.words: dict[str, slice_columns.Words] = {each.name: {} for each in self.schema if each.type == WORD}

    def add(self, arrays: dict[str, pa.Array]) -> None:
        for name, array in arrays.items():
            self.chunks[name].append(array)

    def table(self) -> pa.Table:
        return pa.table([self._column(each) for each in self.schema], schema=self.schema)

    def _column(self, each: pa.Field) -> pa.ChunkedArray:
        chunks = self.chunks[each.name]
        if each.type == WORD:
            words = pa.array(self.words[each.name], pa.string())
            chunks = [slice_columns.of_words(chunk, words) for chunk in chunks]
        return pa.chunked_array(chunks, each.type)


class _Same:
    """Columns of one number, int32(): all of the same number share their memory."""

    def __init__(self) -> None:
        self._held: dict[int, pa.Array] = {}

    def column(self, value: int, rows: int) -> pa.Array:
        held = self._held.get(value)
        if held is None or len(held) < rows:
            values = memory.taken(4 * rows).view(np.int32)
            values[:] = value
            held = self._held[value] = pa.array(values)
        return held.slice(0, rows)


def schema(event: Format) -> pa.Schema:
    """Return the columns of one event's table: those of `FRONT`, then the event's own."""
    own = ftrace_columns.columns(event, TAKEN)
    context = ftrace_columns.context_fields(event)
    return pa.schema([*_PLACE, _ARRIVAL, *context, *(ftrace_columns.arrow_field(column) for column in own)])


def spec(table: str, schema: pa.Schema) -> TableSpec:
    """Return how a table with this schema is laid out."""
    words = tuple(each.name for each in schema if each.type == WORD)
    numbers = (each.name for each in schema if pa.types.is_integer(each.type) and each.name not in _DELTA)
    return TableSpec(table, schema, _SORT_KEYS, words, _DELTA, tuple(numbers))


def decode(runs: list[PageRun], formats: Formats, admit: Admit = every_kind) -> Events:
    """Return the events of `runs`, which may be of any number of streams for which `formats` hold, in any order.

    Those of a kind that `admit` refuses, which is asked once for each, are raw in `trace_unknown`. A run that does not
    end with a whole page has a fault there. No bytes raise an error.
    """
    found = Events()
    tables: dict[str, _Table] = {}
    runs = sorted(runs, key=lambda run: (run.stream, run.cpu, run.first_page))
    tags = [{word: n for n, word in enumerate(dict.fromkeys(run.stream[i] for run in runs))} for i in range(_TAGS)]
    same, looks = _Same(), ftrace_names.Looks()

    def table_of(name: str, event: Format | None) -> _Table:
        if name not in tables:
            tables[name] = _Table(event)
            tables[name].words |= dict(zip(Stream._fields, tags, strict=True))
        return tables[name]

    kinds = _Kinds(formats, {run.stream.machine for run in runs}, admit)
    for group in _groups(runs, tags, kinds, found):
        _report(group, found)
        for number, part in group.parts.items():
            table = table_of(formats.table_names[number], formats.events[number])
            event = formats.events[number]
            cut = ftrace_columns.Rows(group.octets, part, event, looks, big_endian=formats.header.big_endian)
            arrays = _place(group, part, same) | _fields(cut, event, table)
            table.add(arrays)
            _dangling(arrays, formats.table_names[number], table.own, found)
        if len(group.others):
            _unknown(group, kinds, same, table_of(UNKNOWN_TABLE, None), found)
    found.tables = {name: tables[name].table() for name in sorted(tables)}
    return found


def _groups(runs: list[PageRun], tags: list[dict[str, int]], kinds: _Kinds, found: Events) -> Iterator[_Group]:
    kept: list[PageRun] = []
    size_bytes = 0
    for run in runs:
        whole = len(run.data) // run.page_bytes
        if kept and (size_bytes >= _GROUP_BYTES or kept[0].page_bytes != run.page_bytes):
            yield _group(kept, tags, kinds)
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
        yield _group(kept, tags, kinds)


def _group(runs: list[PageRun], words: list[dict[str, int]], kinds: _Kinds) -> _Group:
    try:
        space = _threads.space
    except AttributeError:
        space = _threads.space = ftrace_pages.Space()
    octets = np.frombuffer(runs[0].data, np.uint8) if len(runs) == 1 else space.joined([run.data for run in runs])
    walked = ftrace_pages.walk(octets, kinds.formats.header, runs[0].page_bytes, space, kinds.least_bytes)
    pages = [len(run.data) // run.page_bytes for run in runs]
    run_of = np.repeat(np.arange(len(runs)), pages)
    before = np.cumsum([0, *pages[:-1]])
    number = (np.array([run.first_page for run in runs], np.int64) - before)[run_of] + np.arange(len(run_of))
    arrival_ns = np.array([run.arrival_ns for run in runs], np.int64)[run_of]
    tags: dict[str, npt.NDArray[np.int32] | int] = {}
    for i, name in enumerate((*Stream._fields, "cpu")):
        values = [run.cpu if name == "cpu" else words[i][run.stream[i]] for run in runs]
        # The pages of a CPU come one behind the other, so that most groups have one value.
        tags[name] = values[0] if len(set(values)) == 1 else np.array(values, np.int32)
    kinds.come(walked.counts)
    differ = any(not isinstance(values, int) for values in tags.values())
    cut = ftrace_cut.cut(octets, walked, kinds.wanted, (number, arrival_ns), kinds.texts, space, pages=differ)
    return _Group(runs, octets, walked, *cut, run_of, number, arrival_ns, tags)


def _report(group: _Group, found: Events) -> None:
    walked, page_bytes = group.walked, group.runs[0].page_bytes
    found.pages += len(group.number)
    found.events += len(walked.page)
    of_runs = np.bincount(group.run_of, walked.events, len(group.runs))
    for run, events in zip(group.runs, of_runs.tolist(), strict=True):
        found.by_stream[run.stream] += int(events)

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


# Of columns of words the numbers.
def _place(group: _Group, part: Part, same: _Same) -> dict[str, pa.Array]:
    arrays = _tags(group, part.page, len(part.ts), same)
    arrays["page"], arrays["position"] = pa.array(part.number), pa.array(part.position)
    arrays["ts_ns"], arrays["arrival_ns"] = pa.array(part.ts), pa.array(part.arrival_ns)
    return arrays


def _tags(group: _Group, page: npt.NDArray[Any] | None, rows: int, same: _Same) -> dict[str, pa.Array]:
    return {
        name: same.column(values, rows) if isinstance(values, int) else pa.array(values[group.run_of[page]])
        for name, values in group.tags.items()
    }


def _fields(rows: ftrace_columns.Rows, event: Format, table: _Table) -> dict[str, pa.Array]:
    arrays = ftrace_columns.context_arrays(rows, event)
    return arrays | {
        column.name: ftrace_columns.column_array(rows, column, table.words.get(column.name, {})) for column in table.own
    }


def _dangling(arrays: dict[str, pa.Array], table: str, own: list[ftrace_columns.Column], found: Events) -> None:
    for column in own:
        if column.names is None and arrays[column.name].null_count:
            found.dangling[table, column.name] += arrays[column.name].null_count


def _unknown(group: _Group, kinds: _Kinds, same: _Same, table: _Table, found: Events) -> None:
    formats = kinds.formats
    walked, rows = group.walked, group.others
    ids, page = walked.event_id[rows], walked.page[rows]
    words = table.words["reason"]
    short, refused, unknown = (words.setdefault(reason, len(words)) for reason in ("short", "too many", "unknown id"))
    reasons = np.full(ftrace_pages.IDS, unknown, np.int32)
    for number, count in Counter(ids.tolist()).items():
        if number in kinds.refused:
            reasons[number] = refused
            found.refused[formats.table_names[number]] += count
        elif number in formats.events:
            reasons[number] = short
            found.short[formats.table_names[number]] += count
        else:
            found.unknown[number] += count
    arrays = _tags(group, page, len(rows), same)
    arrays["page"], arrays["position"] = pa.array(group.number[page]), pa.array(walked.position[rows])
    arrays["ts_ns"], arrays["arrival_ns"] = pa.array(walked.ts[rows]), pa.array(group.arrival_ns[page])
    arrays["event_id"] = pa.array(ids.astype(np.int32))
    arrays["reason"] = pa.array(reasons[ids])
    starts, lengths = walked.start[rows], walked.length[rows].astype(np.int64)
    arrays["data"] = slice_columns.binaries(Slices(group.octets, starts, lengths))
    table.add(arrays)
