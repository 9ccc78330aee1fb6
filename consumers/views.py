"""DuckDB over a snapshot of the lake: one view per table, over exactly the files that commits name."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import duckdb

from consumers.decode import registry
from consumers.lake.chain import FileEntry
from consumers.lake.damage import readable
from consumers.lake.snapshot import Snapshot, snapshot
from consumers.lake.storage import Storage
from consumers.lake.unify import Source, read_sql, view_sql
from schemas.errors import StorageError, UsageError

# Nothing is fetched from anywhere.
_CONFIG: Final = {"allow_community_extensions": "false", "autoinstall_known_extensions": "false"}
#: Ends the name of a view that has a table's rows in the order of time.
_BY_TIME: Final = "_by_time"
_WORD: Final = re.compile(r"\w+")
#: What asks for the tables themselves.
_CATALOG: Final = re.compile(
    r"\b(show|information_schema|pg_\w+|sqlite_\w+|duckdb_\w+|pragma\w*)\b|^\s*describe\s*;?\s*$", re.IGNORECASE
)
_ROWS_AT_ONCE: Final = 10_000
_GROWN: Final = re.compile(r"Table with name (bpf|trace)_\w+ does not exist", re.IGNORECASE)
#: What DuckDB says of a time that is held against a number.
_NO_NUMBER: Final = re.compile(r"string '\d{4}-\d\d|compare values of type BIGINT and type (TIMESTAMP|DATE)")
_READING: Final = (
    duckdb.StatementType.SELECT,
    duckdb.StatementType.EXPLAIN,
    duckdb.StatementType.PRAGMA,
    duckdb.StatementType.COPY,
)


def connect(storage: Storage, taken: Snapshot | None = None, sql: str | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection that has a view for every table; a table without rows is an empty one.

    A table whose own order is not that of time has a second view with the same rows, `<table>_by_time`.

    With `sql`, only what that statement can want: the tables whose names are in it, by time where it asks for times.
    Files that the manifest of `taken` names as damaged are left out, and told.

    Raises:
        StorageError: a file of the lake cannot be read, or none of a table that `sql` wants.
    """
    taken = taken or snapshot(storage)
    connection = duckdb.connect(config=_CONFIG)
    try:
        _fill(connection, storage, taken, sql)
    except (duckdb.IOException, duckdb.InvalidInputException) as e:
        connection.close()
        raise _unreadable(e) from None
    return connection


def _fill(connection: duckdb.DuckDBPyConnection, storage: Storage, taken: Snapshot, sql: str | None) -> None:
    # Wherever the reader sits.
    connection.execute("set TimeZone = 'UTC'")
    always = {spec.name: spec.schema for spec in registry.tables()}
    by_time = sql is not None and "ts_ns" in sql.lower()
    wanted = _wanted({**always, **taken.files}, sql)
    files = readable(storage, taken.of(wanted)).files
    for name in wanted:
        sources = [_source(storage, entry, by_time) for entry in files.get(name, [])]
        if sources:
            # Tables that the kernel describes differ from kernel to kernel, the others do not.
            source = read_sql(sources) if name in always else view_sql(sources)
            columns = registry.columns_sql(name, connection.sql(f"from {source}").columns)
            connection.execute(f'create view "{name}" as select {columns} from {source}')  # noqa: S608
            order = registry.time_order(name)
            if order and name + _BY_TIME not in taken.files:
                connection.execute(f'create view "{name}{_BY_TIME}" as from "{name}" order by {order}')
        elif name in always:
            connection.register("_empty", always[name].empty_table())
            connection.execute(f"create table {name} as from _empty")
            connection.unregister("_empty")
        elif sql is not None and not _CATALOG.search(sql):
            raise StorageError(f"the lake cannot be read: all files of {name} are damaged")


def run_query(storage: Storage, sql: str) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
    """Return the column names and rows that `sql`, one statement, gives; raises as `answering`."""
    with answering(storage, sql) as (columns, rows):
        return columns, list(rows)


@contextlib.contextmanager
def answering(storage: Storage, sql: str) -> Iterator[tuple[Sequence[str], Iterator[tuple[Any, ...]]]]:
    """Give the column names that `sql`, one statement, gives, and its rows, which are made as they are taken.

    Raises:
        UsageError: it is no statement that reads, or DuckDB refuses it; the message has DuckDB's own words.
        StorageError: a file of the lake cannot be read.
    """
    taken = Snapshot()
    with contextlib.ExitStack() as open_:
        try:
            _check(sql)
            taken = snapshot(storage)
            connection = open_.enter_context(contextlib.closing(connect(storage, taken, sql)))
            try:
                result = connection.execute(sql)
            except duckdb.CatalogException:
                # A name that is written in another way, or wrong: then what is like it is to be seen.
                connection = open_.enter_context(contextlib.closing(connect(storage, taken)))
                result = connection.execute(sql)
            yield [item[0] for item in result.description or []], _rows(result)
        except duckdb.Error as e:
            if any(storage.local_path(each.key) in str(e) for files in taken.files.values() for each in files):
                raise _unreadable(e) from None
            if _is_of_damage(e, sql):
                raise _unreadable(e) from None
            raise UsageError(_readable(str(e))) from None
        except UnicodeDecodeError as e:  # a damaged word
            raise _unreadable(e) from None


# Mostly without a file, and by no class of its own; of what the caller reads beside the lake it is the caller's.
def _is_of_damage(error: duckdb.Error, sql: str) -> bool:
    text = str(error).lower()
    return (type(error) is duckdb.Error and "extension" not in text) or ("parquet" in text and "parquet" not in sql)


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while some := result.fetchmany(_ROWS_AT_ONCE):
        yield from some


# DuckDB's text mostly does not say in which file.
def _unreadable(error: Exception) -> StorageError:
    return StorageError(
        f"the lake cannot be read: {str(error).splitlines()[0]}; `hypocenter audit --deep` says what is wrong, and"
        " what is damaged is left out of answers from then on"
    )


# To make a view costs milliseconds, and a kernel can have a thousand kinds of events.
def _wanted(names: Iterable[str], sql: str | None) -> list[str]:
    if sql is None or _CATALOG.search(sql):
        return list(names)
    words = set(_WORD.findall(sql.lower()))
    return [name for name in names if not words.isdisjoint((name.lower(), name.lower() + _BY_TIME))]


def _source(storage: Storage, entry: FileEntry, by_time: bool) -> Source:
    span = None
    if by_time and entry.min_ts_ns is not None and entry.max_ts_ns is not None:
        span = (entry.min_ts_ns, entry.max_ts_ns)
    return Source(storage.local_path(entry.key), entry.columns, span, entry.machines)


def _check(sql: str) -> None:
    found = duckdb.extract_statements(sql)
    if len(found) != 1:
        raise UsageError(f"query runs one statement, this text has {len(found)}")
    kind = found[0].type
    if kind not in _READING:
        raise UsageError(
            f"query only reads the lake: select, describe, explain or copy (...) to, not {kind.name.lower()}"
        )


# DuckDB's text without its empty lines; under the statement's line it marks the place.
def _readable(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    hint = "`describe kmsg` shows a table's columns, `show tables` the tables"
    if _GROWN.search(text):
        hint += "; that of a program or of a kind of event is there when the first of its records is"
    if _NO_NUMBER.search(text):
        return "\n  ".join([*lines, "times are whole ns: epoch_ns(timestamptz '2026-03-02 09:00:00+00') is one"])
    return "\n  ".join([*lines, hint] if "Binder Error" in text or "Catalog Error" in text else lines)
