"""Several Parquet files of one table into one, in the order of its keys, written for good.

Files are in order, and so are long pieces of several such files. Where these go piece by piece without reading much
twice, the rows of a row group are in memory at a time, beside what orders them, however many an hour has; else all are.
"""

import contextlib
import errno
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from consumers.decode import registry
from consumers.lake.order import in_order, pieces
from consumers.lake.parquet import ROW_GROUP_ROWS, FileStats, write_tables
from consumers.lake.unify import concatenated
from schemas.errors import DamagedError, StorageError

# So many times the rows may be read to have but a few in memory: pieces of many CPUs lie in the same row groups.
_READ_TIMES_MAX: Final = 2
_BATCH_ROWS: Final = 65_536


def merge_files(sources: Sequence[str], name: str, path: Path) -> FileStats:
    """Write the rows of `sources`, files of the table `name`, to the new file `path`; not synced.

    Raises:
        DamagedError: a source is no Parquet file any more; the text names it.
        StorageError: the disk refuses to read or to write.
    """
    files = [_File.at(source) for source in sources]
    # With the columns and types of all files among them, whatever rows stand beside: what is missing is null.
    none = [schema.empty_table() for schema in dict.fromkeys(file.schema for file in files)]
    schema = concatenated(none).schema
    spec = registry.spec_of(name, schema)
    groups = _Groups(files)
    keys = _keys(files, spec.sort_keys)
    found = pieces(keys[key] for key in spec.sort_keys)
    del keys
    if found is not None and groups.to_read(found) <= _READ_TIMES_MAX * groups.count:
        parts = groups.rows(found)
    else:
        whole = concatenated([*none, *(file.read() for file in files)]).unify_dictionaries()
        if found is None:
            whole, found = in_order(whole, spec.sort_keys), [(0, groups.count)]
        parts = (whole.slice(first, end - first) for first, end in found)
    return write_tables(_batches(parts, none), schema, spec, path, dense=True)


class _File(NamedTuple):
    """A source, its columns, and the rows of each of its row groups. It is open while it is read only."""

    path: str
    schema: pa.Schema
    group_rows: list[int]

    @classmethod
    def at(cls, path: str) -> "_File":
        with _refusals(path), pq.ParquetFile(path) as file:
            meta = file.metadata
            rows = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
            return cls(path, file.schema_arrow.remove_metadata(), rows)

    def read(self, columns: list[str] | None = None) -> pa.Table:
        with _refusals(self.path), pq.ParquetFile(self.path) as file:
            return file.read(columns=columns)

    def batches(self, group: int) -> Iterator[pa.RecordBatch]:
        with _refusals(self.path), pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(_BATCH_ROWS, row_groups=[group])


class _Groups:
    """The row groups of files, the rows of all of them counted through."""

    def __init__(self, files: Sequence[_File]) -> None:
        self._groups = [(file, group) for file in files for group in range(len(file.group_rows))]
        self._ends = list(accumulate(file.group_rows[group] for file, group in self._groups))
        self.count = self._ends[-1] if self._ends else 0

    def to_read(self, wanted: Iterable[tuple[int, int]]) -> int:
        """Return how many rows `rows` reads for that."""
        return sum(until - self._start(number) for _, until, number in self._within(wanted))

    def rows(self, wanted: Iterable[tuple[int, int]]) -> Iterator[pa.Table]:
        """Yield the rows from each first one to the one before each end; a row group is read from its beginning on."""
        for first, until, number in self._within(wanted):
            file, group = self._groups[number]
            at = self._start(number)
            for batch in file.batches(group):
                low, high = max(first - at, 0), min(until - at, len(batch))
                if low < high:
                    yield _cut(batch, low, high)
                at += len(batch)
                if at >= until:
                    break

    # The same by row groups, with the number of each.
    def _within(self, wanted: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
        for begin, end in wanted:
            first = begin
            while first < end:
                number = bisect_right(self._ends, first)
                yield first, min(end, self._ends[number]), number
                first = self._ends[number]

    def _start(self, number: int) -> int:
        return self._ends[number - 1] if number else 0


# The keys of each file; where all rows of one have the same word, they share what says so.
def _keys(files: Sequence[_File], names: Sequence[str]) -> pa.Table:
    zeros = pa.array(np.zeros(max(sum(file.group_rows) for file in files), np.int32))
    parts = []
    for file in files:
        part = file.read(list(names)).unify_dictionaries()
        for i, column in enumerate(part.columns):
            if column.num_chunks and pa.types.is_dictionary(column.type) and not column.null_count:
                words = column.chunk(0).dictionary
                if len(words) == 1:
                    same = pa.DictionaryArray.from_arrays(zeros.slice(0, len(column)), words)
                    part = part.set_column(i, part.schema.field(i).with_type(same.type), same)
        parts.append(part)
    return concatenated(parts)


# A small part is copied, so that it does not hold on to the whole.
def _cut(batch: pa.RecordBatch, low: int, high: int) -> pa.Table:
    if 2 * (high - low) < len(batch):
        batch, low, high = batch.take(pa.array(np.arange(low, high))), 0, high - low
    return pa.Table.from_batches([batch.slice(low, high - low)])


# As many rows at a time as a row group has.
def _batches(parts: Iterable[pa.Table], none: list[pa.Table]) -> Iterator[pa.Table]:
    kept: list[pa.Table] = []
    rows = 0
    for whole in parts:
        part = whole
        while rows + part.num_rows >= ROW_GROUP_ROWS:
            taken = ROW_GROUP_ROWS - rows
            yield concatenated([*none, *kept, part.slice(0, taken)]).unify_dictionaries()
            kept, rows, part = [], 0, part.slice(taken)
        if part.num_rows:
            kept.append(part)
            rows += part.num_rows
    if kept:
        yield concatenated([*none, *kept]).unify_dictionaries()


# A disk that cannot read a sector gives what was written no more than one that gives something else.
@contextlib.contextmanager
def _refusals(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as e:  # the last: a damaged name of a column
        refused = isinstance(e, OSError) and e.errno not in (None, errno.EIO)
        raise (StorageError if refused else DamagedError)(f"{path}: {e}") from e
