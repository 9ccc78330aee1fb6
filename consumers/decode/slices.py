"""Columns cut out of one buffer of bytes: many records at a time, no Python object for any of them."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_PAD_BYTES: Final = 8


def firsts(ordered: Ints) -> Ints:
    """Return the indices at which a sorted array begins another value."""
    return np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))


def between(data: Any, starts: Ints, ends: Ints, type_: pa.DataType) -> pa.Array:
    """Return a zero-copy array over the buffer `data` whose element 2 i is `data[starts[i]:ends[i]]`.

    The slices are in order and do not overlap; the odd elements are what lies between them. `type_` is binary() or
    string(), and then the caller knows the slices that it takes to be UTF-8.
    """
    offsets = np.empty(2 * len(starts) + 1, np.int32)
    offsets[0:-1:2] = starts
    offsets[1::2] = ends
    offsets[-1] = ends[-1] if len(ends) else 0
    return pa.Array.from_buffers(type_, 2 * len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def spread(values: pa.Array, rows: Ints, length: int) -> pa.Array:
    """Return an array of `length` with `values[i]` at `rows[i]` and null elsewhere."""
    if not len(rows):
        return pa.nulls(length, values.type)
    indices = np.zeros(length, np.int64)
    missing = np.ones(length, np.bool_)
    indices[rows] = np.arange(len(rows))
    missing[rows] = False
    return values.take(pa.array(indices, mask=missing))


def contents(values: pa.Array) -> tuple[Ints, Bytes]:
    """Return offsets from zero, and a copy of the bytes of `values` (binary) that may be written.

    Eight zeros follow the last byte.
    """
    _, offset_buffer, data = values.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, len(values) + 1, values.offset * 4).astype(np.int64)
    size = int(offsets[-1] - offsets[0])
    octets = np.zeros(size + _PAD_BYTES, np.uint8)
    if size:
        octets[:size] = np.frombuffer(data, np.uint8, size, int(offsets[0]))
    return offsets - offsets[0], octets
