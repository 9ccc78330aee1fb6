"""Slices of one buffer of bytes to columns: integers, raw, or numbered so that only different ones become objects."""

import os
import sys
from importlib import import_module
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumers.decode.slices import Bytes, Ints, Mask

Codes = npt.NDArray[np.int32]
Numbers = npt.NDArray[Any]
Words64 = npt.NDArray[np.uint64]
#: The number of each text that a column of words has had so far.
Words = dict[str, int]
#: Of hashes of slices: secret, so that nobody can make many of them collide.
SEEDS: Final = np.frombuffer(os.urandom(32), np.uint64).copy()


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


def from_each_byte(octets: Bytes, type_: Any) -> Numbers:
    """Return the number in the bytes from each byte on."""
    size = np.dtype(type_).itemsize
    return np.ndarray((max(0, len(octets) - size + 1),), type_, octets, strides=(1,))


def interned(slices: Slices) -> tuple[Codes, list[bytes]]:
    """Return which of the different slices each row is, and these in order of first sight."""
    octets, starts, lengths, _ = slices
    codes, rows = np.empty(len(starts), np.int32), np.empty(len(starts), np.int64)
    count = _loops().intern(octets, _eights(octets), starts, lengths, SEEDS, codes, rows)
    firsts = rows[:count]
    ends = (starts[firsts] + lengths[firsts]).tolist()
    return codes, [octets[start:end].tobytes() for start, end in zip(starts[firsts].tolist(), ends, strict=True)]


def interned_pairs(first: Words64, last: Words64, size: int) -> tuple[Codes, list[bytes]]:
    """Return what `interned` does of slices of `size` 8 to 16, as names of tasks are.

    Such a one is its `first` and `last` eight bytes, which may overlap.
    """
    codes, firsts = np.empty(len(first), np.int32), np.empty(len(first), np.int64)
    found = _loops().intern_pairs(first, last, SEEDS, codes, firsts)
    heads, tails = first[firsts[:found]].tolist(), last[firsts[:found]].tolist()
    order = sys.byteorder
    return codes, [
        head.to_bytes(8, order) + tail.to_bytes(8, order)[16 - size :] for head, tail in zip(heads, tails, strict=True)
    ]


def seen(codes: Codes, count: int) -> list[bool]:
    """Return which numbers below `count` are among `codes`, all of which are."""
    found = np.zeros(count, np.uint8)
    _loops().mark(codes, found)
    return found.astype(np.bool_).tolist()


def renumber(codes: Codes, numbers: Codes) -> None:
    """Put `numbers[code]` in the place of each of `codes`, which are from 0 on and within `numbers`."""
    # Of a first batch they are so already.
    if (numbers != np.arange(len(numbers))).any():
        _loops().renumber(codes, numbers)


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


def _eights(octets: Bytes) -> npt.NDArray[np.uint64]:
    return from_each_byte(octets, np.uint64)


def _loops() -> Any:
    # Not imported above: the compiler takes half a second and 60 MiB, which a command that decodes nothing need not.
    return import_module("consumers.decode.slice_loops")
