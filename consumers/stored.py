"""Is what arrived again under known positions the same as what is stored? Read back from the lake, so rare and slow is fine."""

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from consumers.decode.base import FrameIn
from consumers.lake.snapshot import snapshot
from consumers.lake.storage import Storage
from schemas.frame import Frame

#: Columns that say when and how a record came, not what it was.
_ARRIVAL_COLUMNS: Final = ("captured_ns", "arrival_ns")


def same_as_stored(frame: Frame, decoder: Any, buffered: list[FrameIn], storage: Storage) -> bool:
    """Return whether the stored rows at `frame`'s positions equal its own; positions that are not stored do not count."""
    mine = _content(decoder.decode_many([FrameIn(frame, 0, None, 0)]).tables[decoder.SPEC.name])
    theirs = _buffered_rows(frame, decoder, buffered)
    theirs += _lake_rows(frame, decoder, storage)
    stored = pa.concat_tables([_content(table) for table in theirs]).sort_by(decoder.POSITION) if theirs else None
    if stored is None or stored.num_rows == 0:
        return True
    common = mine.filter(pc.is_in(mine[decoder.POSITION], stored[decoder.POSITION]))
    return bool(common.equals(stored))


def _content(table: pa.Table) -> pa.Table:
    table = table.drop_columns([name for name in _ARRIVAL_COLUMNS if name in table.column_names])
    plain = [
        pa.field(item.name, item.type.value_type if pa.types.is_dictionary(item.type) else item.type)
        for item in table.schema
    ]
    return table.cast(pa.schema(plain)).combine_chunks()


def _buffered_rows(frame: Frame, decoder: Any, buffered: list[FrameIn]) -> list[pa.Table]:
    near = [
        item
        for item in buffered
        if item.frame.stream == frame.stream and item.frame.first < frame.next and frame.first < item.frame.next
    ]
    if not near:
        return []
    table = decoder.decode_many(near).tables[decoder.SPEC.name]
    position = table[decoder.POSITION]
    return [table.filter(pc.and_(pc.greater_equal(position, frame.first), pc.less(position, frame.next)))]


def _lake_rows(frame: Frame, decoder: Any, storage: Storage) -> list[pa.Table]:
    files = snapshot(storage).files.get(decoder.SPEC.name, [])
    if not files:
        return []
    wanted = [(name, "=", value) for name, value in frame.stream._asdict().items()]
    wanted += [(decoder.POSITION, ">=", frame.first), (decoder.POSITION, "<", frame.next)]
    paths = [storage.local_path(entry.key) for entry in files]
    return [pq.read_table(path, filters=wanted, schema=decoder.SPEC.schema, partitioning=None) for path in paths]
