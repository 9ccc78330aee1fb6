"""The order of a table's keys for rows of several files, each of which is in order already."""

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_Columns = list[npt.NDArray[Any]]

# Where pieces are shorter, on average, sorting costs less than to gather them.
_PIECE_ROWS: Final = 4_096


def pieces(keys: Iterable[pa.ChunkedArray]) -> list[tuple[int, int]] | None:
    """Return (first row, row behind the last) of pieces of the rows that, one behind the other, are in order.

    The order is that of the columns `keys`, ascending, null last. They are looked at one by one, and what tells rows
    apart is kept of each. None where the pieces are too many and too short.
    """
    columns: _Columns = []
    rows = 0
    for key in keys:
        rows = len(key)
        columns += _ranks(key)
    return _pieces(columns, rows) if rows else []


def in_order(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Return the rows of `table` in the order that `pieces` finds, each of them moved."""
    columns = [column for key in keys for column in _ranks(table[key])]
    if not columns:
        return table
    names = [str(number) for number in range(len(columns))]
    order = [(name, "ascending") for name in names]
    return table.take(pc.sort_indices(pa.table(columns, names=names), sort_keys=order))


# One column of numbers that are in the order of the key's values; none where all are the same word.
def _ranks(column: pa.ChunkedArray) -> _Columns:
    if pa.types.is_integer(column.type) and not column.null_count:
        return [np.asarray(column)]
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    words = column.chunk(0).dictionary if len(column) else ()
    if len(words) <= 1 and not column.null_count:
        return []
    ranks = np.full(len(words) + 1, len(words), np.int32)
    ranks[np.asarray(pc.array_sort_indices(words))] = np.arange(len(words), dtype=np.int32)
    return [np.concatenate([ranks[np.asarray(chunk.indices.fill_null(len(words)))] for chunk in column.chunks])]


def _pieces(columns: _Columns, rows: int) -> list[tuple[int, int]] | None:
    most = max(1, rows // _PIECE_ROWS)
    starts = _starts(columns, rows)
    if len(starts) > most:
        return None

    def key(row: int) -> tuple[int, ...]:
        return tuple(int(column[row]) for column in columns)

    waiting = [(key(first), first, end) for first, end in zip(starts, [*starts[1:], rows], strict=True)]
    heapq.heapify(waiting)
    found: list[tuple[int, int]] = []
    while waiting:
        _, first, end = heapq.heappop(waiting)
        # As far as no other piece begins sooner.
        until = first + bisect_right(range(first, end), waiting[0][0], key=key) if waiting else end
        if found and found[-1][1] == first:
            found[-1] = found[-1][0], until
        else:
            found.append((first, until))
        if until < end:
            heapq.heappush(waiting, (key(until), until, end))
        if len(found) > most:
            return None
    return found


# The first row, and each that belongs before the row before it.
def _starts(columns: _Columns, rows: int) -> list[int]:
    back = np.zeros(rows - 1, np.bool_)
    equal = np.ones(rows - 1, np.bool_)
    for column in columns:
        back |= equal & (column[:-1] > column[1:])
        equal &= column[:-1] == column[1:]
    return [0, *(np.flatnonzero(back) + 1).tolist()]
