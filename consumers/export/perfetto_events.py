"""One table of trace events as messages of Perfetto: which field goes where, and the bytes of many rows at once.

Perfetto has a message for some six hundred kinds of event, with the kernel's own names for kind and fields
(protos/perfetto/trace/ftrace/ftrace_event.proto). A kind that is among them, and whose fields fit, is written so; any
other as `GenericFtraceEvent`, with all its columns by name. What the message of a kind lacks is left out, and told.

Known differences: a device number (`dev_t`) is there as stat(2) shows it, not as the kernel keeps it
(include/linux/kdev_t.h, makedev(3)); events without `common_pid` have the pid 0, because readers demand one.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import FtraceEvent, GenericFtraceEvent

from consumers.decode.ftrace_events import FRONT, TAKEN
from consumers.decode.slices import Ints, contents
from consumers.export import perfetto_loops as loops
from consumers.export.scope import Scope, Window, literal

_BATCH_ROWS: Final = 1 << 15
_VARINT_BYTES_MAX: Final = 10
# Ranges of DuckDB's integers, and of protobuf's that are varints.
_SIGNED: Final = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
_UNSIGNED: Final = {"BOOLEAN": 1, "UTINYINT": 8, "USMALLINT": 16, "UINTEGER": 32, "UBIGINT": 64}
_RANGES: Final = {
    **{name: (-(1 << bits - 1), (1 << bits - 1) - 1) for name, bits in _SIGNED.items()},
    **{name: (0, (1 << bits) - 1) for name, bits in _UNSIGNED.items()},
}
_PROTO_RANGES: Final = {
    FieldDescriptor.TYPE_INT32: _RANGES["INTEGER"],
    FieldDescriptor.TYPE_INT64: _RANGES["BIGINT"],
    FieldDescriptor.TYPE_UINT32: _RANGES["UINTEGER"],
    FieldDescriptor.TYPE_UINT64: _RANGES["UBIGINT"],
}
_PROTO_SLICES: Final = {FieldDescriptor.TYPE_STRING: "VARCHAR", FieldDescriptor.TYPE_BYTES: "BLOB"}
_DEVICES: Final = frozenset(("dev", "s_dev", "old_dev"))
_TYPED: Final = {field.name: field for field in FtraceEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
_GENERIC: Final = _TYPED.pop("generic")
_VALUE: Final = GenericFtraceEvent.Field.DESCRIPTOR.fields_by_name
# Of the name of a generic event, and of its fields.
_NAME_KEY: Final = b"\x0a"
_IN_FRONT: Final = frozenset((*(each.name for each in FRONT), *TAKEN))


class Encoded(NamedTuple):
    """Messages of some rows: row i is `octets[starts[i]:starts[i] + lengths[i]]`, with its place and its time."""

    octets: npt.NDArray[np.uint8]
    starts: Ints
    lengths: Ints
    ring: Ints
    page: Ints
    position: Ints
    ts_ns: Ints


class _Column(NamedTuple):
    sql: str
    sort: int
    wrapped: bool
    prefix: bytes


class Kind(NamedTuple):
    """How one table is written; `left_out` are the fields that the message has no place for."""

    table: str
    typed: bool
    left_out: tuple[str, ...]
    columns: tuple[_Column, ...]
    plan: tuple[Any, ...]
    select: str


def kinds(connection: duckdb.DuckDBPyConnection, scope: Scope) -> dict[str, Kind]:
    """Return how each table of `scope` is written. Reads the values of columns whose type is wider than the field's."""
    connection.execute("drop type if exists export_ring")
    names = ", ".join(literal(ring.instance) for ring in scope.rings)
    connection.execute(f"create type export_ring as enum ({names})")
    return {name: _kind(connection, scope, name) for name in scope.tables}


def encoded(
    connection: duckdb.DuckDBPyConnection, scope: Scope, kind: Kind, window: Window, shift: Any
) -> Iterator[Encoded]:
    """Yield the events of `kind` in `window`; `shift` gives the times to write for an array of `ts_ns`."""
    sql = f"{kind.select} where {scope.where} and ts_ns >= {window.since_ns} and ts_ns < {window.until_ns}"
    with connection.cursor() as cursor:
        for batch in cursor.sql(sql, params=list(scope.params)).to_arrow_reader(_BATCH_ROWS):
            if batch.num_rows:
                yield _encode(batch, kind, shift)


def varint(value: int) -> bytes:
    """Return the number `value`, not negative, as protobuf writes it."""
    found = bytearray()
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _kind(connection: duckdb.DuckDBPyConnection, scope: Scope, table: str) -> Kind:
    types = {row[0]: row[1] for row in connection.execute(f'describe "{table}"').fetchall()}
    own = {name: type_ for name, type_ in types.items() if name not in _IN_FRONT}
    name = table.removeprefix("trace_")
    message = _TYPED.get(name)
    ranges = _ranges(connection, scope, table, own, message.message_type if message else None)
    fields = {_field_name(column): column for column in own if not _is_name(column, own)}
    found = _typed(fields, own, ranges, message.message_type) if message else None
    head = b""
    left_out: list[str] = []
    if message is not None and found is not None:
        key, columns = _key(message), found
        left_out = [field for field in fields if field not in message.message_type.fields_by_name]
    else:
        key, head = _key(_GENERIC), _NAME_KEY + _text(name)
        columns = [_generic(column, type_, ranges.get(column)) for column, type_ in own.items()]
    front = [
        "instance::export_ring as ring",
        "page",
        "position",
        "ts_ns",
        "coalesce(pid, 0)" if "pid" in types else "0",
        "coalesce(flags::bigint, -1)" if "flags" in types else "-1",
    ]
    select = f'select {", ".join([*front, *(each.sql for each in columns)])} from "{table}"'  # noqa: S608
    return Kind(table, found is not None, tuple(left_out), tuple(columns), _plan(columns, key, head), select)


# Columns that hold an integer too wide for its field by type alone, with the least and greatest value that is there.
def _ranges(
    connection: duckdb.DuckDBPyConnection, scope: Scope, table: str, own: dict[str, str], message: Descriptor | None
) -> dict[str, tuple[int, int]]:
    asked = []
    for column, type_ in own.items():
        field = message.fields_by_name.get(_field_name(column)) if message else None
        limits = _PROTO_RANGES.get(field.type) if field else None
        wide = type_ in _RANGES and limits is not None and not _within(_RANGES[type_], limits)
        if wide or (type_.startswith("DECIMAL") and not type_.endswith("[]")):
            asked.append(column)
    known = {column: _RANGES[type_] for column, type_ in own.items() if type_ in _RANGES}
    if asked:
        sums = ", ".join(f"min({_quoted(each)}), max({_quoted(each)})" for each in asked)
        sql = f'select {sums} from "{table}" where {scope.where}'  # noqa: S608
        values = [int(each or 0) for each in connection.execute(sql, list(scope.params)).fetchall()[0]]
        known |= dict(zip(asked, zip(values[::2], values[1::2], strict=True), strict=True))
    return known


# None where a field does not fit, or none is shared.
def _typed(
    fields: dict[str, str], own: dict[str, str], ranges: dict[str, tuple[int, int]], message: Descriptor
) -> list[_Column] | None:
    columns = []
    for field in message.fields:
        if field.name not in fields:
            continue
        column, sql = fields[field.name], _quoted(fields[field.name])
        type_, limits, key = own[column], _PROTO_RANGES.get(field.type), varint(_key(field))
        if limits is not None and not field.is_repeated and column in ranges and _within(ranges[column], limits):
            if field.name in _DEVICES and field.type == FieldDescriptor.TYPE_UINT64:
                if not _within(ranges[column], _RANGES["UINTEGER"]):
                    return None
                sql = _device(sql)
            columns.append(_Column(_number(sql, ranges[column]), loops.NUMBER, False, key))
        elif limits is not None and field.is_repeated and _within(_RANGES.get(type_[:-2], (-1, 1 << 64)), limits):
            columns.append(_Column(sql, loops.NUMBERS, False, key))
        elif _PROTO_SLICES.get(field.type) == type_ and not field.is_repeated:
            columns.append(_Column(sql, loops.SLICE, False, key))
        else:
            return None
    return columns if columns or not fields else None


def _generic(column: str, type_: str, limits: tuple[int, int] | None) -> _Column:
    sql, name = _quoted(column), _NAME_KEY + _text(_field_name(column))
    keys = {True: varint(_key(_VALUE["int_value"])), False: varint(_key(_VALUE["uint_value"]))}
    if limits is not None and (_within(limits, _RANGES["BIGINT"]) or _within(limits, _RANGES["UBIGINT"])):
        signed = type_ in _SIGNED or limits[0] < 0
        return _Column(_number(sql, limits), loops.NUMBER, True, name + keys[signed])
    if type_.endswith("[]") and type_[:-2] in _RANGES:
        return _Column(sql, loops.NUMBERS, True, name + keys[type_[:-2] in _SIGNED])
    text = f"lower(hex({sql}))" if type_ == "BLOB" else f"cast({sql} as VARCHAR)"
    return _Column(text, loops.SLICE, True, name + varint(_key(_VALUE["str_value"])))


def _plan(columns: Sequence[_Column], key: int, head: bytes) -> tuple[Any, ...]:
    prefixes = b"".join(each.prefix for each in columns)
    return (
        np.array([each.sort for each in columns], np.int64),
        np.array([each.wrapped for each in columns], np.int64),
        np.cumsum([0, *(len(each.prefix) for each in columns)], dtype=np.int64),
        np.frombuffer(prefixes + head, np.uint8),
        np.array([key, len(prefixes), len(prefixes) + len(head)], np.int64),
    )


def _encode(batch: pa.RecordBatch, kind: Kind, shift: Any) -> Encoded:
    rows, count = batch.num_rows, len(kind.columns)
    ring, page, position, ts_ns, pids, flags = (_ints(batch.column(i)) for i in range(6))
    values, lengths = np.zeros((count, rows), np.int64), np.zeros((count, rows), np.int64)
    present = np.ones((count, rows), np.uint8)
    octets, numbers = [np.zeros(0, np.uint8)], [np.zeros(0, np.int64)]
    octets_bytes = numbers_count = size_max = 0
    for i, each in enumerate(kind.columns):
        array = batch.column(6 + i)
        if array.null_count:
            present[i] = array.is_valid().to_numpy(zero_copy_only=False)
        around = len(each.prefix) + 2 * _VARINT_BYTES_MAX + 1
        if each.sort == loops.NUMBER:
            values[i] = _ints(array)
            size_max += rows * around
        elif each.sort == loops.SLICE:
            offsets, text = contents(array.cast(pa.binary()))
            values[i], lengths[i] = offsets[:-1] + octets_bytes, np.diff(offsets)
            octets.append(text)
            octets_bytes += len(text)
            size_max += rows * around + len(text)
        else:
            offsets = array.offsets.to_numpy().astype(np.int64)
            elements = _ints(array.values)[offsets[0] : offsets[-1]]
            values[i], lengths[i] = offsets[:-1] - offsets[0] + numbers_count, np.diff(offsets)
            numbers.append(elements)
            numbers_count += len(elements)
            size_max += len(elements) * around
    columns = values, lengths, present, np.concatenate(octets), np.concatenate(numbers)
    head = kind.plan[4]
    out = np.empty(size_max + rows * int(7 * _VARINT_BYTES_MAX + head[2] - head[1]), np.uint8)
    starts = np.empty(rows, np.int64)
    total = loops.encode(shift(ts_ns), pids & 0xFFFFFFFF, flags, kind.plan, columns, out, starts)
    return Encoded(out[:total].copy(), starts, np.diff(starts, append=total), ring, page, position, ts_ns)


# As 64 bits, whatever their sign; what is null is 0.
def _ints(array: pa.Array) -> Ints:
    if pa.types.is_dictionary(array.type):
        array = array.indices
    if array.null_count:
        array = array.fill_null(0)
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values.view(np.int64) if values.dtype == np.uint64 else values.astype(np.int64)


def _number(sql: str, limits: tuple[int, int]) -> str:
    return f"cast({sql} as {'BIGINT' if _within(limits, _RANGES['BIGINT']) else 'UBIGINT'})"


# A dev_t of the kernel has 12 bits of major and 20 of minor number.
def _device(sql: str) -> str:
    major, minor = f"({sql}::bigint >> 20)", f"({sql}::bigint & {(1 << 20) - 1})"
    return f"(({major} << 8) | (({minor} & {0xFFF00}) << 12) | ({minor} & 255))"


# The field of the kernel that a column holds.
def _field_name(column: str) -> str:
    base = column.removeprefix("event_")
    return base if base in TAKEN else column


# What a value is called, beside the value.
def _is_name(column: str, own: dict[str, str]) -> bool:
    base, found, rest = column.rpartition("_name")
    return bool(found) and (not rest or rest[1:].isdecimal()) and base in own and own[column] == "VARCHAR"


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


# Varints have the wire type 0, what has a length the type 2.
def _key(field: FieldDescriptor) -> int:
    return int(field.number) << 3 | (0 if field.type in _PROTO_RANGES else 2)


def _text(name: str) -> bytes:
    return varint(len(name.encode())) + name.encode()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
