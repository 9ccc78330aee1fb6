"""Is what came again under known positions the same as what is stored? Read back from the lake: rare, so not fast."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from consumers.decode.base import Admit, Decoder, FrameIn, every_kind
from consumers.lake.damage import readable
from consumers.lake.snapshot import Snapshot, snapshot
from consumers.lake.storage import Storage
from consumers.lake.tables import TABLES as LAKE_TABLES
from consumers.lake.unify import concatenated, folded
from schemas.errors import StorageError
from schemas.frame import Frame

#: Columns that say when and how a record came, not what it was.
_ARRIVAL_COLUMNS: Final = frozenset(("captured_ns", "arrival_ns"))
#: And, in tables of the lake's own, where in the log; a kind of event may have such fields.
_PLACE_COLUMNS: Final = frozenset(("topic", "partition", "offset"))


Tables = dict[str, pa.Table]


class Suspect(NamedTuple):
    """A message whose positions are known already: `item` holds only those, `decoder` reads them."""

    item: FrameIn
    decoder: Decoder


def differing(
    suspects: Sequence[Suspect],
    buffered: Sequence[FrameIn],
    storage: Storage,
    descriptors: Mapping[bytes, bytes],
    admit: Admit = every_kind,
) -> list[Suspect]:
    """Return those of `suspects` whose rows differ from the rows stored at the same positions.

    Stored is what `buffered` holds and what the lake has; positions that are not stored do not count.

    Raises:
        StorageError: the lake cannot be read.
    """
    if not suspects:
        return []
    files = _Files(storage, readable(storage, snapshot(storage)))
    found = []
    for suspect in suspects:
        frame, decode = suspect.item.frame, suspect.decoder.decode_many
        near = [item for item in buffered if _overlaps(item.frame, frame)]
        arrived, waiting = (decode(items, descriptors, admit).tables for items in ([suspect.item], near))
        if not _same(suspect, arrived, waiting, files):
            found.append(suspect)
    return found


class _Span(NamedTuple):
    # What a row group says of itself; None where it does not.
    machines: tuple[str, str] | None
    positions: tuple[int, int] | None

    def may_have(self, frame: Frame) -> bool:
        if self.machines is not None and not self.machines[0] <= frame.stream.machine <= self.machines[1]:
            return False
        return self.positions is None or (self.positions[0] < frame.next and self.positions[1] >= frame.first)


class _Files:
    """The files of the lake at one moment; each one's footer is read once, however often it is asked for."""

    def __init__(self, storage: Storage, taken: Snapshot) -> None:
        self._storage = storage
        self._taken = taken
        self._spans: dict[str, list[_Span]] = {}

    @property
    def tables(self) -> Iterable[str]:
        """The tables that have files."""
        return self._taken.files

    def newest_first(self, table: str, position: str, frame: Frame) -> Iterator[str]:
        """Yield the paths of the files of `table` that may have rows at the positions of `frame`."""
        for entry in reversed(self._taken.files.get(table, [])):
            path = self._storage.local_path(entry.key)
            if entry.key not in self._spans:
                self._spans[entry.key] = _spans(path, position)
            if any(each.may_have(frame) for each in self._spans[entry.key]):
                yield path


def _spans(path: str, position: str) -> list[_Span]:
    with _refusals():
        meta = pq.read_metadata(path)
    columns = {meta.schema.column(i).path: i for i in range(meta.num_columns)}
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    return [_Span(_range(group, columns.get("machine")), _range(group, columns.get(position))) for group in groups]


def _range(group: Any, column: int | None) -> Any:
    stats = None if column is None else group.column(column).statistics
    return (stats.min, stats.max) if stats is not None and stats.has_min_max else None


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as e:
        raise StorageError(f"cannot compare with what is stored: {e}") from e


def _same(suspect: Suspect, arrived: Tables, waiting: Tables, files: _Files) -> bool:
    frame, decoder = suspect.item.frame, suspect.decoder
    position = decoder.POSITION
    stored, mine = {}, {}
    for name in {*arrived, *waiting, *filter(decoder.owns, files.tables)}:
        parts = [_within(waiting[name], position, frame)] if name in waiting else []
        missing = frame.next - frame.first - sum(part.num_rows for part in parts) if decoder.ONE_ROW_EACH else None
        parts += _lake_rows(name, position, frame, missing, files)
        stored[name] = _plain_rows(parts, name)
        mine[name] = _plain_rows([arrived[name]] if name in arrived else [], name)
    # A position may have rows in several tables, here in these and there in those.
    known = [chunk for rows in stored.values() if rows is not None for chunk in rows[position].chunks]
    if not known:
        return True
    positions = pa.concat_arrays(known)
    return all(_equal(_at(mine[name], position, positions), stored[name], name, decoder) for name in stored)


def _at(rows: pa.Table | None, position: str, positions: pa.Array) -> pa.Table | None:
    return None if rows is None else rows.filter(pc.is_in(rows[position], positions))


def _overlaps(one: Frame, other: Frame) -> bool:
    same = one.stream == other.stream and one.encoding == other.encoding
    return same and one.first < other.next and other.first < one.next


def _within(table: pa.Table, position: str, frame: Frame) -> pa.Table:
    column = table[position]
    return table.filter(pc.and_(pc.greater_equal(column, frame.first), pc.less(column, frame.next)))


# Rows of plain columns, whatever order and dictionaries a file came with; None without any rows.
def _plain_rows(parts: list[pa.Table], name: str) -> pa.Table | None:
    left_out = _ARRIVAL_COLUMNS | (_PLACE_COLUMNS if name in LAKE_TABLES else frozenset())
    plain = [_plain(part, left_out) for part in parts if part.num_rows]
    return concatenated(plain) if plain else None


# A file may have columns and wider types that the rows of other kernels in it brought.
def _equal(mine: pa.Table | None, stored: pa.Table | None, name: str, decoder: Decoder) -> bool:
    if mine is None or stored is None:
        return not (mine and mine.num_rows) and stored is None
    both = folded(concatenated([mine, stored]))
    keys = [(key, "ascending") for key in decoder.spec(name, both.schema).sort_keys]
    one, other = both.slice(0, mine.num_rows), both.slice(mine.num_rows)
    return bool(one.sort_by(keys).combine_chunks().equals(other.sort_by(keys).combine_chunks()))


def _plain(table: pa.Table, left_out: frozenset[str]) -> pa.Table:
    kept = sorted((item for item in table.schema if item.name not in left_out), key=lambda item: item.name)
    types = [item.type.value_type if pa.types.is_dictionary(item.type) else item.type for item in kept]
    schema = pa.schema([pa.field(item.name, kind) for item, kind in zip(kept, types, strict=True)])
    return table.select([item.name for item in kept]).cast(schema)


# The newest files first, until `missing` rows are found where their number is known: what is sent again was stored
# lately, and once.
def _lake_rows(name: str, position: str, frame: Frame, missing: int | None, files: _Files) -> list[pa.Table]:
    wanted = [(name, "=", value) for name, value in frame.stream._asdict().items()]
    wanted += [(position, ">=", frame.first), (position, "<", frame.next)]
    parts: list[pa.Table] = []
    for path in files.newest_first(name, position, frame):
        if missing is not None and sum(part.num_rows for part in parts) >= missing:
            break
        with _refusals():
            part = pq.read_table(path, filters=wanted, partitioning=None)
        if part.num_rows:
            parts.append(part)
    return parts
