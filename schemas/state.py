"""The body of every state surface, version 1: what was seen of a machine at some moments, as small maps.

The body is a msgpack array of records, each an array of three: the kind (text, the table that it is a row of), `ts_ns`
(int, on the stream's clock) and a map from text to values. A value is nil, a boolean, a 64-bit integer, a double, text,
bin, an array of such, or a map from text to such. A few records a second come so: it is no hot path.
"""

from typing import Any, Final, NamedTuple

import msgpack

from schemas import limits
from schemas.errors import BadInputError
from schemas.msgpack_reader import Reader

#: Every state surface has an encoding of its own name, with a body of this form.
VERSION: Final = 1


class Record(NamedTuple):
    """One sample: `kind` names its table, `ts_ns` is when it was taken, `fields` are its columns by name."""

    kind: str
    ts_ns: int
    fields: dict[str, Any]


def pack(records: list[Record]) -> bytes:
    """Return the body that holds `records`."""
    return join([pack_record(record) for record in records])


def pack_record(record: Record) -> bytes:
    """Return the bytes of one record, for `join`."""
    packed: bytes = msgpack.packb([record.kind, record.ts_ns, record.fields])
    return packed


def join(packed: list[bytes]) -> bytes:
    """Return the body that holds the records of which these are the bytes."""
    header: bytes = msgpack.Packer().pack_array_header(len(packed))
    return b"".join([header, *packed])


def unpack(body: bytes) -> list[Record]:
    """Return the records in `body`.

    Raises:
        BadInputError: `reason` is `body`: no such array, a field is there twice, or a limit is broken.
    """
    reader = Reader(body, "body")
    count = reader.array_header(limits.FRAME_RECORDS_MAX)
    records = [_read_record(reader) for _ in range(count)]
    reader.end()
    return records


def _read_record(reader: Reader) -> Record:
    parts = reader.array_header(len(Record._fields))
    if parts != len(Record._fields):
        raise BadInputError("body", f"a record has {len(Record._fields)} elements, not {parts}")
    kind, ts_ns = reader.text(), reader.integer()
    fields = {name: reader.value(limits.STATE_ELEMENTS_MAX) for name in reader.keys(limits.STATE_FIELDS_MAX)}
    return Record(kind, ts_ns, fields)
