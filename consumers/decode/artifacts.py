"""What all descriptors have in common: each frame is one position, and one row of the table `artifacts`.

A decoder of descriptors is made of this and of the function that reads one.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from consumers.decode.base import Admit, BadRecord, Decoded, FrameIn, bad_frame, every_kind
from consumers.lake.tables import TABLES as LAKE_TABLES
from consumers.lake.tables import TableSpec
from schemas.errors import BadInputError
from schemas.frame import Frame

SPEC: Final = LAKE_TABLES["artifacts"]
TABLES: Final = (SPEC,)
POSITION: Final = "position"
ONE_ROW_EACH: Final = True


def owns(table: str) -> bool:
    """Return whether `table` is `artifacts`."""
    return table == SPEC.name


def spec(table: str, schema: pa.Schema) -> TableSpec:  # noqa: ARG001 - every decoder has this signature
    """Return the layout of `artifacts`."""
    return SPEC


def columns_sql(table: str, names: Sequence[str]) -> str:  # noqa: ARG001 - every decoder has this signature
    """Return `*`: the table is queried as it is stored."""
    return "*"


def time_order(table: str) -> str:  # noqa: ARG001 - every decoder has this signature
    """Return nothing: within a stream positions are in the order of time."""
    return ""


def head(frame: Frame, end: int) -> Frame:  # noqa: ARG001 - every decoder has this signature
    """Return `frame`: it is one position."""
    return frame


def trim(frame: Frame, start: int) -> Frame:  # noqa: ARG001 - every decoder has this signature
    """Return `frame`: it is one position."""
    return frame


def text_lines(decoded: Decoded) -> Iterator[str]:  # noqa: ARG001 - every decoder has this signature
    """Yield nothing: a descriptor is no record."""
    return iter(())


def checked(read: Callable[[bytes], object]) -> Callable[[Frame], None]:
    """Return a decoder's `check`, by the function that reads a body or refuses it."""

    def check(frame: Frame) -> None:
        """Verify that the frame is one descriptor that can be read.

        Raises:
            BadInputError: `reason` is `body`.
        """
        if frame.count != 1 or frame.next - frame.first != 1:
            raise BadInputError("body", f"a descriptor is one position, not [{frame.first}, {frame.next})")
        read(frame.body)

    return check


def decoding(check: Callable[[Frame], None]) -> Callable[..., Decoded]:
    """Return a decoder's `decode_many`, by its `check`."""

    def decode_many(
        frames: list[FrameIn],
        descriptors: Mapping[bytes, bytes],  # noqa: ARG001 - every decoder has this signature
        admit: Admit = every_kind,  # noqa: ARG001
    ) -> Decoded:
        """Return one row of `artifacts` for each descriptor; they are no rows of the surface's tables."""
        rows: list[dict[str, Any]] = []
        bad: list[BadRecord] = []
        for item in frames:
            try:
                check(item.frame)
            except BadInputError as e:
                bad.append(bad_frame(item, e.reason, e.detail))
                continue
            rows.append(_row(item))
        return Decoded({SPEC.name: pa.Table.from_pylist(rows, schema=SPEC.schema)}, bad, {})

    return decode_many


def _row(item: FrameIn) -> dict[str, Any]:
    return {
        **item.frame.stream._asdict(),
        "position": item.frame.first,
        "kind": item.frame.encoding,
        "sha256": hashlib.sha256(item.frame.body).digest(),
        "body": item.frame.body,
        "arrival_ns": item.arrival_ns,
        "topic": item.partition.topic,
        "partition": item.partition.number,
        "offset": item.offset,
    }
