"""Several Parquet files of one table into one, in the order of its keys, written for good.

Files are in order, and so are long pieces of several such files. Where these go piece by piece without reading much
twice, the rows of a row group are in memory at a time, however many an hour has; else all rows are.
"""

import contextlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from consumers.decode import registry
from consumers.lake.order import in_order, pieces
from consumers.lake.parquet import ROW_GROUP_ROWS, FileStats, write_tables
from consumers.lake.unify import concatenated
from schemas.errors import DamagedError

# So many files are open at once; an hour of more has small ones.
_OPEN_MAX: Final = 64
# So many times the rows may be read to have but a few in memory: pieces of many CPUs lie in the same row groups.
_READ_TIMES_MAX: Final = 2
_BATCH_ROWS: Final = 65_536


def merge_files(sources: Sequence[str], name: str, path: Path) -> FileStats:
    """Write the rows of `sources`, files of the table `name`, to the new file `path`; not synced.

    Raises:
        DamagedError: a source cannot be read, or a page of it is not what its checksum says; the text names it.
        StorageError: the disk refuses to write.
    """
    schemas = dict.fromkeys(_schema(source).remove_metadata() for source in sources)
    # With the columns and types of all files among them, whatever rows stand beside: what is missing is null.
    none = [schema.empty_table() for schema in schemas]
    schema = concatenated(none).schema
    spec = registry.spec_of(name, schema)
    with contextlib.ExitStack() as stack:
        parts = None
        if len(sources) <= _OPEN_MAX:
            files = _Files([(source, stack.enter_context(_opened(source))) for source in sources])
            parts = files.in_order(spec.sort_keys)
        if parts is None:
            whole = concatenated([*none, *map(_read, sources)]).unify_dictionaries()
            found = pieces(whole[key] for key in spec.sort_keys)
            if found is None:
                whole, found = in_order(whole, spec.sort_keys), [(0, whole.num_rows)]
            parts = (whole.slice(first, end - first) for first, end in found)
        return write_tables(_batches(parts, none), schema, spec, path, dense=True)


class _Files:
    """Open files, the rows of all of them counted through."""

    def __init__(self, files: Sequence[tuple[str, pq.ParquetFile]]) -> None:
        self._files = files
        self._groups = [(*each, group) for each in files for group in range(each[1].num_row_groups)]
        self._ends = list(accumulate(file.metadata.row_group(group).num_rows for _, file, group in self._groups))

    def in_order(self, keys: Sequence[str]) -> Iterator[pa.Table] | None:
        """Return the rows in the order of the columns `keys`; None where most would be read too often for that."""
        found = pieces(concatenated([_column(*each, key) for each in self._files])[key] for key in keys)
        count = self._ends[-1] if self._ends else 0
        if found is None:
            return None
        read = sum(until - self._start(number) for _, until, number in self._within(found))
        return self._rows(found) if read <= _READ_TIMES_MAX * count else None

    # From each first row to the one before each end; a row group is read from its beginning on.
    def _rows(self, wanted: Iterable[tuple[int, int]]) -> Iterator[pa.Table]:
        for first, until, number in self._within(wanted):
            path, file, group = self._groups[number]
            at = self._start(number)
            with _refusals(path):
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
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


def _opened(path: str) -> pq.ParquetFile:
    with _refusals(path):
        return pq.ParquetFile(path, page_checksum_verification=True)


def _schema(path: str) -> pa.Schema:
    with _refusals(path):
        return pq.read_schema(path)


def _read(path: str) -> pa.Table:
    with _refusals(path):
        return pq.read_table(path, partitioning=None, page_checksum_verification=True)


def _column(path: str, file: pq.ParquetFile, name: str) -> pa.Table:
    with _refusals(path):
        return file.read(columns=[name])


@contextlib.contextmanager
def _refusals(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as e:
        raise DamagedError(f"{path}: {e}") from e
