"""The compiled loops over slices of bytes: number the different ones, copy them elsewhere.

`slice_columns` checks their arguments and allocates. Why numba: `ftrace_loops` says it.

No loop reads outside what it was given; with NUMBA_BOUNDSCHECK=1 in the environment the compiled code raises
IndexError for any index outside an array, and the fuzzing tests run in that mode too.
"""

from typing import Any, Final

import numba
import numpy as np

from consumers.compiled import compiled

_INT: Final = numba.int64
# What is only read may be read-only, and at any address.
_OCTETS: Final = numba.types.Array(numba.uint8, 1, "C", readonly=True)
_WORDS: Final = numba.types.Array(numba.uint64, 1, "A", readonly=True, aligned=False)
_WORDS_OUT: Final = numba.types.Array(numba.uint64, 1, "A", aligned=False)
_STARTS: Final = numba.types.Array(numba.int64, 1, "C", readonly=True)
_INT32S, _INT64S, _UINT8S, _UINT64S = numba.int32[::1], numba.int64[::1], numba.uint8[::1], numba.uint64[::1]
_TABLE_SLOTS: Final = 256


@compiled(_OCTETS, _WORDS, _STARTS, _INT, _UINT8S, _WORDS_OUT)
def gather(data: Any, words: Any, starts: Any, size: Any, rows: Any, row_words: Any) -> None:
    """Copy the `size` bytes of `data` from each of `starts` on into `rows`, one behind the other.

    `words[i]` are the eight bytes from `data[i]` on, `row_words` those of `rows`.
    """
    for row in range(len(starts)):
        start, to, at = starts[row], row * size, 0
        while at + 8 <= size:
            row_words[to + at] = words[start + at]
            at += 8
        while at < size:
            rows[to + at] = data[start + at]
            at += 1


# Two different pairs have the same sum for one in some 2^32 of the numbers that nobody knows, whoever chose them: pair-
# multiply (M. Thorup, High Speed Hashing for Integers and Strings). What is done to the sum loses nothing of it, and
# lets every bit of it reach the low ones: sums of texts that count up lie in a row.
@compiled(numba.uint64, numba.uint64, _UINT64S)
def _mixed(first: Any, second: Any, seeds: Any) -> Any:
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    found = (seeds[0] + (first >> half)) * (seeds[1] + (first & low))
    found += (seeds[2] + (second >> half)) * (seeds[3] + (second & low))
    found = (found ^ found >> half) * np.uint64(0x9E3779B97F4A7C15)
    return found ^ found >> half


@compiled(_OCTETS, _WORDS, _INT, _INT, _UINT64S)
def _hash(data: Any, words: Any, start: Any, length: Any, seeds: Any) -> Any:
    found = np.uint64(length)
    at, end = start, start + length
    while at + 8 <= end:
        found = _mixed(words[at], found, seeds)
        at += 8
    if at < end:
        rest = np.uint64(0)
        while at < end:
            rest = rest << np.uint64(8) | np.uint64(data[at])
            at += 1
        found = _mixed(rest, found, seeds)
    return found


@compiled(numba.uint64, numba.uint64, _UINT64S, _INT)
def pair_slot(first: Any, second: Any, seeds: Any, size: Any) -> Any:
    """Return where the pair is looked for first in a table of `size`, a power of two."""
    return np.int64(_mixed(first, second, seeds) & np.uint64(size - 1))


@compiled(_OCTETS, _WORDS, _INT, _INT, _INT)
def _equal(data: Any, words: Any, first: Any, second: Any, length: Any) -> Any:
    at = 0
    while at + 8 <= length:
        if words[first + at] != words[second + at]:
            return False
        at += 8
    while at < length:
        if data[first + at] != data[second + at]:
            return False
        at += 1
    return True


@compiled(_OCTETS, _WORDS, _STARTS, _STARTS, _UINT64S, _INT32S, _UINT64S, _INT32S, _INT64S, _INT, _INT)
def _intern_some(
    data: Any,
    words: Any,
    starts: Any,
    lengths: Any,
    seeds: Any,
    table: Any,
    hashes: Any,
    codes: Any,
    rows: Any,
    row: Any,
    count: Any,
) -> Any:
    mask = len(table) - 1
    while row < len(starts):
        start, length = starts[row], lengths[row]
        found = _hash(data, words, start, length, seeds)
        slot = np.int64(found & np.uint64(mask))
        code = table[slot]
        while code >= 0:
            first = rows[code]
            if hashes[code] == found and lengths[first] == length and _equal(data, words, start, starts[first], length):
                break
            slot = (slot + 1) & mask
            code = table[slot]
        if code < 0:
            if 2 * count > mask:
                break
            code = count
            table[slot], hashes[code], rows[code] = code, found, row
            count += 1
        codes[row] = code
        row += 1
    return row, count


# The table grows between calls of the loop over rows: an array that is assigned anew within that loop would be counted
# as an object for each row, which takes several times as long as the rest.
@compiled(_OCTETS, _WORDS, _STARTS, _STARTS, _UINT64S, _INT32S, _INT64S)
def intern(data: Any, words: Any, starts: Any, lengths: Any, seeds: Any, codes: Any, rows: Any) -> Any:
    """Number the different slices of `data` in order of first sight.

    `words[i]` are the eight bytes from `data[i]` on. Fills `codes`, the number of each slice, and `rows`, the first
    slice with each number; returns how many there are. `seeds` are secret, so that nobody can make slices collide.
    """
    size, row, count = _TABLE_SLOTS, 0, 0
    hashes = np.empty(len(starts), np.uint64)
    while True:
        table = np.full(size, -1, np.int32)
        for each in range(count):
            slot = np.int64(hashes[each] & np.uint64(size - 1))
            while table[slot] >= 0:
                slot = (slot + 1) & (size - 1)
            table[slot] = each
        row, count = _intern_some(data, words, starts, lengths, seeds, table, hashes, codes, rows, row, count)
        if row == len(starts):
            return count
        size *= 4


@compiled(_WORDS, _WORDS, _UINT64S, _INT32S, _UINT64S, _UINT64S, _INT32S, _INT64S, _INT, _INT)
def _intern_some_pairs(
    firsts: Any,
    seconds: Any,
    seeds: Any,
    table: Any,
    left: Any,
    right: Any,
    codes: Any,
    rows: Any,
    row: Any,
    count: Any,
) -> Any:
    mask = len(table) - 1
    while row < len(firsts):
        first, second = firsts[row], seconds[row]
        slot = pair_slot(first, second, seeds, mask + 1)
        code = table[slot]
        while code >= 0 and (left[code] != first or right[code] != second):
            slot = (slot + 1) & mask
            code = table[slot]
        if code < 0:
            if 2 * count > mask:
                break
            code = count
            table[slot], left[code], right[code], rows[code] = code, first, second, row
            count += 1
        codes[row] = code
        row += 1
    return row, count


@compiled(_WORDS, _WORDS, _UINT64S, _INT32S, _INT64S)
def intern_pairs(firsts: Any, seconds: Any, seeds: Any, codes: Any, rows: Any) -> Any:
    """Number the different pairs of `firsts[i]` and `seconds[i]` as `intern` does slices."""
    size, row, count = _TABLE_SLOTS, 0, 0
    left, right = np.empty(len(firsts), np.uint64), np.empty(len(firsts), np.uint64)
    while True:
        table = np.full(size, -1, np.int32)
        for each in range(count):
            slot = pair_slot(left[each], right[each], seeds, size)
            while table[slot] >= 0:
                slot = (slot + 1) & (size - 1)
            table[slot] = each
        row, count = _intern_some_pairs(firsts, seconds, seeds, table, left, right, codes, rows, row, count)
        if row == len(firsts):
            return count
        size *= 4


@compiled(_INT32S, _UINT8S)
def mark(codes: Any, seen: Any) -> None:
    """Put 1 into `seen` at each of `codes`, which are indices of it."""
    for row in range(len(codes)):
        seen[codes[row]] = 1


@compiled(_INT32S, _INT32S)
def renumber(codes: Any, numbers: Any) -> None:
    """Put `numbers[code]` in the place of each of `codes`, which are indices of `numbers`."""
    for row in range(len(codes)):
        codes[row] = numbers[codes[row]]


@compiled(_OCTETS, _STARTS, _STARTS, _UINT8S)
def join(data: Any, starts: Any, lengths: Any, joined: Any) -> None:
    """Copy the slices of `data` one behind the other into `joined`, which is as long as all of them."""
    at = 0
    for row in range(len(starts)):
        start = starts[row]
        for i in range(lengths[row]):
            joined[at + i] = data[start + i]
        at += lengths[row]
