"""Is what came again under known positions the same as what is stored? Read back from the lake: rare, so not fast."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from consumers.decode.base import Decoder, FrameIn
from consumers.descriptors import Descriptors
from consumers.lake.snapshot import Snapshot, snapshot
from consumers.lake.storage import Storage
from schemas.errors import StorageError
from schemas.frame import Frame

#: Columns that say when and how a record came, not what it was.
_ARRIVAL_COLUMNS: Final = ("captured_ns", "arrival_ns")


Tables = dict[str, pa.Table]


class Suspect(NamedTuple):
    """A message whose positions are known already: `item` holds only those, `decoder` reads them."""

    item: FrameIn
    decoder: Decoder


def differing(
    suspects: Sequence[Suspect], buffered: Sequence[FrameIn], storage: Storage, descriptors: Descriptors
) -> list[Suspect]:
    """Return those of `suspects` whose rows differ from the rows stored at the same positions.

    Stored is what `buffered` holds and what the lake has; positions that are not stored do not count.

    Raises:
        StorageError: the lake cannot be read.
    """
    if not suspects:
        return []
    taken = snapshot(storage)
    found = []
    for suspect in suspects:
        frame, decode = suspect.item.frame, suspect.decoder.decode_many
        near = [item for item in buffered if _overlaps(item.frame, frame)]
        known = descriptors.named_by([suspect.item, *near])
        arrived, waiting = decode([suspect.item], known).tables, decode(near, known).tables
        if not _same(suspect, arrived, waiting, storage, taken):
            found.append(suspect)
    return found


def _same(suspect: Suspect, arrived: Tables, waiting: Tables, storage: Storage, taken: Snapshot) -> bool:
    frame, decoder = suspect.item.frame, suspect.decoder
    for name in {*arrived, *waiting, *filter(decoder.owns, taken.files)}:
        position = decoder.POSITION
        parts = [_within(waiting[name], position, frame)] if name in waiting else []
        parts += _lake_rows(name, position, frame, storage, taken)
        stored = _content(parts, name, decoder)
        if stored is None or stored.num_rows == 0:
            continue
        mine = _content([arrived[name]] if name in arrived else [], name, decoder)
        if mine is None or not mine.filter(pc.is_in(mine[position], stored[position])).equals(stored):
            return False
    return True


def _overlaps(one: Frame, other: Frame) -> bool:
    same = one.stream == other.stream and one.encoding == other.encoding
    return same and one.first < other.next and other.first < one.next


def _within(table: pa.Table, position: str, frame: Frame) -> pa.Table:
    column = table[position]
    return table.filter(pc.and_(pc.greater_equal(column, frame.first), pc.less(column, frame.next)))


# Sorted rows of plain columns, whatever order and dictionaries a file came with; None without any rows.
def _content(parts: list[pa.Table], name: str, decoder: Decoder) -> pa.Table | None:
    plain = [_plain(part) for part in parts if part.num_rows]
    if not plain:
        return None
    table = pa.concat_tables(plain, promote_options="permissive")
    keys = decoder.spec(name, table.schema).sort_keys
    return table.sort_by([(key, "ascending") for key in keys]).combine_chunks()


def _plain(table: pa.Table) -> pa.Table:
    kept = sorted((item for item in table.schema if item.name not in _ARRIVAL_COLUMNS), key=lambda item: item.name)
    types = [item.type.value_type if pa.types.is_dictionary(item.type) else item.type for item in kept]
    schema = pa.schema([pa.field(item.name, kind) for item, kind in zip(kept, types, strict=True)])
    return table.select([item.name for item in kept]).cast(schema)


def _lake_rows(name: str, position: str, frame: Frame, storage: Storage, taken: Snapshot) -> list[pa.Table]:
    wanted = [(name, "=", value) for name, value in frame.stream._asdict().items()]
    wanted += [(position, ">=", frame.first), (position, "<", frame.next)]
    paths = [storage.local_path(entry.key) for entry in taken.files.get(name, [])]
    try:
        return [pq.read_table(path, filters=wanted, partitioning=None) for path in paths]
    except (OSError, pa.ArrowException) as e:
        raise StorageError(f"cannot compare with what is stored: {e}") from e
