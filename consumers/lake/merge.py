"""Several Parquet files of one table into one, in the order of its keys, written for good.

Files are in order, and so are long pieces of several such files. Where these go piece by piece, only a few row groups
are in memory at a time, however many rows an hour has; else all rows are.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from consumers.decode import registry
from consumers.lake.order import in_order, pieces
from consumers.lake.parquet import DENSE_ROW_GROUP_ROWS, FileStats, write_tables
from consumers.lake.unify import concatenated

# Row groups that are kept: a piece begins in the one in which that before it ended, or at another file's end.
_GROUPS_KEPT: Final = 2


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
    if found is None:
        whole = concatenated([*none, *(file.read() for file in files)]).unify_dictionaries()
        parts = iter([in_order(whole, spec.sort_keys)])
    else:
        parts = _batches(_Rows(files).parts(found), none)
    return write_tables(parts, schema, spec, path, dense=True)


class _Rows:
    """The rows of files, counted through them all, read a row group at a time."""

    def __init__(self, files: Sequence[pq.ParquetFile]) -> None:
        self._groups = [(file, group) for file in files for group in range(file.num_row_groups)]
        sizes = (file.metadata.row_group(group).num_rows for file, group in self._groups)
        self._ends = list(accumulate(sizes))
        self._read = lru_cache(_GROUPS_KEPT)(lambda file, group: file.read_row_group(group))

    def parts(self, wanted: Iterable[tuple[int, int]]) -> Iterator[pa.Table]:
        """Yield the rows from each first one to the one before each end."""
        for begin, end in wanted:
            first = begin
            while first < end:
                number = bisect_right(self._ends, first)
                start, until = self._ends[number - 1] if number else 0, min(end, self._ends[number])
                yield self._read(*self._groups[number]).slice(first - start, until - first)
                first = until


# As many rows at a time as a row group has.
def _batches(parts: Iterable[pa.Table], none: list[pa.Table]) -> Iterator[pa.Table]:
    kept: list[pa.Table] = []
    rows = 0
    for whole in parts:
        part = whole
        while rows + part.num_rows >= DENSE_ROW_GROUP_ROWS:
            taken = DENSE_ROW_GROUP_ROWS - rows
            yield concatenated([*none, *kept, part.slice(0, taken)]).unify_dictionaries()
            kept, rows, part = [], 0, part.slice(taken)
        if part.num_rows:
            kept.append(part)
            rows += part.num_rows
    if kept:
        yield concatenated([*none, *kept]).unify_dictionaries()
