"""Several Parquet files of one table into one, in the order of its keys, written for good.

Files are in order, and so are long pieces of several such files. Where these go piece by piece without reading much
twice, the rows of a row group are in memory at a time, however many an hour has; else all rows are.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from consumers.decode import registry
from consumers.lake.order import in_order, pieces
from consumers.lake.parquet import ROW_GROUP_ROWS, FileStats, write_tables
from consumers.lake.unify import concatenated

# So many times the rows may be read to have but a few in memory: pieces of many CPUs lie in the same row groups.
_READ_TIMES_MAX: Final = 2
_BATCH_ROWS: Final = 65_536


def merge_files(sources: Sequence[str], name: str, path: Path) -> FileStats:
    """Write the rows of `sources`, files of the table `name`, to the new file `path`; not synced.

    Raises:
        StorageError: the disk refuses to write.
        OSError: a source cannot be read.
        pyarrow.ArrowException: a source is no such file.
    """
    files = [pq.ParquetFile(source) for source in sources]
    # With the columns and types of all files among them, whatever rows stand beside: what is missing is null.
    none = [schema.empty_table() for schema in dict.fromkeys(file.schema_arrow.remove_metadata() for file in files)]
    schema = concatenated(none).schema
    spec = registry.spec_of(name, schema)
    found = pieces(concatenated([file.read(columns=[key]) for file in files])[key] for key in spec.sort_keys)
    rows = _Rows(files)
    if found is not None and rows.to_read(found) <= _READ_TIMES_MAX * rows.count:
        parts = rows.parts(found)
    else:
        whole = concatenated([*none, *(file.read() for file in files)]).unify_dictionaries()
        if found is None:
            whole, found = in_order(whole, spec.sort_keys), [(0, rows.count)]
        parts = (whole.slice(first, end - first) for first, end in found)
    return write_tables(_batches(parts, none), schema, spec, path, dense=True)


class _Rows:
    """The rows of files, counted through them all."""

    def __init__(self, files: Sequence[pq.ParquetFile]) -> None:
        self._groups = [(file, group) for file in files for group in range(file.num_row_groups)]
        self._ends = list(accumulate(file.metadata.row_group(group).num_rows for file, group in self._groups))
        self.count = self._ends[-1] if self._ends else 0

    def to_read(self, wanted: Iterable[tuple[int, int]]) -> int:
        """Return how many rows `parts` reads."""
        return sum(until - self._start(number) for _, until, number in self._within(wanted))

    def parts(self, wanted: Iterable[tuple[int, int]]) -> Iterator[pa.Table]:
        """Yield the rows from each first one to the one before each end; a row group is read from its beginning on."""
        for first, until, number in self._within(wanted):
            file, group = self._groups[number]
            at = self._start(number)
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
                low, high = max(first - at, 0), min(until - at, len(batch))
                if low < high:
                    yield pa.Table.from_batches([batch.slice(low, high - low)])
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
