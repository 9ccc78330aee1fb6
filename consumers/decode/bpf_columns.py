"""The members of many records of one struct to Arrow columns, without a Python object per record.

Records of one length that follow each other are columns as they lie in the ring; others are copied into one matrix
first. Text is numbered by its bytes; only different texts become strings: cut at the first NUL, and what is no UTF-8
replaced.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumers.decode import slice_columns
from consumers.decode.bpf_layout import Column, Layout, Shape
from consumers.decode.slice_columns import Codes, Slices, Words
from consumers.decode.slices import Bytes, Ints
from consumers.lake.tables import WORD

#: The column of what a record has behind its struct.
SURPLUS: Final = pa.field("surplus", pa.binary())
#: The name of the member that says when a record was made.
TIME: Final = "ts_ns"
# Enumerations whose numbers lie so close are looked up in a table, others searched for.
_TABLE_VALUES_MAX: Final = 1 << 16
_Values = npt.NDArray[Any]


class Named(NamedTuple):
    """A column under the name that it has in its table; `names` is the name of what its values are called, if they are.

    `is_time` marks the record's own time, which has no column of its own.
    """

    column: Column
    name: str
    names: str | None
    is_time: bool


class Rows(NamedTuple):
    """Records of one struct, each at least as long as it, at least one.

    `octets` is the whole buffer, `starts` and `lengths` the records in it. The struct's bytes of row i are at
    `base + i * stride` of `fixed`. `order` is the byte order as NumPy writes it.
    """

    octets: Bytes
    starts: Ints
    lengths: Ints
    fixed: Bytes
    base: int
    stride: int
    order: str


def named(layout: Layout, taken: frozenset[str]) -> list[Named]:
    """Return the columns of `layout` with their names: the members' own where these are free.

    `record_` is put in front of a name that is in `taken`, `_` behind one that is there already; upper and lower case
    are one, as SQL has it.
    """
    used = {*taken, SURPLUS.name}
    found: list[Named] = []
    for column in layout.columns:
        is_time = column.name == TIME and _is_time(column) and not any(each.is_time for each in found)
        name = TIME if is_time else column.name
        while not is_time and name.lower() in used:
            name = f"record_{name}" if name.lower() in taken or name.lower() == SURPLUS.name else f"{name}_"
        used.add(name.lower())
        names = None
        if column.names is not None:
            names = f"{name}_name"
            while names.lower() in used:
                names += "_"
            used.add(names.lower())
        found.append(Named(column, name, names, is_time))
    return found


def fields(column: Named) -> list[pa.Field]:
    """Return name and type of one column, and of the one of its names if it has any; null are values without a name."""
    found = [] if column.is_time else [pa.field(column.name, _type(column.column), nullable=False)]
    if column.names is not None:
        found.append(pa.field(column.names, _listed(column.column, WORD), nullable=True))
    return found


def gather(octets: Bytes, starts: Ints, lengths: Ints, layout: Layout) -> Rows:
    """Return the records at `starts`, each of at least `layout.size` bytes; there is at least one."""
    order = ">" if layout.big_endian else "<"
    stride = int(starts[1] - starts[0]) if len(starts) > 1 else layout.size
    if (np.diff(starts) == stride).all():
        return Rows(octets, starts, lengths, octets, int(starts[0]), stride, order)
    return Rows(octets, starts, lengths, slice_columns.gathered(octets, starts, layout.size), 0, layout.size, order)


def times(rows: Rows, column: Named) -> Ints:
    """Return the records' own times, u64, as signed numbers."""
    return _values(rows, column.column).view(np.int64)


def arrays(rows: Rows, column: Named, words: dict[str, Words]) -> dict[str, pa.Array]:
    """Return one column, and what its values are called if they are called something, by name.

    Of a column of words the array has their numbers, int32(), and what is new gets the next one in `words`.
    """
    what = column.column
    if what.shape == Shape.TEXT:
        return {column.name: _texts(rows, what, words.setdefault(column.name, {}))}
    if what.shape == Shape.RAW:
        return {column.name: _lists(rows, what, slice_columns.binaries(_slices(rows, what)))}
    values = _bits(rows, what) if what.shape == Shape.BITS else _values(rows, what)
    truth = what.shape == Shape.BOOL or what.boolean
    found = {} if column.is_time else {column.name: _lists(rows, what, _plain(values, truth=truth))}
    if column.names is not None:
        found[column.names] = _names(rows, what, values, words.setdefault(column.names, {}))
    return found


def surplus(rows: Rows, layout: Layout) -> pa.Array:
    """Return what each record has behind its columns; null where that is nothing."""
    last = layout.columns[-1]
    begin = layout.size
    extra = rows.lengths - begin
    if last.tail:
        extra = (rows.lengths - last.offset) % last.size
    missing = extra == 0
    if missing.all():
        return pa.nulls(len(missing), SURPLUS.type)
    return slice_columns.binaries(Slices(rows.octets, rows.starts + rows.lengths - extra, extra, missing))


def _is_time(column: Column) -> bool:
    plain = column.shape == Shape.INTEGER and not column.dimensions and not column.tail and column.names is None
    return plain and column.size == 8 and not column.signed


def _type(column: Column) -> pa.DataType:
    if column.shape == Shape.TEXT:
        return _listed(column, WORD)
    if column.shape == Shape.RAW:
        return _listed(column, pa.binary())
    if column.shape == Shape.BOOL or column.boolean:
        return _listed(column, pa.bool_())
    return _listed(column, pa.from_numpy_dtype(_dtype(column, "=")))


# Of a list the elements are plain: a dictionary within lists is more than readers take.
def _listed(column: Column, element: pa.DataType) -> pa.DataType:
    if column.dimensions or (column.tail and column.shape not in (Shape.TEXT, Shape.RAW)):
        element = pa.string() if element == WORD else element
        for _ in range(len(column.dimensions) or 1):
            element = pa.list_(element)
    return element


def _dtype(column: Column, order: str) -> np.dtype[Any]:
    kind = "f" if column.shape == Shape.FLOAT else "i" if column.signed else "u"
    return np.dtype(f"{order}{kind}{column.size}")


# All values of a column in the order of rows and dimensions, in this machine's byte order.
def _values(rows: Rows, column: Column) -> _Values:
    dtype = _dtype(column, rows.order)
    if column.tail:
        octets = slice_columns.joined(_slices(rows, column))[1]
        return octets.view(dtype).astype(dtype.newbyteorder("="))
    return _strided(rows, column, dtype, 0).astype(dtype.newbyteorder("=")).reshape(-1)


def _strided(rows: Rows, column: Column, dtype: Any, at: int) -> _Values:
    shape = (len(rows.starts), *(each.count for each in column.dimensions))
    strides = (rows.stride, *(each.stride for each in column.dimensions))
    return np.ndarray(shape, dtype, rows.fixed, rows.base + column.offset + at, strides)


# The bytes that have a part of the field, put together modulo 64 bits: nine where it begins within one.
def _bits(rows: Rows, column: Column) -> _Values:
    octets = (column.bit_offset + column.bit_size + 7) // 8
    found = np.zeros(len(rows.starts) * _per_row(column), np.uint64)
    for i in range(octets):
        if rows.order == "<":
            shift = 8 * i - column.bit_offset
        else:
            shift = 8 * (octets - 1 - i) - (8 * octets - column.bit_offset - column.bit_size)
        part = _strided(rows, column, np.uint8, i).astype(np.uint64).reshape(-1)
        found |= part << np.uint64(shift) if shift >= 0 else part >> np.uint64(-shift)
    found &= np.uint64((1 << column.bit_size) - 1)
    if column.signed:
        sign = np.uint64(1 << (column.bit_size - 1))
        found = (found ^ sign) - sign
    return found.astype(np.int64 if column.signed else np.uint64).astype(_dtype(column, "="))


def _per_row(column: Column) -> int:
    return int(np.prod([each.count for each in column.dimensions], dtype=np.int64))


def _plain(values: _Values, *, truth: bool) -> pa.Array:
    return slice_columns.bools(values != 0) if truth else pa.array(values)


# Where the bytes of a column of text, raw bytes or an open end are, for each value.
def _slices(rows: Rows, column: Column) -> Slices:
    if column.tail:
        room = rows.lengths - column.offset
        return Slices(rows.octets, rows.starts + column.offset, room - room % column.size)
    starts = np.arange(len(rows.starts), dtype=np.int64) * rows.stride + rows.base + column.offset
    for each in column.dimensions:
        starts = (starts[:, None] + np.arange(each.count, dtype=np.int64) * each.stride).reshape(-1)
    return Slices(rows.fixed, starts, np.full(len(starts), column.size, np.int64))


# One value for each row, or lists of them as the dimensions say, the innermost first.
def _lists(rows: Rows, column: Column, values: pa.Array) -> pa.Array:
    if column.tail and column.shape not in (Shape.TEXT, Shape.RAW):
        offsets = np.zeros(len(rows.starts) + 1, np.int64)
        np.cumsum((rows.lengths - column.offset) // column.size, out=offsets[1:])
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)
    for each in reversed(column.dimensions):
        offsets = np.arange(0, len(values) + 1, each.count, dtype=np.int32)
        values = pa.ListArray.from_arrays(pa.array(offsets), values)
    return values


def _texts(rows: Rows, column: Column, words: Words) -> pa.Array:
    if not column.tail and not column.dimensions and 8 <= column.size <= 16:
        first, last = (_strided(rows, column, np.uint64, at) for at in (0, column.size - 8))
        codes, different = slice_columns.interned_pairs(first, last, column.size)
    else:
        codes, different = slice_columns.interned(_slices(rows, column))
    texts = [data.partition(b"\0")[0].decode("utf-8", "replace") for data in different]
    if column.dimensions:
        return _lists(rows, column, pa.array(texts, pa.string()).take(pa.array(codes)))
    slice_columns.renumber(codes, _numbers(texts, words))
    return pa.array(codes)


def _numbers(texts: list[str], words: Words) -> Codes:
    return np.array([words.setdefault(text, len(words)) for text in texts], np.int32)


# What each value is called; null where it is called nothing.
def _names(rows: Rows, column: Column, values: _Values, words: Words) -> pa.Array:
    assert column.names is not None
    keys = sorted(column.names)
    places = _places(values, keys)
    seen = np.flatnonzero(np.bincount(places + 1, minlength=len(keys) + 1)[1:])
    texts = [column.names[keys[i]] for i in seen.tolist()]
    listed = bool(column.dimensions) or column.tail
    numbers = np.zeros(len(keys) + 1, np.int32)
    numbers[seen] = np.arange(len(seen)) if listed else _numbers(texts, words)
    found = pa.array(numbers[places], mask=places < 0)
    return _lists(rows, column, pa.array(texts, pa.string()).take(found)) if listed else found


# The index of each value in `keys`, which are sorted; -1 where it is not among them.
def _places(values: _Values, keys: list[int]) -> Codes:
    low, span = keys[0], keys[-1] - keys[0] + 1
    if span <= _TABLE_VALUES_MAX:
        table: Codes = np.full(span + 1, -1, np.int32)
        table[np.array([key - low for key in keys])] = np.arange(len(keys))
        # Modulo 64 bits, so that what is below the lowest key is far above the highest.
        apart = values.astype(np.uint64) - np.uint64(low & (1 << 64) - 1)
        places: Codes = table[np.minimum(apart, np.uint64(span)).astype(np.int64)]
        return places
    sorted_ = np.array(keys, values.dtype)
    at = np.searchsorted(sorted_, values)
    at[at == len(keys)] = 0
    return np.where(sorted_[at] == values, at, -1).astype(np.int32)
