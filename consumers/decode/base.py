"""What every decoder takes and gives.

A decoder is a module `consumers/decode/NAME.py` for the encoding NAME, with
the attributes and functions of `Decoder`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa

from consumers.lake.tables import TableSpec
from consumers.transport.base import Partition
from schemas.frame import Frame
from schemas.stream import Stream

#: Whether rows of some machines may be rows of a table with columns of this name (`unify.columns_id`).
Admit = Callable[[Collection[str], str, str], bool]


def every_kind(machines: Collection[str], table: str, columns: str) -> bool:  # noqa: ARG001 - it is an `Admit`
    """Return that they may."""
    return True


class FrameIn(NamedTuple):
    """A frame and where the log holds it; `arrival_ns` is the log's append time (CLOCK_REALTIME, ns)."""

    frame: Frame
    arrival_ns: int
    partition: Partition
    offset: int


class BadRecord(NamedTuple):
    """Unreadable: `positions` of them from `position` on, with the bytes `data`; the frame's other records are rows.

    `offset` and `arrival_ns` are those of the message that brought them.
    """

    stream: Stream
    position: int
    reason: str
    detail: str
    data: bytes
    offset: int
    arrival_ns: int
    positions: int = 1


def bad_frame(item: FrameIn, reason: str, detail: str) -> BadRecord:
    """Return that all positions of `item` are unreadable."""
    frame = item.frame
    where = (item.offset, item.arrival_ns)
    return BadRecord(frame.stream, frame.first, reason, detail, frame.body, *where, positions=frame.next - frame.first)


class Decoded(NamedTuple):
    """Complete tables by name, rows in the order of the frames and their records, and what could not be read.

    `rows` says how many rows each stream got.
    """

    tables: dict[str, pa.Table]
    bad: list[BadRecord]
    rows: dict[Stream, int]


class Decoder(Protocol):
    """A decoder module. All functions are pure.

    `TABLES` are those of its tables that always exist; `POSITION` is the column that holds the position in the stream.
    `ONE_ROW_EACH` says that every position is exactly one row.
    """

    TABLES: tuple[TableSpec, ...]
    POSITION: str
    ONE_ROW_EACH: bool

    def owns(self, table: str) -> bool:
        """Return whether `table` is one of those that this decoder fills."""
        ...

    def spec(self, table: str, schema: pa.Schema) -> TableSpec:
        """Return how its `table` with this `schema` is laid out."""
        ...

    def columns_sql(self, table: str, names: Sequence[str]) -> str:
        """Return what its `table` with the columns `names` is queried as: a select list, `*` for the columns alone."""
        ...

    def time_order(self, table: str) -> str:
        """Return what its `table` is ordered by, in SQL, to be in the order of time; empty where its own order is that.

        Times of one clock compare within a boot.
        """
        ...

    def check(self, frame: Frame) -> None:
        """Verify that the body has the form that the encoding demands, without looking into records.

        Raises:
            BadInputError: `reason` is `body`.
        """
        ...

    def head(self, frame: Frame, end: int) -> Frame:
        """Return the part of `frame` before position `end`.

        Raises:
            BadInputError: as `check`.
        """
        ...

    def trim(self, frame: Frame, start: int) -> Frame:
        """Return the part of `frame` from position `start` on.

        Raises:
            BadInputError: as `check`.
        """
        ...

    def decode_many(
        self, frames: list[FrameIn], descriptors: Mapping[bytes, bytes], admit: Admit = every_kind
    ) -> Decoded:
        """Return the rows of `frames`, of any number of streams. A frame that `check` refuses is one bad record.

        `descriptors` has the bodies of descriptor frames by the hash that frames name them with. What `admit` refuses
        of tables that the observed machine names is kept raw.
        """
        ...

    def text_lines(self, decoded: Decoded) -> Iterator[str]:
        """Yield the rows as lines for people, without a newline and without anything that moves a cursor."""
        ...
