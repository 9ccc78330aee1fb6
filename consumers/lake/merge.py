"""Several Parquet files of one table into one, in the order of its keys, written for good."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from consumers.decode import registry
from consumers.lake.order import ordered
from consumers.lake.parquet import FileStats, write_table
from consumers.lake.unify import concatenated


def merge_files(sources: Sequence[str], name: str, path: Path) -> FileStats:
    """Write the rows of `sources`, files of the table `name`, to the new file `path`; not synced.

    Raises:
        StorageError: the disk refuses to write.
        OSError: a source cannot be read.
        pyarrow.ArrowException: a source is no such file.
    """
    table = concatenated([pq.read_table(source, partitioning=None) for source in sources])
    spec = registry.spec_of(name, table.schema)
    return write_table(ordered(table.unify_dictionaries(), spec.sort_keys), spec, path, dense=True)
