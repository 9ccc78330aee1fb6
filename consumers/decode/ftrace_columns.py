"""The fields of many events of one kind to Arrow columns, without a Python object per event.

The numbers of all events are cut out of their pages in one pass, a column for each field. Text is numbered by its
bytes; only different texts become strings: cut at the first NUL, and what is no UTF-8 replaced.

Source: kernel/trace/trace_events.c, include/trace/stages/stage1_struct_define.h (`__data_loc`, `__rel_loc`),
include/linux/trace_events.h (`enum trace_flag_type`), kernel/trace/trace.c (`tracing_gen_ctx_irq_test`).
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumers.decode import ftrace_names, slice_columns
from consumers.decode.ftrace_cut import TEXT_BYTES, Part, Text, Wanted
from consumers.decode.ftrace_format import PAYLOAD_BYTES_MAX, Field, Format, Kind, Place
from consumers.decode.ftrace_print import Choice, Names
from consumers.decode.slice_columns import Codes, Slices, Words
from consumers.decode.slices import Bytes, Ints, Mask
from consumers.lake.tables import WORD

#: The columns of every event that come from its common fields: who ran, and in which context.
CONTEXT_FIELDS: Final = (
    pa.field("pid", pa.int32()),
    pa.field("flags", pa.uint8()),
    pa.field("preempt_count", pa.uint8()),
)
_SOURCES: Final = {"pid": "common_pid", "flags": "common_flags", "preempt_count": "common_preempt_count"}
#: The context in readable columns, as SQL over `flags` and `preempt_count`: stored, they would double an event's cost.
#: Kernels before 5.16 have the whole preemption count where later ones count migrate_disable() in the upper half.
CONTEXT_SQL: Final = {
    "irqs_off": "(flags & 1) <> 0",
    "need_resched": "(flags & 4) <> 0",
    "need_resched_lazy": "(flags & 2) <> 0",
    "preempt_resched": "(flags & 32) <> 0",
    "hardirq": "(flags & 8) <> 0",
    "softirq": "(flags & 16) <> 0",
    "nmi": "(flags & 64) <> 0",
    "bh_off": "(flags & 128) <> 0",
    "preempt_depth": "preempt_count & 15",
    "migrate_disable": "preempt_count >> 4",
}
_RESCHED: Final = {0x26: "B", 0x06: "b", 0x24: "N", 0x22: "L", 0x04: "n", 0x20: "p", 0x02: "l"}


class Column(NamedTuple):
    """One column of an event's table: a field, or, where `names` is set, what the field's values are called.

    `tested` are the fields by which it is chosen what they are called.
    """

    name: str
    field: Field
    names: Names | Choice | None
    tested: tuple[Field, ...] = ()


class Rows:
    """Events of one kind, each at least as long as its format says, of which `wanted` was cut out.

    `octets` is the whole buffer, `size` the bytes of their fixed part, `order` the byte order as NumPy writes it;
    `looks` is what naming their values may cost. Fields that lie elsewhere in an event lie there one behind the other,
    so that all together they have no more bytes than the events: what goes beyond that is missing.
    """

    def __init__(
        self, octets: Bytes, part: Part, event: Format, looks: ftrace_names.Looks, *, big_endian: bool
    ) -> None:
        self.octets, self.size, self.count, self.looks = octets, event.size, len(part.ts), looks
        self._elsewhere_left: int | None = None
        self.order = ">" if big_endian else "<"
        self._part, self._rooms = part, iter(part.rooms)
        self._fixed: Bytes | None = None

    @property
    def starts(self) -> Ints:
        """Where each payload begins in `octets`; only of kinds with other fields than numbers and short texts."""
        assert self._part.start is not None
        return self._part.start

    @property
    def lengths(self) -> Ints:
        """The bytes of each payload, as `starts`."""
        assert self._part.length is not None
        return self._part.length

    @property
    def fixed(self) -> Bytes:
        """The fixed parts, row behind row."""
        if self._fixed is None:
            self._fixed = slice_columns.gathered(self.octets, self.starts, self.size)
        return self._fixed

    def numbers(self, field: Field, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the numbers that a field of the fixed part has, in this machine's byte order."""
        found = self._part.numbers[_place(field)].view(dtype)
        return found.astype(dtype.newbyteorder("="), copy=False)

    def text(self, field: Field) -> tuple[Codes, Text]:
        """Return the number of each text of a short field, and the texts."""
        return self._part.texts[field.name]

    def within(self, lengths: Ints) -> bool:
        """Tell whether so many bytes more lie elsewhere in the events, and take them for read."""
        if self._elsewhere_left is None:
            self._elsewhere_left = int(self.lengths.sum())
        self._elsewhere_left -= int(lengths.sum())
        return self._elsewhere_left >= 0

    def room(self) -> Codes:
        """Return room for a column of numbers of names, another one each time."""
        return next(self._rooms)


def wanted(event: Format) -> Wanted:
    """Return what `column_array` and `context_arrays` need of each event."""
    common = [field for field in event.common if field.name in _SOURCES.values()]
    places = dict.fromkeys(_place(field) for field in (*common, *event.fields) if _is_number(field))
    texts = {field.name: _place(field) for field in event.fields if _is_short(field)}
    elsewhere = any(not (_is_short(field) or _is_plain(field)) for field in event.fields)
    return Wanted(event.size, tuple(places), texts, len(event.names), payloads=elsewhere)


def columns(event: Format, taken: frozenset[str]) -> list[Column]:
    """Return the columns of one event: its fields under their own names, each with its `FIELD_name` behind it.

    `event_` is put in front of a name that is in `taken`, in whatever case, for SQL knows no other; a further table of
    names of one field is `FIELD_name_2`.
    """
    used = set(taken)
    own = {field.name: _free(field.name, used, "event_{}") for field in event.fields}
    found = []
    for field in event.fields:
        found.append(Column(own[field.name], field, None))
        for i, names in enumerate([each for each in event.names if each.field == field.name], 1):
            base = f"{own[field.name]}_name" + (f"_{i}" if i > 1 else "")
            tested = names.tested() if isinstance(names, Choice) else ()
            others = tuple(each for each in event.fields if each.name in tested)
            found.append(Column(_free(base, used, "{}_"), field, names, others))
    return found


def arrow_field(column: Column) -> pa.Field:
    """Return name and type of one column; null may be what points elsewhere in its event, and a name that is not."""
    outside = column.field.place in (Place.DATA_LOC, Place.REL_LOC)
    return pa.field(column.name, _type(column), nullable=outside or column.names is not None)


def _type(column: Column) -> pa.DataType:
    field = column.field
    if column.names or field.kind == Kind.TEXT:
        return WORD
    if field.kind == Kind.BOOL:
        return pa.bool_()
    if field.kind == Kind.RAW:
        return pa.binary()
    if field.kind == Kind.TEXTS:
        return pa.list_(pa.string())
    if field.kind == Kind.POINTER:
        return pa.uint64()
    element = pa.from_numpy_dtype(_dtype(field, "="))
    return pa.list_(element) if field.kind == Kind.INTEGERS else element


def column_array(rows: Rows, column: Column, words: Words) -> pa.Array:
    """Return one column; null is what points outside its event, and in a column of names what has no name.

    Of a column of words the array has their numbers, int32(), and what is new gets the next one in `words`.
    """
    field = column.field
    if column.names is not None:
        return _names(rows, column, words)
    if field.kind == Kind.TEXT:
        return _texts(rows, field, words)
    if field.kind in (Kind.INTEGERS, Kind.TEXTS):
        texts = field.kind == Kind.TEXTS
        return _text_lists(rows, field) if texts else _lists(_slices(rows, field), _dtype(field, rows.order))
    if field.kind == Kind.RAW:
        return slice_columns.binaries(_slices(rows, field))
    values = _integers(rows, field)
    if field.kind == Kind.BOOL:
        return slice_columns.bools(values != 0)
    return pa.array(values.astype(np.uint64, copy=False) if field.kind == Kind.POINTER else values)


def context_fields(event: Format) -> list[pa.Field]:
    """Return `CONTEXT_FIELDS`; only such as the machine's events have no field for may be null."""
    common = {field.name for field in event.common if field.kind in (Kind.INTEGER, Kind.BOOL)}
    return [each.with_nullable(_SOURCES[each.name] not in common) for each in CONTEXT_FIELDS]


def context_arrays(rows: Rows, event: Format) -> dict[str, pa.Array]:
    """Return the columns of `CONTEXT_FIELDS`; null where the machine's events have no such field."""
    common = {field.name: field for field in event.common}
    found = {}
    for each in CONTEXT_FIELDS:
        source = common.get(_SOURCES[each.name])
        if source is None or source.kind not in (Kind.INTEGER, Kind.BOOL):
            found[each.name] = pa.nulls(rows.count, each.type)
        else:
            found[each.name] = pa.array(_integers(rows, source).astype(each.type.to_pandas_dtype(), copy=False))
    return found


def context_text(flags: int, preempt_count: int) -> str:
    """Return the five characters by which the kernel's own text says `flags` and `preempt_count`.

    Source: kernel/trace/trace_output.c (`trace_print_lat_fmt`).
    """
    irqs = {0x00: ".", 0x01: "d", 0x80: "b", 0x81: "D"}[flags & 0x81]
    nmi, hard, soft = flags & 0x40, flags & 0x08, flags & 0x10
    inside = ("Z" if hard else "z") if nmi else ("H" if soft else "h") if hard else "s" if soft else "."
    depth, pinned = (f"{each:x}" if each else "." for each in (preempt_count & 15, preempt_count >> 4))
    return irqs + _RESCHED.get(flags & 0x26, ".") + inside + depth + pinned


def _free(name: str, used: set[str], pattern: str) -> str:
    while name.lower() in used:
        name = pattern.format(name)
    used.add(name.lower())
    return name


def _dtype(field: Field, order: str) -> np.dtype[Any]:
    signed = field.signed and field.kind in (Kind.INTEGER, Kind.INTEGERS)
    return np.dtype(f"{order}{'i' if signed else 'u'}{field.element_size}")


# What one number of a row is read for: a field's value, or where a field's bytes are.
def _is_number(field: Field) -> bool:
    return (field.place in (Place.DATA_LOC, Place.REL_LOC) and field.kind != Kind.TEXTS) or _is_plain(field)


def _is_plain(field: Field) -> bool:
    return field.place == Place.FIXED and field.kind in (Kind.INTEGER, Kind.BOOL, Kind.POINTER, Kind.BITS)


def _place(field: Field) -> tuple[int, int]:
    return field.offset, field.size


# Short texts are numbered as they are cut out.
def _is_short(field: Field) -> bool:
    return field.place == Place.FIXED and field.kind == Kind.TEXT and field.size in TEXT_BYTES


def _integers(rows: Rows, field: Field) -> npt.NDArray[Any]:
    return rows.numbers(field, _dtype(field, rows.order))


# Where the bytes of a field are, for each row.
def _slices(rows: Rows, field: Field) -> Slices:
    count = rows.count
    if field.place == Place.FIXED:
        starts = np.arange(count, dtype=np.int64) * rows.size + field.offset
        return Slices(rows.fixed, starts, np.full(count, field.size, np.int64), None)
    if field.place == Place.TAIL:
        return Slices(rows.octets, rows.starts + field.offset, _tail_lengths(rows, field), None)
    word = rows.numbers(field, np.dtype(f"{rows.order}u{field.size}")).astype(np.int64)
    offsets, lengths = word & 0xFFFF, word >> 16
    if field.place == Place.REL_LOC:
        offsets += field.offset + field.size
    if field.size == 2:  # The length is not stated: text, up to its NUL.
        lengths = np.maximum(rows.lengths - offsets, 0)
    missing = offsets + lengths > rows.lengths
    if field.size == 4 and not rows.within(np.where(missing, 0, lengths)):
        missing = np.ones_like(missing)
    if not missing.any():
        return Slices(rows.octets, rows.starts + offsets, lengths, None)
    return Slices(
        rows.octets, np.where(missing, rows.starts, rows.starts + offsets), np.where(missing, 0, lengths), missing
    )


def _tail_lengths(rows: Rows, field: Field) -> Ints:
    lengths = rows.lengths - field.offset
    if field.count is None:
        return lengths
    stated = _integers(rows, field.count).astype(np.int64).clip(0, PAYLOAD_BYTES_MAX)
    found: Ints = np.minimum(stated * field.element_size, lengths)
    return found


def _texts(rows: Rows, field: Field, words: Words) -> pa.Array:
    if _is_short(field):
        codes, text = rows.text(field)
        slice_columns.renumber(codes, text.numbers(lambda data: ftrace_names.number(_decoded(data), words)))
        return pa.array(codes)
    slices = _slices(rows, field)
    codes, different = slice_columns.interned(slices)
    return ftrace_names.numbered(codes, [_decoded(data) for data in different], slices.missing, words)


# Null where one of the texts points outside the event.
def _text_lists(rows: Rows, field: Field) -> pa.Array:
    own = rows.fixed.reshape(rows.count, rows.size)[:, field.offset : field.offset + field.size]
    word = np.ascontiguousarray(own).view(f"{rows.order}u4").astype(np.int64)
    offsets, lengths = word & 0xFFFF, word >> 16
    missing: Mask = np.logical_or.reduce(offsets + lengths > rows.lengths[:, None], axis=1)
    lengths[missing] = offsets[missing] = 0
    if not rows.within(lengths):
        missing[:] = True
        lengths[:] = offsets[:] = 0
    starts = (rows.starts[:, None] + offsets).ravel()
    codes, different = slice_columns.interned(Slices(rows.octets, starts, lengths.ravel()))
    texts = pa.array([_decoded(data) for data in different], pa.string()).take(pa.array(codes))
    firsts = np.arange(rows.count + 1, dtype=np.int32) * word.shape[1]
    return pa.ListArray.from_arrays(pa.array(firsts, pa.int32()), texts, mask=pa.array(missing))


def _decoded(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def _names(rows: Rows, column: Column, words: Words) -> pa.Array:
    values, names = _integers(rows, column.field), column.names
    if isinstance(names, Choice):
        tested = {each.name: _integers(rows, each) for each in column.tested}
        return ftrace_names.chosen(values, names, tested, words, rows.looks, rows.room())
    assert names is not None
    return ftrace_names.named(values, names, words, rows.looks, rows.room())


def _lists(slices: Slices, dtype: np.dtype[Any]) -> pa.Array:
    whole = slices._replace(lengths=slices.lengths // dtype.itemsize * dtype.itemsize)
    offsets, octets = slice_columns.joined(whole)
    values = pa.array(octets.view(dtype).astype(dtype.newbyteorder("=")))
    mask = None if slices.missing is None else pa.array(slices.missing)
    return pa.ListArray.from_arrays(pa.array(offsets // dtype.itemsize), values, mask=mask)
