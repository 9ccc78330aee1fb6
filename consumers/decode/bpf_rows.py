"""Stretches of BPF rings to the rows of one table: of one struct, or raw where nobody knows the struct.

Pure: bytes and a layout in, an Arrow table out. Rows are in the order of (stream, position), which is the order in
which the programs reserved their records and not that of time.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from consumers.decode import bpf_columns, slice_columns
from consumers.decode.bpf_columns import Named
from consumers.decode.bpf_layout import Layout
from consumers.decode.bpf_records import Found
from consumers.decode.slice_columns import Slices, Words
from consumers.decode.slices import Bytes, Ints
from consumers.lake.tables import STREAM_COLUMNS, WORD, TableSpec
from consumers.lake.unify import columns_id
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
_BY_RECORD: Final = ("run_of", "starts", "lengths", "position", "ring_position", "arrival_ns")
# Bytes decoded in one go: enough that the cost of a column is that of its rows, little enough to stay in a cache.
_GROUP_BYTES: Final = 4 << 20
_HEAD_BYTES: Final = bpf.RECORD_HEAD_BYTES
_threads: Final = threading.local()


class Run(NamedTuple):
    """Records of one stream as they lay in the ring: those that were `found` in `data`, the first at position `first`.

    `ring_position` is the ring's byte counter where `data` begins; `arrival_ns` is when the log got it (CLOCK_REALTIME,
    ns).
    """

    stream: Stream
    first: int
    ring_position: int
    data: Any
    found: Found
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
    """Some runs in one buffer, from number `begin` on; the buffer is valid until the next group.

    By record its run among them, where its data is in the buffer, and the columns that its run knows.
    """

    begin: int
    runs: list[Run]
    octets: Bytes
    run_of: Ints
    starts: Ints
    lengths: Ints
    position: Ints
    ring_position: Ints
    arrival_ns: Ints


def spec(table: str, schema: pa.Schema) -> TableSpec:
    """Return how a table with this schema is laid out."""
    # Nobody knows whether a number of somebody's struct has few values or many. A dictionary of many costs several
    # times what split bytes do, and of few it gains little; what has names has few.
    named = frozenset(name.removesuffix("_name") for name in schema.names if name.endswith("_name"))
    numbers = [each.name for each in schema if pa.types.is_integer(each.type) and each.name not in TAKEN]
    few = (*(each.name for each in schema if each.type == WORD), *(name for name in numbers if name in named))
    return TableSpec(table, schema, _SORT_KEYS, few, _DELTA, tuple(name for name in numbers if name not in named))


def columns(layout: Layout | None) -> str:
    """Return what the columns of rows of `layout` are called, raw ones without (`unify.columns_id`)."""
    return columns_id(_schema(bpf_columns.named(layout, TAKEN) if layout else [], typed=layout is not None))


def decode(runs: list[Run], layout: Layout | None) -> Rows:
    """Return the rows of `runs`, which are in the order of their streams and positions, raw without a `layout`."""
    own = bpf_columns.named(layout, TAKEN) if layout else []
    schema = _schema(own, typed=layout is not None)
    words: dict[str, Words] = {}
    chunks: dict[str, list[pa.Array]] = {name: [] for name in schema.names}
    short: list[Short] = []
    for group in _groups(runs):
        whole = group
        if layout and int(group.lengths.min(initial=layout.size)) < layout.size:
            enough = group.lengths >= layout.size
            short += _short(group, np.flatnonzero(~enough))
            whole = group._replace(**{name: getattr(group, name)[enough] for name in _BY_RECORD})
        if len(whole.starts):
            for name, array in _arrays(whole, layout, own, words).items():
                chunks[name].append(array)
    texts = {name: pa.array(known, pa.string()) for name, known in words.items()}
    columns = [
        pa.chunked_array(
            [slice_columns.of_words(each, texts[field.name]) for each in chunks[field.name]]
            if field.type == WORD
            else chunks[field.name],
            field.type,
        )
        for field in schema
    ]
    by_stream: Counter[Stream] = Counter()
    for run in runs:
        by_stream[run.stream] += len(run.found.starts)
    for each in short:
        by_stream[runs[each.run].stream] -= 1
    return Rows(pa.Table.from_arrays(columns, schema=schema), +by_stream, short)


def _schema(own: list[Named], *, typed: bool) -> pa.Schema:
    timed = any(each.is_time for each in own)
    front = [each.with_nullable(not timed) if each.name == bpf_columns.TIME else each for each in FRONT]
    members = [field for column in own for field in bpf_columns.fields(column)]
    return pa.schema([*front, *members, bpf_columns.SURPLUS] if typed else [*front, DATA])


def _groups(runs: list[Run]) -> Iterator[_Group]:
    begin, size_bytes = 0, 0
    for number, run in enumerate(runs, 1):
        size_bytes += len(run.data)
        if size_bytes >= _GROUP_BYTES or number == len(runs):
            yield _group(begin, runs[begin:number])
            begin, size_bytes = number, 0


def _group(begin: int, runs: list[Run]) -> _Group:
    octets = _buffer(sum(len(run.data) for run in runs))
    np.concatenate([np.frombuffer(run.data, np.uint8) for run in runs], out=octets)
    moved = np.cumsum([0, *(len(run.data) for run in runs[:-1])]).tolist()
    counts = [len(run.found.starts) for run in runs]
    return _Group(
        begin,
        runs,
        octets,
        np.repeat(np.arange(len(runs)), counts),
        np.concatenate([run.found.starts + by for run, by in zip(runs, moved, strict=True)]),
        np.concatenate([run.found.lengths for run in runs]),
        np.concatenate([np.arange(run.first, run.first + count) for run, count in zip(runs, counts, strict=True)]),
        np.concatenate([run.found.starts + (run.ring_position - _HEAD_BYTES) for run in runs]),
        np.repeat(np.array([run.arrival_ns for run in runs]), counts),
    )


# The same memory again and again: fresh pages of the system's cost more than to copy into them.
def _buffer(size_bytes: int) -> Bytes:
    held: Bytes | None = getattr(_threads, "buffer", None)
    if held is None or len(held) < size_bytes:
        held = _threads.buffer = np.empty(size_bytes, np.uint8)
    return held[:size_bytes]


def _arrays(group: _Group, layout: Layout | None, own: list[Named], words: dict[str, Words]) -> dict[str, pa.Array]:
    starts, lengths = group.starts, group.lengths
    found: dict[str, pa.Array] = {}
    for i, name in enumerate(STREAM_COLUMNS):
        known = words.setdefault(name, {})
        numbers = np.array([known.setdefault(run.stream[i], len(known)) for run in group.runs], np.int32)
        found[name] = pa.array(numbers[group.run_of] if len(known) > 1 else np.zeros(len(starts), np.int32))
    for name in ("position", "ring_position", "arrival_ns"):
        found[name] = pa.array(getattr(group, name))
    if layout is None:
        return found | {
            "ts_ns": pa.nulls(len(starts), pa.int64()),
            "data": slice_columns.binaries(Slices(group.octets, starts, lengths)),
        }
    rows = bpf_columns.gather(group.octets, starts, lengths, layout)
    time = next((column for column in own if column.is_time), None)
    found["ts_ns"] = pa.array(bpf_columns.times(rows, time)) if time else pa.nulls(len(starts), pa.int64())
    for column in own:
        found |= bpf_columns.arrays(rows, column, words)
    return found | {bpf_columns.SURPLUS.name: bpf_columns.surplus(rows, layout)}


def _short(group: _Group, rows: Ints) -> Iterator[Short]:
    for row in rows.tolist():
        start, end = int(group.starts[row]), int(group.starts[row] + group.lengths[row])
        run, position = group.begin + int(group.run_of[row]), int(group.position[row])
        yield Short(run, position, group.octets[start:end].tobytes())
