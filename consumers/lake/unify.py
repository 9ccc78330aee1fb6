"""Tables of one name from different kernels: columns may be missing here and of another type there.

One rule for Arrow and for DuckDB, whose own differ, and fail where types do not go together: integers widen, signed
ones together with 64 unsigned bits to decimals. What does not go together stays beside each other, each sort of types
in a column of its own: `prev_pid`, `prev_pid:text`; no field has such a name. So no machine makes text of the numbers
of all. A view has the sort of most machines as `prev_pid`, and the others as text in `prev_pid_text`; where most have
text, all is. Text is DuckDB's by both ways, bytes as digits in hexadecimal. Names that differ only in upper and lower
case are one column, as they are to SQL, under the first of them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isqrt
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import StorageError

#: Holds every integer of 64 bits, signed or not.
WIDE: Final = pa.decimal128(20, 0)
_SIGNED: Final = {pa.int8(): 8, pa.int16(): 16, pa.int32(): 32, pa.int64(): 64}
_UNSIGNED: Final = {pa.bool_(): 1, pa.uint8(): 8, pa.uint16(): 16, pa.uint32(): 32, pa.uint64(): 64}
_BY_SIGN_AND_BITS: Final = {
    **{(True, bits): kind for kind, bits in _SIGNED.items()},
    **{(False, bits): kind for kind, bits in _UNSIGNED.items()},
}
_SQL: Final = {
    pa.int8(): "TINYINT", pa.int16(): "SMALLINT", pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT", pa.uint32(): "UINTEGER", pa.uint64(): "UBIGINT", WIDE: "DECIMAL(20, 0)",
    pa.float64(): "DOUBLE",
}  # fmt: skip
_ID_CHARS: Final = 16
# The sorts of types that go together, by which the others of one file are told: the first that it has keeps the name.
_SORTS: Final = ("number", "numbers", "float", "bytes", "other", "text")
#: Fewer files are opened sooner than groups of them are planned.
_GROUPED_FILES_LEAST: Final = 16


class Source(NamedTuple):
    """A Parquet file to read.

    `columns` is its `columns_id`, None where nobody knows; `span` the least and the greatest `ts_ns` in it, None where
    that is not known or nobody asks for times; `machines` what `machines_by_column` says of it.
    """

    path: str
    columns: str | None = None
    span: tuple[int, int] | None = None
    machines: Mapping[str, int] = {}


class _Common(NamedTuple):
    name: str
    type: pa.DataType


def concatenated(parts: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of `parts` in one table with all their columns; a missing one is null."""
    common = _common_types(part.schema for part in parts)
    keys = [_keys(part.schema) for part in parts]
    everywhere = {key for key in common if all(key in each for each in keys)}
    cast = [_cast(part, each, common, everywhere) for part, each in zip(parts, keys, strict=True)]
    return pa.concat_tables(cast, promote_options="permissive")


def columns_id(schema: pa.Schema) -> str:
    """Return a name for the columns of `schema`, 16 hexadecimal digits: files of one name are read in one way."""
    told = repr([(item.name, str(_plain(item.type))) for item in schema])
    return hashlib.sha256(told.encode()).hexdigest()[:_ID_CHARS]


def union_sql(sources: Sequence[Source]) -> str:
    """Return the FROM item of DuckDB that reads `sources`, at least one, as `concatenated` joins them.

    Raises:
        StorageError: a file cannot be read.
    """
    return _union_sql(_alike(sources))


def view_sql(sources: Sequence[Source]) -> str:
    """Return the same, where each column has the type of most machines and beside it the others as text, `<name>_text`.

    Most are those of the one file that has the most of them, so that none counts twice; else it goes by `_SORTS`.

    Raises:
        StorageError: a file cannot be read.
    """
    alike = _alike(sources)
    union = _union_sql(alike)
    if len(alike) == 1 and not any(":" in name for name in alike[0][0].names):
        return union
    common = _common_types(schema for schema, _ in alike)
    slots: dict[str, list[str]] = {}
    for key in common:
        slots.setdefault(key.rpartition(":")[0], []).append(key)
    if len(slots) == len(common):
        return union
    most = Counter[str]()
    for schema, group in alike:
        for key, item in zip(_keys(schema), schema, strict=True):
            counts = [source.machines.get(item.name, source.machines.get("", 1)) for source in group]
            most[key] = max(most[key], *counts)
    used = {common[key].name.lower() for key in common}
    selects = []
    for keys in slots.values():
        keys.sort(key=lambda key: (-most[key], _rank(key)))
        selects += _chosen_sql([common[key] for key in keys], used)
    return f"(select {', '.join(selects)} from {union})"  # noqa: S608


def folded(table: pa.Table) -> pa.Table:
    """Return `table` with one column, of text, for all that stand beside each other."""
    slots: dict[str, list[int]] = {}
    for i, key in enumerate(_keys(table.schema)):
        slots.setdefault(key.rpartition(":")[0], []).append(i)
    if len(slots) == table.num_columns:
        return table
    columns, names = [], []
    for base, at in slots.items():
        plain = [table[i].cast(_plain(table[i].type)) for i in at]
        columns.append(table[at[0]] if len(at) == 1 else pc.coalesce(*map(_text, plain)))
        names.append(next((table.column_names[i] for i in at if ":" not in table.column_names[i]), base))
    return pa.table(columns, names=names)


def machines_by_column(table: pa.Table) -> dict[str, set[str]]:
    """Return which machines `table` is of, under no name; and of each of the columns that stand beside each other."""
    if "machine" not in table.column_names:
        return {}
    keys = Counter(key.rpartition(":")[0] for key in _keys(table.schema))
    beside = [
        name
        for name, key in zip(table.column_names, _keys(table.schema), strict=True)
        if keys[key.rpartition(":")[0]] > 1
    ]
    found = {"": _values(table["machine"])}
    return found | {
        name: set(pc.unique(table["machine"].filter(pc.is_valid(table[name]))).to_pylist()) for name in beside
    }


# Of a dictionary of one word, which most are, no row need be looked at.
def _values(column: pa.ChunkedArray) -> set[str]:
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    dictionary = pa.types.is_dictionary(column.type)
    if dictionary and all(len(each.dictionary) == 1 and not each.null_count for each in chunks):
        return {each.dictionary[0].as_py() for each in chunks}
    return set(pc.unique(column).to_pylist())


def _rank(key: str) -> int:
    return _SORTS.index(key.rpartition(":")[2])


# Text takes in all; beside another sort the rest is text of its own.
def _chosen_sql(columns: list[_Common], used: set[str]) -> list[str]:
    name = _quoted(min((column.name for column in columns), key=len))
    first, *rest = (_text_sql(_quoted(column.name), _plain(column.type)) for column in columns)
    if not rest:
        return [name]
    if _plain(columns[0].type) == pa.string():
        return [f"coalesce({', '.join((first, *rest))}) as {name}"]
    text = f"{name[1:-1]}_text"
    while text.lower() in used:
        text += "_"
    used.add(text.lower())
    return [f"{_quoted(columns[0].name)} as {name}", f'coalesce({", ".join(rest)}, null) as "{text}"']


# The files of the same columns, by these.
def _alike(sources: Sequence[Source]) -> list[tuple[pa.Schema, list[Source]]]:
    named: dict[str, list[Source]] = {}
    for source in sources:
        named.setdefault(source.columns or source.path, []).append(source)
    alike: dict[tuple[tuple[str, pa.DataType], ...], list[Source]] = {}
    for group in named.values():
        schema = _schema(group[0].path)
        alike.setdefault(tuple((item.name, _plain(item.type)) for item in schema), []).extend(group)
    return [(pa.schema(list(columns)), group) for columns, group in alike.items()]


def _union_sql(alike: list[tuple[pa.Schema, list[Source]]]) -> str:
    if len(alike) == 1:
        return read_sql(alike[0][1])
    common = _common_types(schema for schema, _ in alike)
    selects = [
        f"select {', '.join(_columns_sql(schema, common))} from {read_sql(group)}"  # noqa: S608
        for schema, group in alike
    ]
    return f"({' union all by name '.join(selects)})"


def read_sql(sources: Sequence[Source]) -> str:
    """Return the FROM item of DuckDB that reads `sources`, all of one schema.

    Many files whose times are known are read in groups, each with its span as a condition: a group that cannot hold
    what a query asks for falls to DuckDB's planner, and none of its files is opened.
    """
    spans = [source.span for source in sources if source.span]
    if len(spans) < len(sources) or len(sources) < _GROUPED_FILES_LEAST:
        return _files_sql(sources)
    ordered = sorted(sources, key=lambda source: source.span or (0, 0))
    size = isqrt(len(ordered))
    selects = []
    for group in (ordered[at : at + size] for at in range(0, len(ordered), size)):
        low, high = min(each.span[0] for each in group if each.span), max(each.span[1] for each in group if each.span)
        selects.append(f"select * from {_files_sql(group)} where ts_ns between {low} and {high}")  # noqa: S608
    return f"({' union all '.join(selects)})"


def _files_sql(sources: Sequence[Source]) -> str:
    listed = ", ".join("'" + source.path.replace("'", "''") + "'" for source in sources)
    return f"read_parquet([{listed}], hive_partitioning=false)"


def _schema(path: str) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as e:  # the last: a damaged name of a column
        raise StorageError(f"{path}: {e}") from e


# A name in lower case and its sort for each column; of two that differ only in case the second has another name.
def _keys(schema: pa.Schema) -> list[str]:
    found: list[str] = []
    plain: set[str] = set()
    for item in schema:
        base, _, sort = item.name.lower().rpartition(":")
        if not base or sort not in _SORTS:
            base, sort = item.name.lower(), _sort(_plain(item.type))
            while base in plain:
                base += "\0"
            plain.add(base)
        found.append(f"{base}:{sort}")
    return found


def _sort(kind: pa.DataType) -> str:
    if _is_number(kind):
        return "number"
    if pa.types.is_list(kind) and _is_number(kind.value_type):
        return "numbers"
    if pa.types.is_floating(kind):
        return "float"
    if pa.types.is_binary(kind):
        return "bytes"
    return "text" if pa.types.is_string(kind) else "other"


# By `_keys`, in the order in which the columns first come.
def _common_types(schemas: Iterable[pa.Schema]) -> dict[str, _Common]:
    names: dict[str, str] = {}
    kinds: dict[str, dict[pa.DataType, None]] = {}
    for schema in schemas:
        for key, item in zip(_keys(schema), schema, strict=True):
            base, _, sort = key.rpartition(":")
            if base not in names:
                name = item.name.removesuffix(f":{sort}")
                names[base] = name if name not in names.values() else f"{name}_"
            kinds.setdefault(key, {})[item.type] = None
    first: dict[str, str] = {}
    for key in sorted(kinds, key=_rank):
        first.setdefault(key.rpartition(":")[0], key)
    found = {}
    for key, types in kinds.items():
        base, _, sort = key.rpartition(":")
        found[key] = _Common(names[base] if first[base] == key else f"{names[base]}:{sort}", _common(list(types)))
    return found


def _common(kinds: list[pa.DataType]) -> pa.DataType:
    # Maps, which no kernel makes, differ only in what they call their keys.
    if len(kinds) == 1 or all(map(pa.types.is_map, kinds)):
        return kinds[0]
    plain = {_plain(kind) for kind in kinds}
    if len(plain) == 1:
        return plain.pop()
    if all(map(_is_number, plain)):
        return _number(plain)
    if all(map(pa.types.is_floating, plain)):
        return pa.float64()
    if all(pa.types.is_list(kind) and _is_number(kind.value_type) for kind in plain):
        return pa.list_(_common(list({kind.value_type for kind in plain})))
    return pa.string()


def _number(kinds: set[pa.DataType]) -> pa.DataType:
    signed = max((_SIGNED[kind] for kind in kinds if kind in _SIGNED), default=0)
    unsigned = max((_UNSIGNED[kind] for kind in kinds if kind in _UNSIGNED), default=0)
    bits = max(signed, 2 * unsigned if unsigned > 1 else 8) if signed else max(unsigned, 8)
    return WIDE if WIDE in kinds or bits > 64 else _BY_SIGN_AND_BITS[bool(signed), bits]


def _is_number(kind: pa.DataType) -> bool:
    return kind in _SIGNED or kind in _UNSIGNED or kind == WIDE


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


# What is not `everywhere` will be null somewhere.
def _cast(part: pa.Table, keys: list[str], common: dict[str, _Common], everywhere: set[str]) -> pa.Table:
    part = part.rename_columns([common[key].name for key in keys])
    for i, (key, item) in enumerate(zip(keys, part.schema, strict=True)):
        kind, column = common[key].type, part[i]
        if item.type != kind and not pa.types.is_map(kind):
            plain = column.cast(_plain(item.type))
            column = _text(plain) if kind == pa.string() else _widened(plain, kind)
        nullable = item.nullable or key not in everywhere
        if column.type != item.type or nullable != item.nullable:
            part = part.set_column(i, item.with_type(column.type).with_nullable(nullable), column)
    return part


def _widened(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    # Arrow takes a truth to a decimal by no way.
    return column.cast(pa.uint8()).cast(kind) if pa.types.is_boolean(column.type) else column.cast(kind)


# By the engine that reads the files: what it makes of a number or a list nobody else would write letter by letter.
def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(column.type):
        return column
    values = pa.table({"x": column})
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("parts", values)
        found = connection.sql(f"select {_text_sql('x', column.type)} as x from parts").to_arrow_table()  # noqa: S608
    return found["x"].cast(pa.string())


def _text_sql(value: str, kind: pa.DataType) -> str:
    return f"cast({_readable_sql(value, kind)} as VARCHAR)"


# Bytes as digits, and a float of 32 bits, which has a text of its own, as one of 64: the same number, the same text.
def _readable_sql(value: str, kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list_transform({value}, lambda x: {_readable_sql('x', kind.value_type)})"
    if pa.types.is_binary(kind):
        return f"lower(hex({value}))"
    return f"cast({value} as DOUBLE)" if pa.types.is_float32(kind) else value


def _columns_sql(schema: pa.Schema, common: dict[str, _Common]) -> list[str]:
    found = []
    for key, item in zip(_keys(schema), schema, strict=True):
        value, kind, wanted = _quoted(item.name), _plain(item.type), _plain(common[key].type)
        if kind != wanted:
            value = _text_sql(value, kind) if wanted == pa.string() else f"cast({value} as {_type_sql(wanted)})"
        found.append(f"{value} as {_quoted(common[key].name)}")
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _type_sql(kind: pa.DataType) -> str:
    return f"{_type_sql(kind.value_type)}[]" if pa.types.is_list(kind) else _SQL[kind]
