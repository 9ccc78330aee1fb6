"""Rows of several files into the order of their table's keys, most of which are in order already."""

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_Keys = list[npt.NDArray[Any]]

# Of shorter pieces than this, on average, sorting costs less.
_PIECE_ROWS: Final = 1024


def ordered(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Return the rows of `table` in the order of the columns `keys`, ascending, null last.

    A commit's file is in order, and so are long pieces of several such files behind each other: these are put in order
    as they are, without a copy. Only where they are short are rows sorted.
    """
    if not table.num_rows:
        return table
    found = (_ranks(table[name]) for name in keys)
    columns = [each for each in found if each is not None]
    if not columns:
        return table
    pieces = _pieces(columns, table.num_rows)
    if pieces is None:
        names = [str(number) for number in range(len(columns))]
        order = [(name, "ascending") for name in names]
        return table.take(pc.sort_indices(pa.table(columns, names=names), sort_keys=order))
    return pa.concat_tables([table.slice(first, end - first) for first, end in pieces])


# Numbers that are in the order of the column's values, none of them null; None where all are the same word.
def _ranks(column: pa.ChunkedArray) -> npt.NDArray[Any] | None:
    if pa.types.is_integer(column.type) and not column.null_count:
        return np.asarray(column)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    words = column.chunk(0).dictionary
    if len(words) == 1 and not column.null_count:
        return None
    ranks = np.full(len(words) + 1, len(words), np.int32)
    ranks[np.asarray(pc.array_sort_indices(words))] = np.arange(len(words), dtype=np.int32)
    return np.concatenate([ranks[np.asarray(chunk.indices.fill_null(len(words)))] for chunk in column.chunks])


# (first row, row behind the last) of pieces that are in order and follow each other so; None if they are too many.
def _pieces(columns: _Keys, rows: int) -> list[tuple[int, int]] | None:
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
def _starts(columns: _Keys, rows: int) -> list[int]:
    back = np.zeros(rows - 1, np.bool_)
    equal = np.ones(rows - 1, np.bool_)
    for column in columns:
        back |= equal & (column[:-1] > column[1:])
        equal &= column[:-1] == column[1:]
    return [0, *(np.flatnonzero(back) + 1).tolist()]
