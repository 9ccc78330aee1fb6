"""Losses are data: each is a typed row with a position and, where anybody knows it, a count."""

from enum import StrEnum
from typing import NamedTuple


class LossKind(StrEnum):
    """What happened to the records that are not there.

    A duplicate is not here: the books count it. `reset` says that a numbering began anew (a new boot), count 0.
    """

    OVERWRITE = "overwrite"  # the kernel's ring was faster than its reader
    DROP = "drop"  # a bounded stage of ours gave them up on purpose
    GAP = "gap"  # positions are missing and nobody said why
    TRUNCATION = "truncation"  # a record is there, but not whole
    RESET = "reset"  # the numbering started anew
    RETENTION = "retention"  # the log's retention overtook the reader
    DEAD_LETTER = "dead-letter"  # bytes arrived that nobody could read


class LossUnit(StrEnum):
    """What the count of a loss counts.

    `position`: so many positions of the stream from `first_position` on are not there. `event`: the stream's numbering
    is whole, but so many events that should lie right before `first_position` never got a position of their own: the
    positions of a ring read page by page are pages, and what the ring overwrote is counted in events.
    """

    POSITION = "position"
    EVENT = "event"


class Loss(NamedTuple):
    """`count` positions from `first_position` on are missing; `count` None means unknown, which is not zero.

    With another `unit` than positions no position is missing: `count` of that unit are, right before `first_position`.
    """

    kind: str
    first_position: int
    count: int | None  # type: ignore[assignment]  # shadows tuple.count
    reason: str
    found_by: str
    unit: str = LossUnit.POSITION
