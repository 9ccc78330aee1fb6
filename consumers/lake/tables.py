"""Arrow schemas and Parquet layout of the tables that every lake has; decoders add their own `TableSpec`."""

from typing import Final, NamedTuple

import pyarrow as pa


class TableSpec(NamedTuple):
    """One table: schema, the order of rows in a file, and the Parquet encodings by column.

    `dictionary_columns` have few values, `delta_columns` count up (DELTA_BINARY_PACKED), of the numbers in
    `split_columns` the bytes of one rank lie together (BYTE_STREAM_SPLIT): half the cost of a dictionary. A `lasting`
    table has what is told once for long, so its rows stay where `retire` lets hours go.
    """

    name: str
    schema: pa.Schema
    sort_keys: tuple[str, ...]
    dictionary_columns: tuple[str, ...]
    delta_columns: tuple[str, ...]
    split_columns: tuple[str, ...] = ()
    lasting: bool = False


WORD: Final = pa.dictionary(pa.int32(), pa.string())
STREAM_COLUMNS: Final = ("machine", "boot_id", "layer", "surface", "instance", "clock")


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns.items()])


_WHERE: Final = {"topic": pa.string(), "partition": pa.int32(), "offset": pa.int64()}
_IDENTITY: Final = {name: pa.string() for name in STREAM_COLUMNS}
_LOSSES: Final = _schema(
    machine=pa.string(),
    boot_id=pa.string(),
    layer=pa.string(),
    surface=pa.string(),
    instance=pa.string(),
    kind=pa.string(),
    first_position=pa.int64(),
    count=pa.int64(),
    reason=pa.string(),
    found_by=pa.string(),
    unit=pa.string(),
    clock=pa.string(),
    arrival_ns=pa.int64(),
    **_WHERE,
)
_COVERAGE: Final = _schema(
    **_IDENTITY,
    run=pa.string(),
    number=pa.int64(),
    since_realtime_ns=pa.int64(),
    until_realtime_ns=pa.int64(),
    first_position=pa.int64(),
    next_position=pa.int64(),
    realtime_ns=pa.int64(),
    monotonic_ns=pa.int64(),
    boottime_ns=pa.int64(),
    bracket_ns=pa.int64(),
    counters=pa.map_(pa.string(), pa.int64()),
    arrival_ns=pa.int64(),
    **_WHERE,
)
_DEAD_LETTERS: Final = _schema(
    **_WHERE,
    position=pa.int64(),
    **_IDENTITY,
    reason=pa.string(),
    detail=pa.string(),
    size_bytes=pa.int64(),
    head=pa.binary(),
    arrival_ns=pa.int64(),
)
_ARTIFACTS: Final = _schema(
    **_IDENTITY,
    position=pa.int64(),
    kind=pa.string(),
    sha256=pa.binary(),
    body=pa.binary(),
    arrival_ns=pa.int64(),
    **_WHERE,
)
_INCIDENTS: Final = _schema(
    incident_id=pa.string(),
    version=pa.int64(),
    machine=pa.string(),
    boot_id=pa.string(),
    layer=pa.string(),
    vm=pa.string(),
    host=pa.string(),
    kind=pa.string(),
    first_kind=pa.string(),
    state=pa.string(),
    ended_by=pa.string(),
    opened_ns=pa.int64(),
    changed_ns=pa.int64(),
    ended_ns=pa.int64(),
    since_ns=pa.int64(),
    until_ns=pa.int64(),
    duration_low_s=pa.float64(),
    duration_high_s=pa.float64(),
    duration_from=pa.string(),
    cpus=pa.list_(pa.int32()),
    task=pa.string(),
    pid=pa.int64(),
    victims=pa.list_(pa.string()),
    reports=pa.int64(),
    owner=pa.string(),
    shared=pa.string(),
    confidence=pa.string(),
    row=pa.string(),
    rules=pa.int64(),
    sentence=pa.string(),
    panicked=pa.bool_(),
    corrupted=pa.bool_(),
    structured=pa.bool_(),
    first_place=pa.int64(),
    last_place=pa.int64(),
    incident_json=pa.string(),
    verdict_json=pa.string(),
    arrival_ns=pa.int64(),
    **_WHERE,
)
_COVERAGE_DELTA: Final = (
    "number",
    "since_realtime_ns",
    "until_realtime_ns",
    "first_position",
    "next_position",
    "realtime_ns",
    "monotonic_ns",
    "boottime_ns",
    "arrival_ns",
    "offset",
)

TABLES: Final = {
    spec.name: spec
    for spec in (
        TableSpec(
            "losses",
            _LOSSES,
            (*STREAM_COLUMNS, "first_position"),
            (*STREAM_COLUMNS, "kind", "reason", "found_by", "unit", "topic"),
            ("first_position", "arrival_ns", "offset"),
        ),
        TableSpec(
            "coverage",
            _COVERAGE,
            (*STREAM_COLUMNS, "since_realtime_ns"),
            (*STREAM_COLUMNS, "run", "topic"),
            _COVERAGE_DELTA,
        ),
        TableSpec(
            "dead_letters",
            _DEAD_LETTERS,
            ("topic", "partition", "offset"),
            (*STREAM_COLUMNS, "topic", "reason"),
            ("offset", "arrival_ns"),
        ),
        TableSpec(
            "artifacts",
            _ARTIFACTS,
            (*STREAM_COLUMNS, "position"),
            (*STREAM_COLUMNS, "kind", "topic"),
            ("position", "arrival_ns", "offset"),
            lasting=True,
        ),
        TableSpec(
            "incidents",
            _INCIDENTS,
            ("machine", "boot_id", "incident_id", "version"),
            (
                "machine",
                "boot_id",
                "layer",
                "vm",
                "host",
                "kind",
                "first_kind",
                "state",
                "owner",
                "confidence",
                "topic",
            ),
            ("opened_ns", "changed_ns", "arrival_ns", "offset"),
            lasting=True,
        ),
    )
}
