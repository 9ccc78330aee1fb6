"""Stretches of BPF rings to the rows of one table: of one struct, or raw where nobody knows the struct.

Pure: bytes and a layout in, an Arrow table out. Rows are in the order of (stream, position), which is the order in
which the programs reserved their records and not that of time.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumers.decode import bpf_columns, bpf_records, slice_columns
from consumers.decode.bpf_columns import Named, Words
from consumers.decode.bpf_layout import Layout
from consumers.decode.slice_columns import Slices
from consumers.decode.slices import Bytes, Ints
from consumers.lake.tables import STREAM_COLUMNS, WORD, TableSpec
from schemas import bpf
from schemas.stream import Stream

#: The columns in front of every record's own.
FRONT: Final = (
    *(pa.field(name, WORD, nullable=False) for name in STREAM_COLUMNS),
    pa.field("position", pa.int64(), nullable=False),
    pa.field("ring_position", pa.int64(), nullable=False),
    pa.field("ts_ns", pa.int64()),
    pa.field("arrival_ns", pa.int64(), nullable=False),
)
#: The column of records whose struct nobody knows.
DATA: Final = pa.field("data", pa.binary(), nullable=False)
#: Names that no member of a struct has as a column.
TAKEN: Final = frozenset(each.name for each in FRONT)
_SORT_KEYS: Final = (*STREAM_COLUMNS, "position")
_DELTA: Final = ("position", "ring_position", "ts_ns", "arrival_ns")
_NARROW: Final = frozenset((pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32()))
# Bytes decoded in one go: enough that the cost of a column is that of its rows, little enough to stay in a cache.
_GROUP_BYTES: Final = 4 << 20
_HEAD_BYTES: Final = bpf.RECORD_HEAD_BYTES


class Run(NamedTuple):
    """Records of one stream as they lay in the ring: `data` has `count`, the first with the position `first`.

    `ring_position` is the ring's byte counter where `data` begins; `arrival_ns` is when the log got it (CLOCK_REALTIME,
    ns).
    """

    stream: Stream
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count
    ring_position: int
    data: Any
    arrival_ns: int


class Short(NamedTuple):
    """A record shorter than its struct: the `position` in its stream, its bytes, and the index of its run."""

    run: int
    position: int
    data: bytes


class Rows(NamedTuple):
    """The rows of some runs, how many each stream got, and the records that are none."""

    table: pa.Table
    by_stream: Counter[Stream]
    short: list[Short]


class _Group(NamedTuple):
    """Some runs in one buffer, from number `begin` on; by record its run among them and where its data is."""

    begin: int
    runs: list[Run]
    octets: Bytes
    run_of: npt.NDArray[np.int64]
    starts: Ints
    lengths: Ints


def spec(table: str, schema: pa.Schema) -> TableSpec:
    """Return how a table with this schema is laid out."""
    # Times, counters and addresses have as many values as rows, so that a dictionary of them would only add to them.
    names = frozenset(schema.names)
    few = tuple(
        each.name
        for each in schema
        if each.name not in _DELTA
        and (each.type == WORD or each.type in _NARROW or (_is_integer(each) and f"{each.name}_name" in names))
    )
    return TableSpec(table, schema, _SORT_KEYS, few, _DELTA)


def decode(runs: list[Run], layout: Layout | None, big_endian: bool) -> Rows:
    """Return the rows of `runs`, which are in the order of their streams and positions, raw without a `layout`.

    Raises:
        BadInputError: `reason` is `body`: a run's data is not its records.
    """
    own = bpf_columns.named(layout, TAKEN) if layout else []
    schema = _schema(own, typed=layout is not None)
    words: dict[str, Words] = {}
    chunks: dict[str, list[pa.Array]] = {name: [] for name in schema.names}
    by_stream: Counter[Stream] = Counter()
    short: list[Short] = []
    for group in _groups(runs, big_endian=big_endian):
        whole = np.arange(len(group.starts))
        if layout:
            enough = group.lengths >= layout.size
            whole = np.flatnonzero(enough)
            short += _short(group, np.flatnonzero(~enough))
        for number, count in enumerate(np.bincount(group.run_of[whole], minlength=len(group.runs)).tolist()):
            by_stream[group.runs[number].stream] += count
        if len(whole):
            for name, array in _arrays(group, whole, layout, own, words).items():
                chunks[name].append(array)
    texts = {name: pa.array(known, pa.string()) for name, known in words.items()}
    columns = [
        pa.chunked_array(
            [_of_words(each, texts[field.name]) for each in chunks[field.name]]
            if field.type == WORD
            else chunks[field.name],
            field.type,
        )
        for field in schema
    ]
    return Rows(pa.Table.from_arrays(columns, schema=schema), +by_stream, short)


def _of_words(numbers: pa.Array, words: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(numbers, words, safe=False)


def _schema(own: list[Named], *, typed: bool) -> pa.Schema:
    timed = any(each.is_time for each in own)
    front = [each.with_nullable(not timed) if each.name == bpf_columns.TIME else each for each in FRONT]
    members = [field for column in own for field in bpf_columns.fields(column)]
    return pa.schema([*front, *members, bpf_columns.SURPLUS] if typed else [*front, DATA])


def _groups(runs: list[Run], *, big_endian: bool) -> Iterator[_Group]:
    begin, size_bytes = 0, 0
    for number, run in enumerate(runs, 1):
        size_bytes += len(run.data)
        if size_bytes < _GROUP_BYTES and number < len(runs):
            continue
        part = runs[begin:number]
        # Each is whole records, so all of them together are.
        octets = np.concatenate([np.frombuffer(each.data, np.uint8) for each in part])
        counts = [each.count for each in part]
        found = bpf_records.walk(octets, sum(counts), big_endian=big_endian)
        yield _Group(begin, part, octets, np.repeat(np.arange(len(part)), counts), *found)
        begin, size_bytes = number, 0


def _arrays(
    group: _Group, whole: Ints, layout: Layout | None, own: list[Named], words: dict[str, Words]
) -> dict[str, pa.Array]:
    run_of, starts, lengths = (each[whole] for each in (group.run_of, group.starts, group.lengths))
    found: dict[str, pa.Array] = {}
    for i, name in enumerate(STREAM_COLUMNS):
        known = words.setdefault(name, {})
        numbers = np.array([known.setdefault(run.stream[i], len(known)) for run in group.runs], np.int32)
        found[name] = pa.array(numbers[run_of])
    counts = np.array([run.count for run in group.runs])
    first, ring, arrival_ns = (np.array([run[i] for run in group.runs]) for i in (1, 3, 5))
    before = np.cumsum(counts) - counts
    sizes = np.array([len(run.data) for run in group.runs])
    found["position"] = pa.array(whole + (first - before)[run_of])
    found["ring_position"] = pa.array(starts - _HEAD_BYTES + (ring - (np.cumsum(sizes) - sizes))[run_of])
    found["arrival_ns"] = pa.array(arrival_ns[run_of])
    if layout is None:
        return found | {
            "ts_ns": pa.nulls(len(whole), pa.int64()),
            "data": slice_columns.binaries(Slices(group.octets, starts, lengths)),
        }
    rows = bpf_columns.gather(group.octets, starts, lengths, layout)
    time = next((column for column in own if column.is_time), None)
    found["ts_ns"] = pa.array(bpf_columns.times(rows, time)) if time else pa.nulls(len(whole), pa.int64())
    for column in own:
        found |= bpf_columns.arrays(rows, column, words)
    return found | {bpf_columns.SURPLUS.name: bpf_columns.surplus(rows, layout)}


def _short(group: _Group, rows: Ints) -> Iterator[Short]:
    counts = np.array([run.count for run in group.runs])
    before = np.cumsum(counts) - counts
    for row in rows.tolist():
        number, start = int(group.run_of[row]), int(group.starts[row])
        position = group.runs[number].first + row - int(before[number])
        yield Short(group.begin + number, position, group.octets[start : start + int(group.lengths[row])].tobytes())


def _is_integer(field: pa.Field) -> bool:
    return bool(pa.types.is_integer(field.type))
