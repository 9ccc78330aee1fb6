"""Is what came again under known positions the same as what is stored? Read back from the lake: rare, so not fast."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from consumers.decode.base import Decoder, FrameIn
from consumers.lake.snapshot import Snapshot, snapshot
from consumers.lake.storage import Storage
from consumers.lake.tables import TableSpec
from schemas.errors import StorageError
from schemas.frame import Frame

#: Columns that say when and how a record came, not what it was.
_ARRIVAL_COLUMNS: Final = ("captured_ns", "arrival_ns")


class Suspect(NamedTuple):
    """A message whose positions are known already: `item` holds only those, `decoder` reads them."""

    item: FrameIn
    decoder: Decoder


def differing(suspects: Sequence[Suspect], buffered: Sequence[FrameIn], storage: Storage) -> list[Suspect]:
    """Return those of `suspects` whose rows differ from the rows stored at the same positions.

    Stored is what `buffered` holds and what the lake has; positions that are not stored do not count.

    Raises:
        StorageError: the lake cannot be read.
    """
    if not suspects:
        return []
    taken = snapshot(storage)
    return [suspect for suspect in suspects if not _same(suspect, buffered, storage, taken)]


def _same(suspect: Suspect, buffered: Sequence[FrameIn], storage: Storage, taken: Snapshot) -> bool:
    frame, decoder = suspect.item.frame, suspect.decoder
    near = [item for item in buffered if _overlaps(item.frame, frame)]
    arrived, waiting = decoder.decode_many([suspect.item]).tables, decoder.decode_many(near).tables
    for spec in decoder.TABLES:
        position = decoder.POSITION
        parts = [_within(waiting[spec.name], position, frame)] if spec.name in waiting else []
        missing = frame.next - frame.first - sum(part.num_rows for part in parts)
        parts += _lake_rows(spec, position, frame, missing, storage, taken)
        stored = pa.concat_tables([_content(part, spec) for part in parts]).sort_by(position) if parts else None
        if stored is None or stored.num_rows == 0:
            continue
        mine = _content(arrived.get(spec.name, spec.schema.empty_table()), spec)
        if not mine.filter(pc.is_in(mine[position], stored[position])).equals(stored):
            return False
    return True


def _overlaps(one: Frame, other: Frame) -> bool:
    same = one.stream == other.stream and one.encoding == other.encoding
    return same and one.first < other.next and other.first < one.next


def _within(table: pa.Table, position: str, frame: Frame) -> pa.Table:
    column = table[position]
    return table.filter(pc.and_(pc.greater_equal(column, frame.first), pc.less(column, frame.next)))


# Plain columns in the order of the schema, whatever dictionaries a file came with.
def _content(table: pa.Table, spec: TableSpec) -> pa.Table:
    kept = [item for item in spec.schema if item.name not in _ARRIVAL_COLUMNS]
    plain = [
        pa.field(item.name, item.type.value_type if pa.types.is_dictionary(item.type) else item.type) for item in kept
    ]
    return table.select([item.name for item in kept]).cast(pa.schema(plain)).combine_chunks()


# The newest files first, until every position is found: what is sent again was stored lately, and once.
def _lake_rows(
    spec: TableSpec, position: str, frame: Frame, missing: int, storage: Storage, taken: Snapshot
) -> list[pa.Table]:
    wanted = [(name, "=", value) for name, value in frame.stream._asdict().items()]
    wanted += [(position, ">=", frame.first), (position, "<", frame.next)]
    parts: list[pa.Table] = []
    for entry in reversed(taken.files.get(spec.name, [])):
        if missing <= 0:
            break
        try:
            path = storage.local_path(entry.key)
            part = pq.read_table(path, filters=wanted, schema=spec.schema, partitioning=None)
        except (OSError, pa.ArrowException) as e:
            raise StorageError(f"cannot compare with what is stored: {e}") from e
        if part.num_rows:
            parts.append(part)
            missing -= part.num_rows
    return parts
