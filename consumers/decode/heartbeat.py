"""Heartbeat frames to rows of the table `coverage`: which span of a stream was watched, and what the clocks said."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa

from consumers.decode.base import Admit, BadRecord, Decoded, FrameIn, bad_frame, every_kind
from consumers.lake.tables import TABLES as LAKE_TABLES
from consumers.lake.tables import TableSpec
from schemas import heartbeat
from schemas.errors import BadInputError
from schemas.frame import Frame

_NONE: Final[Mapping[bytes, bytes]] = MappingProxyType({})
SPEC: Final = LAKE_TABLES["coverage"]
TABLES: Final = (SPEC,)
POSITION: Final = "next_position"
ONE_ROW_EACH: Final = False


def owns(table: str) -> bool:
    """Return whether `table` is `coverage`."""
    return table == SPEC.name


def spec(table: str, schema: pa.Schema) -> TableSpec:  # noqa: ARG001 - every decoder has this signature
    """Return the layout of `coverage`."""
    return SPEC


def columns_sql(table: str, names: Sequence[str]) -> str:  # noqa: ARG001 - every decoder has this signature
    """Return `*`: the table is queried as it is stored."""
    return "*"


def time_order(table: str) -> str:  # noqa: ARG001 - every decoder has this signature
    """Return nothing: within a stream positions are in the order of time."""
    return ""


def check(frame: Frame) -> None:
    """Verify that the frame holds no records and its body is a heartbeat, or empty.

    Raises:
        BadInputError: `reason` is `body`.
    """
    if frame.first != frame.next or frame.count:
        raise BadInputError("body", f"a heartbeat holds no records, this one [{frame.first}, {frame.next})")
    heartbeat.unpack(frame.body)


def head(frame: Frame, end: int) -> Frame:  # noqa: ARG001 - every decoder has this signature
    """Return `frame`: it covers no position that could be cut off."""
    return frame


def trim(frame: Frame, start: int) -> Frame:  # noqa: ARG001 - every decoder has this signature
    """Return `frame`: it covers no position that could be cut off."""
    return frame


def decode_many(
    frames: list[FrameIn],
    descriptors: Mapping[bytes, bytes] = _NONE,  # noqa: ARG001 - every decoder has this signature
    admit: Admit = every_kind,  # noqa: ARG001
) -> Decoded:
    """Return one row of `coverage` for each heartbeat that is not empty; they are no rows of the stream's book."""
    rows: list[dict[str, Any]] = []
    bad: list[BadRecord] = []
    for item in frames:
        frame = item.frame
        try:
            check(frame)
            beat = heartbeat.unpack(frame.body)
        except BadInputError as e:
            bad.append(bad_frame(item, e.reason, e.detail))
            continue
        if beat is not None:
            rows.append(_row(item, beat))
    return Decoded({SPEC.name: pa.Table.from_pylist(rows, schema=SPEC.schema)}, bad, {})


def text_lines(decoded: Decoded) -> Iterator[str]:  # noqa: ARG001 - every decoder has this signature
    """Yield nothing: a heartbeat is silence that was watched."""
    return iter(())


def _row(item: FrameIn, beat: heartbeat.Heartbeat) -> dict[str, Any]:
    return {
        **item.frame.stream._asdict(),
        **asdict(beat),
        "counters": list(beat.counters.items()),
        "run": item.frame.run,
        "number": item.frame.number,
        "next_position": item.frame.next,
        "arrival_ns": item.arrival_ns,
        "topic": item.partition.topic,
        "partition": item.partition.number,
        "offset": item.offset,
    }
