"""What the agent needs of a surface: a descriptor to wait on, a drain that never waits, and batches to frame."""

from typing import NamedTuple, Protocol

from schemas.loss import Loss
from schemas.stream import Stream


class Batch(NamedTuple):
    """Contiguous records of one stream: positions `[first, next)`, and the losses right before them.

    `ts_first_ns` and `ts_last_ns` are on the stream's own clock.
    """

    first: int
    next: int
    count: int  # type: ignore[assignment]  # shadows tuple.count
    body: bytes
    losses: list[Loss]
    ts_first_ns: int
    ts_last_ns: int


class Source(Protocol):
    """One stream of one surface, open for reading."""

    stream: Stream

    def fileno(self) -> int:
        """Return the descriptor whose readability means that `drain` has work."""
        ...

    def drain(self) -> bool:
        """Read what is there without waiting, up to a bound; return True when the bound ended it."""
        ...

    def pending_bytes(self) -> int:
        """Return the size of what was drained and not yet cut."""
        ...

    def cut(self) -> list[Batch]:
        """Return what was drained since the last cut, in order, as contiguous batches."""
        ...

    def next_position(self) -> int:
        """Return the position after the last record cut."""
        ...

    def counters(self) -> dict[str, int]:
        """Return what this source counted since it was opened, for the heartbeat."""
        ...

    def close(self) -> None:
        """Release the surface; everything is as it was found."""
        ...
