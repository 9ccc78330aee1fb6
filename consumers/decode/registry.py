"""Which decoder reads which encoding, by the name of its module."""

from collections.abc import Sequence
from importlib import import_module
from typing import Final, cast

import pyarrow as pa

from consumers.decode.base import Decoder
from consumers.lake.tables import TABLES as LAKE_TABLES
from consumers.lake.tables import TableSpec
from schemas.errors import BadInputError
from schemas.frame import Frame
from schemas.surfaces import DESCRIPTOR_ENCODINGS, HEARTBEAT_ENCODING, HEARTBEAT_VERSION, SURFACES

_VERSIONS: Final = {
    **{row.encoding: row.encoding_version for row in SURFACES.values()},
    **DESCRIPTOR_ENCODINGS,
    HEARTBEAT_ENCODING: HEARTBEAT_VERSION,
}


def decoder_for(encoding: str, version: int) -> Decoder:
    """Return the module that decodes bodies of `encoding`, every version up to today's.

    Raises:
        BadInputError: `reason` is `encoding`: no surface has it, or the version is newer than this reader.
    """
    known = _VERSIONS.get(encoding)
    if known is None:
        raise BadInputError("encoding", f"unknown encoding {encoding!r:.60}")
    if not 1 <= version <= known:
        raise BadInputError("encoding", f"{encoding} version {version}, this reader knows 1 to {known}")
    return cast("Decoder", import_module(f"consumers.decode.{encoding.replace('-', '_')}"))


def decoder_of(frame: Frame) -> Decoder:
    """Return the module that decodes the body of `frame`, whose rows are then those of its stream's surface.

    Raises:
        BadInputError: as `decoder_for`; also where the records are of another surface's encoding.
    """
    surface = SURFACES.get(frame.stream.surface)
    of_records = frame.encoding in {row.encoding for row in SURFACES.values()}
    if of_records and (surface is None or surface.encoding != frame.encoding):
        raise BadInputError("encoding", f"{frame.encoding} in a stream of the surface {frame.stream.surface!r:.60}")
    return decoder_for(frame.encoding, frame.encoding_version)


def record_decoders() -> dict[str, Decoder]:
    """Return the decoder of each surface's records, by the surface's name."""
    return {row.name: decoder_for(row.encoding, row.encoding_version) for row in SURFACES.values()}


def spec_of(table: str, schema: pa.Schema) -> TableSpec:
    """Return the layout of `table`, which has `schema`; KeyError when nobody has such a table."""
    if table in LAKE_TABLES:
        return LAKE_TABLES[table]
    return _owner(table).spec(table, schema)


def columns_sql(table: str, names: Sequence[str]) -> str:
    """Return the select list that `table` with the columns `names` is queried as."""
    return "*" if table in LAKE_TABLES else _owner(table).columns_sql(table, names)


def time_order(table: str) -> str:
    """Return what `table` is ordered by, in SQL, to be in the order of time; empty where its own order is that."""
    return "" if table in LAKE_TABLES else _owner(table).time_order(table)


def _owner(table: str) -> Decoder:
    for encoding, version in _VERSIONS.items():
        decoder = decoder_for(encoding, version)
        if decoder.owns(table):
            return decoder
    raise KeyError(table)


def tables() -> tuple[TableSpec, ...]:
    """Return the tables that every lake has though nothing may be in them, each once."""
    specs: dict[str, TableSpec] = dict(LAKE_TABLES)
    for encoding, version in _VERSIONS.items():
        for spec in decoder_for(encoding, version).TABLES:
            specs.setdefault(spec.name, spec)
    return tuple(specs.values())
