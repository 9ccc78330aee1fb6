"""DuckDB over a snapshot of the lake: one view per table, over exactly the files that commits name."""

from collections.abc import Sequence
from typing import Any, Final

import duckdb

from consumers.decode import registry
from consumers.lake.snapshot import Snapshot, snapshot
from consumers.lake.storage import Storage
from consumers.lake.unify import read_sql, union_sql
from schemas.errors import UsageError

# Nothing is fetched from anywhere.
_CONFIG: Final = {"allow_community_extensions": "false", "autoinstall_known_extensions": "false"}
_READING: Final = (
    duckdb.StatementType.SELECT,
    duckdb.StatementType.EXPLAIN,
    duckdb.StatementType.PRAGMA,
    duckdb.StatementType.COPY,
)


def connect(storage: Storage, taken: Snapshot | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection that has a view for every table; a table without rows is an empty one."""
    taken = taken or snapshot(storage)
    connection = duckdb.connect(config=_CONFIG)
    # Wherever the reader sits.
    connection.execute("set TimeZone = 'UTC'")
    always = {spec.name: spec.schema for spec in registry.tables()}
    for name in {**always, **taken.files}:
        files = [storage.local_path(entry.key) for entry in taken.files.get(name, [])]
        if files:
            # Tables that the kernel describes differ from kernel to kernel, the others do not.
            source = read_sql(files) if name in always else union_sql(files)
            columns = registry.columns_sql(name, connection.sql(f"from {source}").columns)
            connection.execute(f'create view "{name}" as select {columns} from {source}')  # noqa: S608
        else:
            connection.register("_empty", always[name].empty_table())
            connection.execute(f"create table {name} as from _empty")
            connection.unregister("_empty")
    return connection


def run_query(storage: Storage, sql: str) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
    """Return the column names and rows that `sql`, one statement, gives.

    Raises:
        UsageError: it is no statement that reads, or DuckDB refuses it; the message has DuckDB's own words.
    """
    connection = connect(storage)
    try:
        _check(sql)
        result = connection.execute(sql)
        return [item[0] for item in result.description or []], result.fetchall()
    except duckdb.Error as e:
        raise UsageError(_readable(str(e))) from None
    finally:
        connection.close()


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
    return "\n  ".join([*lines, hint] if "Binder Error" in text or "Catalog Error" in text else lines)
