"""Frames of BPF records to one table for each program, as the descriptor that the frames name says.

`bpf_records` finds the records in the ring's bytes, `bpf_btf` and `bpf_layout` say what one is, `bpf_columns` makes
columns; `bpf_rows` puts them together. A type that cannot be read costs no record: its rows are raw.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa

from consumers.decode import bpf_counts, bpf_layout, bpf_records, bpf_rows, bpf_text
from consumers.decode.base import Admit, BadRecord, Decoded, FrameIn, bad_frame, every_kind
from consumers.decode.bpf_btf import Btf
from consumers.decode.bpf_layout import Layout
from consumers.decode.bpf_rows import Run
from consumers.lake.tables import TableSpec
from consumers.lake.unify import concatenated, folded
from schemas import bpf
from schemas.errors import BadInputError
from schemas.frame import Frame

if TYPE_CHECKING:
    from schemas.stream import Stream

TABLES: Final[tuple[TableSpec, ...]] = ()
POSITION: Final = "position"
ONE_ROW_EACH: Final = True
_FAMILY: Final = "bpf_"
_INSTANCE: Final = re.compile(r"(pinned/)?([^/\0]{1,128})")
_LAYOUTS_HELD: Final = 64


class _Known(NamedTuple):
    """What a descriptor says: `layout` is None where a record is raw bytes, and then `why` if it should not be."""

    program: str
    big_endian: bool
    layout: Layout | None
    why: str


def owns(table: str) -> bool:
    """Return whether `table` is that of a program."""
    return table.startswith(_FAMILY) and not bpf_counts.owns(table)


def spec(table: str, schema: pa.Schema) -> TableSpec:
    """Return the layout of the program's table `table` with this `schema`."""
    return bpf_rows.spec(table, schema)


def columns_sql(table: str, names: Sequence[str]) -> str:  # noqa: ARG001 - every decoder has this signature
    """Return `*`: the table is queried as it is stored."""
    return "*"


def time_order(table: str) -> str:  # noqa: ARG001 - every decoder has this signature
    """Return the order of time: a record that was begun later, and stands behind, may have the earlier time."""
    return "machine, boot_id, clock, ts_ns, instance, position"


def check(frame: Frame) -> None:
    """Verify that the body is a stretch of ring with a record for each position, of a program, with a descriptor.

    Raises:
        BadInputError: `reason` is `body`.
    """
    _walk(_formed(frame))


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

    So is one of a table that `admit` refuses; where it refuses only its columns, its rows are raw.
    """
    bad: list[BadRecord] = []
    tables: dict[str, list[pa.Table]] = {}
    rows: Counter[Stream] = Counter()
    for (name, table), items in _by_descriptor(frames, bad).items():
        try:
            known = _known(descriptors[name])
        except KeyError:
            bad += [bad_frame(item, "descriptor", f"nobody has sent the types {name.hex()}") for item in items]
            continue
        except BadInputError as e:
            bad += [bad_frame(item, "descriptor", f"the types {name.hex()}: {e}") for item in items]
            continue
        if known.why:
            bad.append(
                bad_frame(items[0], "type", f"{table} has raw rows: {known.why}")._replace(data=b"", positions=0)
            )
        kept, runs = _runs(items, known, bad)
        layout, machines = known.layout, {item.frame.stream.machine for item in kept}
        if kept and layout and not admit(machines, table, bpf_rows.columns(layout)):
            what = f"{table} has raw rows: it has too many sorts of columns, or its machine has brought too many kinds"
            bad.append(bad_frame(kept[0], "too-many-kinds", what)._replace(data=b"", positions=0))
            layout = None
        if kept and not layout and not admit(machines, table, bpf_rows.columns(None)):
            what = f"no table {table}: too many kinds of rows are known"
            bad += [bad_frame(item, "too-many-kinds", what) for item in kept]
            continue
        found = bpf_rows.decode(runs, layout)
        bad += _short(found.short, kept)
        rows += found.by_stream
        if found.table.num_rows:
            tables.setdefault(table, []).append(found.table)
    return Decoded({table: concatenated(parts) for table, parts in tables.items()}, bad, dict(rows))


def text_lines(decoded: Decoded) -> Iterator[str]:
    """Yield the records of all programs by time, in the style of the kernel's own `trace` file."""
    return bpf_text.lines({name: folded(table) for name, table in decoded.tables.items()})


def _formed(frame: Frame) -> bpf.Records:
    records = bpf.unpack(frame.body)
    if not records.count == frame.count == frame.next - frame.first:
        what = f"{records.count} records in the body, {frame.count} stated, for [{frame.first}, {frame.next})"
        raise BadInputError("body", what)
    if frame.descriptor is None or not _INSTANCE.fullmatch(frame.stream.instance):
        what = f"records of {frame.stream.instance!r:.80}: they need a PROGRAM or pinned/NAME, and a descriptor"
        raise BadInputError("body", what)
    return records


# In the order of streams and positions.
def _by_descriptor(frames: list[FrameIn], bad: list[BadRecord]) -> dict[tuple[bytes, str], list[FrameIn]]:
    found: dict[tuple[bytes, str], list[FrameIn]] = {}
    for item in sorted(frames, key=lambda item: (item.frame.stream, item.frame.first)):
        try:
            _formed(item.frame)
        except BadInputError as e:
            bad.append(bad_frame(item, e.reason, e.detail))
            continue
        assert item.frame.descriptor is not None
        found.setdefault((item.frame.descriptor, _table(item.frame.stream.instance)), []).append(item)
    return found


# SQL takes upper and lower case for one. No program that comes with the agent has a name that begins with `pinned`.
def _table(instance: str) -> str:
    match = _INSTANCE.fullmatch(instance)
    assert match is not None
    return _FAMILY + re.sub(r"\W", "_", (match[1] or "") + match[2], flags=re.ASCII).lower()


# Laying out a struct takes milliseconds where the BTF is large, and every commit needs the same.
@lru_cache(_LAYOUTS_HELD)
def _known(body: bytes) -> _Known:
    told = bpf.unpack_types(body)
    big_endian = told.byteorder == "big"
    if not told.type:
        return _Known(told.program, big_endian, None, "")
    try:
        btf = Btf(told.btf)
        if btf.big_endian != big_endian:
            return _Known(
                told.program, big_endian, None, f"records are {told.byteorder} endian and their types are not"
            )
        return _Known(told.program, big_endian, bpf_layout.layout(btf, told.type), "")
    except BadInputError as e:
        return _Known(told.program, big_endian, None, str(e))


# A frame does not say its byte order, the descriptor does. Of the other one it would have to be a ring just so.
def _walk(records: bpf.Records) -> bpf_records.Found:
    try:
        return bpf_records.walk(records.data, records.count, big_endian=False)
    except BadInputError as little:
        try:
            return bpf_records.walk(records.data, records.count, big_endian=True)
        except BadInputError:
            raise little from None


# Those whose rings can be read, and what is in these.
def _runs(items: list[FrameIn], known: _Known, bad: list[BadRecord]) -> tuple[list[FrameIn], list[Run]]:
    kept, runs = [], []
    for item in items:
        frame = item.frame
        if known.program != frame.stream.instance:
            what = f"records of {frame.stream.instance!r:.80} name the types of {known.program!r:.80}"
            bad.append(bad_frame(item, "descriptor", what))
            continue
        records = bpf.unpack(frame.body)
        try:
            found = bpf_records.walk(records.data, records.count, big_endian=known.big_endian)
        except BadInputError as e:
            bad.append(bad_frame(item, e.reason, e.detail))
            continue
        kept.append(item)
        runs.append(Run(frame.stream, frame.first, records.ring_position, records.data, found, item.arrival_ns))
    return kept, runs


def _cut(frame: Frame, start: int, end: int) -> Frame:
    records = _formed(frame)
    starts, lengths = _walk(records)
    first, last = start - frame.first, end - frame.first
    begin = int(starts[first]) - bpf.RECORD_HEAD_BYTES if 0 < first < records.count else 0
    until = len(records.data)
    if last < records.count:
        until = (int(starts[last - 1] + lengths[last - 1]) + 7) & ~7 if last > first else begin
    elif first == records.count:
        begin = until
    body = bpf.pack(end - start, records.ring_position + begin, bytes(records.data[begin:until]))
    return dataclasses.replace(frame, first=start, next=end, count=end - start, body=body)


def _short(short: list[bpf_rows.Short], items: list[FrameIn]) -> Iterator[BadRecord]:
    for each in short:
        item = items[each.run]
        what = f"{len(each.data)} bytes are fewer than its struct has"
        where = (item.offset, item.arrival_ns)
        yield BadRecord(item.frame.stream, each.position, "record", what, each.data, *where)
