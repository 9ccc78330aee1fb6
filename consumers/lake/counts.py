"""What the rows themselves say of every stream, to hold the books against."""

from collections import Counter
from typing import Any, Final, NamedTuple

import duckdb

from consumers.decode import registry
from consumers.lake.snapshot import Snapshot
from consumers.lake.storage import Storage
from schemas.errors import StorageError
from schemas.stream import Stream

_STREAM: Final = ", ".join(Stream._fields)


class Counted(NamedTuple):
    """Rows of one stream in the tables of its surface, and how many different positions each table's rows hold."""

    rows: int
    positions: int


def lost(storage: Storage, taken: Snapshot) -> dict[tuple[Stream, str], int]:
    """Return the sum of `losses.count` of every stream and unit; losses of whole messages have no stream, so no sum.

    Raises:
        StorageError: the files cannot be read.
    """
    source = "read_parquet(?, hive_partitioning=false)"
    # A sum of 128 bits: what one frame tells has 63, and it may tell anything.
    sql = f"select {_STREAM}, unit, sum(count)::hugeint from {source} where machine <> '' group by all"  # noqa: S608
    return {(Stream(*row[:-2]), row[-2]): row[-1] or 0 for row in rows_of(storage, taken, "losses", sql)}


def stored_rows(storage: Storage, taken: Snapshot) -> dict[Stream, int]:
    """Count the rows of every stream in the tables of its surface; reads the columns of their place.

    Raises:
        StorageError: the files cannot be read.
    """
    counted: Counter[Stream] = Counter()
    for decoder in registry.record_decoders().values():
        entries = [entry for table in filter(decoder.owns, taken.files) for entry in taken.files[table]]
        files = [storage.local_path(entry.key) for entry in entries]
        sql = f"select {_STREAM}, count(*) from read_parquet(?, hive_partitioning=false) group by all"  # noqa: S608
        for *names, rows in _rows(sql, files):
            counted[Stream(*names)] += rows
    return counted


def stored_positions(storage: Storage, taken: Snapshot) -> dict[Stream, Counted]:
    """Count the rows and different positions of every stream; reads two columns of every file.

    Raises:
        StorageError: the files cannot be read.
    """
    counted: dict[Stream, Counted] = {}
    for decoder in registry.record_decoders().values():
        for entries in (entries for table, entries in taken.files.items() if decoder.owns(table)):
            files = [storage.local_path(entry.key) for entry in entries]
            what = f"count(*), count(distinct {decoder.POSITION})"
            sql = f"select {_STREAM}, {what} from read_parquet(?, hive_partitioning=false) group by all"  # noqa: S608
            for *names, rows, positions in _rows(sql, files):
                before = counted.get(Stream(*names), Counted(0, 0))
                counted[Stream(*names)] = Counted(before.rows + rows, before.positions + positions)
    return counted


def rows_of(storage: Storage, taken: Snapshot, table: str, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of `sql`, whose one parameter is the list of the files of `table`; none where there are no files.

    Raises:
        StorageError: the files cannot be read.
    """
    return _rows(sql, [storage.local_path(entry.key) for entry in taken.files.get(table, [])])


def _rows(sql: str, files: list[str]) -> list[tuple[Any, ...]]:
    if not files:
        return []
    connection = duckdb.connect()
    try:
        return list(connection.execute(sql, [files]).fetchall())
    except (duckdb.Error, UnicodeDecodeError) as e:  # the last: a damaged word, or in the text of an error
        raise StorageError(f"the rows cannot be counted: {e}") from None
    finally:
        connection.close()
