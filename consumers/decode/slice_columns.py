"""Slices of one buffer of bytes to Arrow columns: raw, or numbered so that only different ones become objects."""

import os
from importlib import import_module
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumers.decode.slices import Bytes, Ints, Mask

Codes = npt.NDArray[np.int32]
#: The number of each text that a column of words has had so far.
Words = dict[str, int]
# Secret, so that nobody can make slices collide.
_SEED: Final = np.uint64(int.from_bytes(os.urandom(8)))


class Slices(NamedTuple):
    """One slice of `octets` for each row; empty where `missing`, which is None where none is."""

    octets: Bytes
    starts: Ints
    lengths: Ints
    missing: Mask | None = None


def of_words(numbers: pa.Array, words: pa.Array) -> pa.Array:
    """Return the column whose rows are those of `words` that `numbers` say, which are within it."""
    return pa.DictionaryArray.from_arrays(numbers, words, safe=False)


def gathered(octets: Bytes, starts: Ints, size: int) -> Bytes:
    """Return the `size` bytes from each of `starts` on, all of them in `octets`, one behind the other."""
    rows = np.empty(len(starts) * size, np.uint8)
    _loops().gather(octets, _eights(octets), starts, size, rows, _eights(rows))
    return rows


def interned(slices: Slices) -> tuple[Codes, list[bytes]]:
    """Return which of the different slices each row is, and these in order of first sight."""
    octets, starts, lengths, _ = slices
    codes, rows = np.empty(len(starts), np.int32), np.empty(len(starts), np.int64)
    count = _loops().intern(octets, _eights(octets), starts, lengths, _SEED, codes, rows)
    firsts = rows[:count]
    ends = (starts[firsts] + lengths[firsts]).tolist()
    return codes, [octets[start:end].tobytes() for start, end in zip(starts[firsts].tolist(), ends, strict=True)]


def interned_pairs(octets: Bytes, offset: int, stride: int, rows: int, size: int) -> tuple[Codes, list[bytes]]:
    """Return what `interned` does of slices of `size` 8 to 16, as names of tasks are, that lie `stride` bytes apart.

    Such a one is its first and last eight bytes, which may overlap.
    """
    codes, firsts = np.empty(rows, np.int32), np.empty(rows, np.int64)
    first, last = (np.ndarray((rows,), np.uint64, octets, at, (stride,)) for at in (offset, offset + size - 8))
    found = _loops().intern_pairs(first, last, _SEED, codes, firsts)
    starts = (firsts[:found] * stride + offset).tolist()
    return codes, [octets[start : start + size].tobytes() for start in starts]


def joined(slices: Slices) -> tuple[npt.NDArray[np.int32], Bytes]:
    """Return the slices one behind the other, and in front of them where each begins and the last one ends."""
    offsets = np.zeros(len(slices.starts) + 1, np.int64)
    np.cumsum(slices.lengths, out=offsets[1:])
    octets = np.empty(int(offsets[-1]), np.uint8)
    _loops().join(slices.octets, slices.starts, slices.lengths, octets)
    return offsets.astype(np.int32), octets


def binaries(slices: Slices) -> pa.Array:
    """Return the slices as they are, binary(); null where missing."""
    offsets, octets = joined(slices)
    found = pa.Array.from_buffers(pa.binary(), len(slices.starts), [None, pa.py_buffer(offsets), pa.py_buffer(octets)])
    if slices.missing is None:
        return found
    return found.take(pa.array(np.arange(len(slices.missing)), mask=slices.missing))


def bools(values: Mask) -> pa.Array:
    """Return `values` as bool_()."""
    bits = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])


# The eight bytes from each byte on.
def _eights(octets: Bytes) -> npt.NDArray[np.uint64]:
    return np.ndarray((max(0, len(octets) - 7),), np.uint64, octets, strides=(1,))


def _loops() -> Any:
    # Not imported above: the compiler takes half a second and 60 MiB, which a command that decodes nothing need not.
    return import_module("consumers.decode.slice_loops")
