"""DuckDB over a snapshot of the lake: one view per table, over exactly the files that commits name."""

from collections.abc import Sequence
from typing import Any

import duckdb

from consumers.decode import registry
from consumers.lake.snapshot import Snapshot, snapshot
from consumers.lake.storage import Storage
from consumers.lake.tables import TABLES
from schemas.errors import UsageError


def connect(storage: Storage, taken: Snapshot | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection that has a view for every table; a table without rows is an empty view."""
    taken = taken or snapshot(storage)
    connection = duckdb.connect(config={"allow_community_extensions": "false"})
    specs = {**TABLES, **{spec.name: spec for spec in registry.tables()}}
    for name, spec in specs.items():
        files = [storage.local_path(entry.key) for entry in taken.files.get(name, [])]
        if files:
            listed = ", ".join("'" + path.replace("'", "''") + "'" for path in files)
            connection.execute(f"create view {name} as select * from read_parquet([{listed}], hive_partitioning=false)")  # noqa: S608
        else:
            connection.register(f"_{name}", spec.schema.empty_table())
            connection.execute(f"create view {name} as select * from _{name}")  # noqa: S608
    return connection


def run_query(storage: Storage, sql: str) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
    """Return the column names and rows that `sql` gives.

    Raises:
        UsageError: DuckDB refuses the statement; the message is DuckDB's own.
    """
    connection = connect(storage)
    try:
        result = connection.execute(sql)
        return [item[0] for item in result.description or []], result.fetchall()
    except duckdb.Error as e:
        raise UsageError(str(e).strip()) from None
    finally:
        connection.close()
