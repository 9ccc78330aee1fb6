"""One Arrow table into one Parquet file, with the encodings of its `TableSpec`."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from consumers.lake.tables import TableSpec
from consumers.lake.unify import columns_id, machines_by_column
from schemas.errors import StorageError

#: Four of DuckDB's own row groups. Each costs its footer and the beginning of every encoder: with a quarter as many,
#: trace events take 7 % less time to write and 1 % less room, and a query of one CPU's second takes no longer.
ROW_GROUP_ROWS: Final = 491_520
# The encoders work on so many values at a time: by 1,024, the default, a seventh of the time goes into beginning anew.
_BATCH_ROWS: Final = 16_384
# Of zstd. What is written for good has it everywhere, a higher level for ranks of bytes, where that saves a twentieth
# and takes hardly longer; what a commit writes has it for free text and the like. There all that an encoding has made
# small already has LZ4: for a trace event 52 ns instead of 75, and half as much room again until its hour is over.
_LEVEL: Final = 1
_DENSE_LEVELS: Final = (6, 9)
# Where a range of values lets a reader pass over rows, beside all that counts up. Elsewhere it finds next to nothing,
# and to look for it costs as much as a dictionary column's encoding, and a tenth of a free text's.
_RANGED: Final = ("machine", "cpu")
# The same in many rows one behind the other: for LZ4 as they are they take 2 ns a value less than their differences do,
# and up to 0.15 bytes more.
_HELD: Final = ("page", "arrival_ns")


class FileStats(NamedTuple):
    """What a commit says of a file; the range of times is None where a row has none. `columns` is its `columns_id`.

    `machines` counts what `machines_by_column` names.
    """

    rows: int
    size_bytes: int
    sha256: str
    min_ts_ns: int | None
    max_ts_ns: int | None
    columns: str
    machines: dict[str, int]


def write_table(table: pa.Table, spec: TableSpec, path: Path, metadata: dict[str, str] | None = None) -> FileStats:
    """Write `table` to the new file `path`; not synced.

    Raises:
        StorageError: the disk refuses.
    """
    # What is nowhere null need not say so for each row, which takes longer than the encoding itself.
    fields = [
        each.with_nullable(bool(column.null_count)) for each, column in zip(table.schema, table.columns, strict=True)
    ]
    schema = pa.schema(fields, {**(table.schema.metadata or {}), **(metadata or {})})
    return write_tables([table.cast(schema)], schema, spec, path)


def write_tables(
    tables: Iterable[pa.Table], schema: pa.Schema, spec: TableSpec, path: Path, *, dense: bool = False
) -> FileStats:
    """Write `tables`, each of `schema`, behind each other to the new file `path`; not synced.

    `dense` takes longer and makes it smaller; then all but the last one should have ROW_GROUP_ROWS rows.

    Raises:
        StorageError: the disk refuses.
    """
    present = set(schema.names)
    ranged = {*_RANGED, *spec.delta_columns}
    encodings = [
        (name, "DELTA_BINARY_PACKED" if dense or name not in _HELD else "PLAIN") for name in spec.delta_columns
    ]
    encodings += [(name, "BYTE_STREAM_SPLIT") for name in spec.split_columns]
    encodings = [(name, kind) for name, kind in encodings if name in present]
    dictionaries = [name for name in spec.dictionary_columns if name in present]
    small = {*dictionaries, *(name for name, _ in encodings)}
    level, split_level = _DENSE_LEVELS
    codecs = {path: "zstd" if dense or name not in small else "lz4" for name, path in _leaves(schema)}
    levels = {
        path: _LEVEL if not dense else split_level if name in spec.split_columns else level
        for name, path in _leaves(schema)
        if codecs[path] == "zstd"
    }
    rows, ranges = 0, []
    machines: dict[str, set[str]] = {}
    try:
        with pq.ParquetWriter(
            path,
            schema,
            compression=codecs,
            compression_level=levels,
            write_batch_size=_BATCH_ROWS,
            use_dictionary=dictionaries,
            column_encoding=dict(encodings),
            write_statistics=[name for name in schema.names if name in ranged],
            write_page_index=True,
            write_page_checksum=True,
            sorting_columns=pq.SortingColumn.from_ordering(schema, [(name, "ascending") for name in spec.sort_keys]),
        ) as writer:
            for table in tables:
                writer.write_table(table, ROW_GROUP_ROWS)
                rows += table.num_rows
                ranges.append(_range(table, "ts_ns"))
                for name, found in machines_by_column(table).items():
                    machines.setdefault(name, set()).update(found)
        digest = file_sha256(path)
        size_bytes = path.stat().st_size
    except OSError as e:
        raise StorageError(f"{path}: {e.strerror or e}") from e
    counts = {name: len(found) for name, found in machines.items()}
    return FileStats(rows, size_bytes, digest, *_hull(ranges), columns_id(schema), counts)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits; OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The columns as Parquet has them, each with the name of the one that it is part of. What is not named by its own path
# would be written as it is.
def _leaves(schema: pa.Schema) -> Iterator[tuple[str, str]]:
    for each in schema:
        for path in _paths(each.name, each.type):
            yield each.name, path


def _paths(path: str, kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_map(kind):
        yield from _paths(f"{path}.key_value.key", kind.key_type)
        yield from _paths(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _paths(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            yield from _paths(f"{path}.{kind.field(i).name}", kind.field(i).type)
    else:
        yield path


def _range(table: pa.Table, name: str) -> tuple[Any, Any]:
    if name not in table.column_names or table[name].null_count or not table.num_rows:
        return None, None
    found = pc.min_max(table[name])
    return found["min"].as_py(), found["max"].as_py()


def _hull(ranges: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    lows, highs = ([each[i] for each in ranges] for i in (0, 1))
    return (None, None) if None in lows or not lows else (min(lows), max(highs))
