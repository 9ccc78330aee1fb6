"""What all state surfaces have in common: their records are rows, each of the table that its kind names.

A surface's decoder is made of this and of its tables: `_STATE = State(table("NAME", ...), ...)`, and its functions.
A field that the table has no column for, or of another type than the column's, is not lost: it is in `other`, as JSON.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from consumers.decode.base import Admit, BadRecord, Decoded, FrameIn, bad_frame, every_kind
from consumers.decode.row_text import shown
from consumers.lake.tables import WORD, TableSpec
from schemas import state
from schemas.errors import BadInputError
from schemas.frame import Frame
from schemas.stream import Stream

POSITION: Final = "position"
OTHER: Final = "other"
_FRONT: Final = (
    *(pa.field(name, WORD) for name in Stream._fields),
    pa.field(POSITION, pa.int64()),
    pa.field("ts_ns", pa.int64()),
)
_BACK: Final = (pa.field(OTHER, pa.string()), pa.field("arrival_ns", pa.int64()))
_TAKEN: Final = frozenset(each.name for each in (*_FRONT, *_BACK))


def table(name: str, /, **columns: pa.DataType) -> TableSpec:
    """Return the table `name`: the stream, `position` and `ts_ns`, then `columns`, `other` and `arrival_ns`."""
    assert not _TAKEN & set(columns)
    own = [pa.field(column, kind) for column, kind in columns.items()]
    return TableSpec(
        name,
        pa.schema([*_FRONT, *own, *_BACK]),
        sort_keys=(*Stream._fields, POSITION),
        dictionary_columns=(*Stream._fields, *(each.name for each in own if each.type == WORD)),
        delta_columns=(POSITION, "ts_ns", "arrival_ns"),
    )


def lasting(name: str, /, **columns: pa.DataType) -> TableSpec:
    """Return a `table` that keeps its rows where `retire` lets hours go."""
    return table(name, **columns)._replace(lasting=True)


class State:
    """The functions of a decoder (`base.Decoder`) for one state surface with these tables."""

    def __init__(self, *tables: TableSpec) -> None:
        self.tables = tables
        self._specs = {each.name: each for each in tables}

    def owns(self, table: str) -> bool:
        """Return whether `table` is one of them."""
        return table in self._specs

    def spec(self, table: str, schema: pa.Schema) -> TableSpec:  # noqa: ARG002 - every decoder has this signature
        """Return the layout of `table`."""
        return self._specs[table]

    def columns_sql(self, table: str, names: Sequence[str]) -> str:  # noqa: ARG002 - every decoder has this signature
        """Return `*`: the tables are queried as they are stored."""
        return "*"

    def time_order(self, table: str) -> str:  # noqa: ARG002 - every decoder has this signature
        """Return nothing: within a stream positions are in the order of time."""
        return ""

    def check(self, frame: Frame) -> None:
        """Verify that the body holds exactly one record for each position.

        Raises:
            BadInputError: `reason` is `body`.
        """
        _records(frame)

    def head(self, frame: Frame, end: int) -> Frame:
        """Return the part of `frame` before position `end`.

        Raises:
            BadInputError: as `check`.
        """
        return _cut(frame, frame.first, min(end, frame.next))

    def trim(self, frame: Frame, start: int) -> Frame:
        """Return the part of `frame` from position `start` on.

        Raises:
            BadInputError: as `check`.
        """
        return frame if start <= frame.first else _cut(frame, start, frame.next)

    def decode_many(
        self,
        frames: list[FrameIn],
        descriptors: Mapping[bytes, bytes],  # noqa: ARG002 - every decoder has this signature
        admit: Admit = every_kind,  # noqa: ARG002
    ) -> Decoded:
        """Return the tables of `frames`; a record of a kind that has no table is a bad one."""
        bad: list[BadRecord] = []
        rows: dict[str, list[dict[str, Any]]] = {}
        counts: Counter[Stream] = Counter()
        for item in frames:
            try:
                records = _records(item.frame)
            except BadInputError as e:
                bad.append(bad_frame(item, e.reason, e.detail))
                continue
            for position, record in enumerate(records, item.frame.first):
                if record.kind not in self._specs:
                    where = (position, "kind", f"no table {record.kind!r:.60}", state.pack([record]))
                    bad.append(BadRecord(item.frame.stream, *where, item.offset, item.arrival_ns))
                    continue
                rows.setdefault(record.kind, []).append(self._row(item, position, record))
                counts[item.frame.stream] += 1
        tables = {kind: pa.Table.from_pylist(found, schema=self._specs[kind].schema) for kind, found in rows.items()}
        return Decoded(tables, bad, dict(counts))

    def text_lines(self, decoded: Decoded) -> Iterator[str]:
        """Yield each row of all tables as one line, in the order of their times."""
        rows = [(row["ts_ns"], name, row) for name, found in decoded.tables.items() for row in found.to_pylist()]
        for ts_ns, name, row in sorted(rows, key=lambda each: each[:2]):
            yield f"{ts_ns / 1e9:.6f} {name}: {shown(row, _TAKEN)}"

    def _row(self, item: FrameIn, position: int, record: state.Record) -> dict[str, Any]:
        schema = self._specs[record.kind].schema
        row: dict[str, Any] = {**item.frame.stream._asdict(), POSITION: position, "ts_ns": record.ts_ns}
        other = {}
        for name, value in record.fields.items():
            at = schema.get_field_index(name)
            if name in _TAKEN or at < 0 or not _fits(value, schema.field(at).type):
                other[name] = value
            else:
                row[name] = list(value.items()) if isinstance(value, dict) else value
        return {**row, OTHER: _json(other) if other else None, "arrival_ns": item.arrival_ns}


def _fits(value: Any, kind: pa.DataType) -> bool:
    if value is None:
        return True
    try:
        pa.scalar(list(value.items()) if isinstance(value, dict) else value, kind.value_type if kind == WORD else kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    return True


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, default=lambda value: value.hex(), ensure_ascii=False)


def _records(frame: Frame) -> list[state.Record]:
    records = state.unpack(frame.body)
    if not len(records) == frame.count == frame.next - frame.first:
        what = f"{len(records)} records in the body, {frame.count} stated, for [{frame.first}, {frame.next})"
        raise BadInputError("body", what)
    return records


def _cut(frame: Frame, start: int, end: int) -> Frame:
    kept = _records(frame)[start - frame.first : end - frame.first]
    return dataclasses.replace(frame, first=start, next=end, count=len(kept), body=state.pack(kept))
