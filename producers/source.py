"""What the agent needs of a surface: a descriptor to wait on, a drain that never waits, and batches to frame."""

from typing import NamedTuple, Protocol, runtime_checkable

from schemas.loss import Loss
from schemas.stream import Stream


class Batch(NamedTuple):
    """Contiguous records of one stream: positions `[first, next)`, and the losses right before them.

    `ts_first_ns` and `ts_last_ns` are on the stream's own clock; `descriptor` is the hash of the description that
    decoding needs. A batch without records has an empty body and only carries losses.
    """

    first: int
    next: int
    count: int  # type: ignore[assignment]  # shadows tuple.count
    body: bytes
    losses: list[Loss]
    ts_first_ns: int
    ts_last_ns: int
    descriptor: bytes | None = None


class Source(Protocol):
    """One stream of one surface, open for reading.

    `encoding` and `encoding_version` name the format of its bodies. `tick_s` is after how many seconds `drain` is
    called though nothing said that it has work; None where `fileno` says it for certain. Where batches name a
    descriptor, its source comes first among those opened together: sources are cut in that order.
    """

    stream: Stream
    encoding: str
    encoding_version: int
    tick_s: float | None

    def fileno(self) -> int:
        """Return the descriptor whose readability means that `drain` has work; -1 while there is none."""
        ...

    def alive(self) -> bool:
        """Return whether there is anything to watch; no heartbeat says so otherwise."""
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

    def stop(self) -> None:
        """Let the surface emit no more where that is in our hands, so that `drain` can come to an end."""
        ...

    def give_up(self) -> None:
        """Make losses of what was not drained and will not be, where it is gone with `close`."""
        ...

    def close(self) -> None:
        """Release the surface; everything is as it was found. Idempotent."""
        ...


@runtime_checkable
class Holding(Protocol):
    """What a source has too whose surface outlives the agent: records stay in the kernel until the log has them."""

    def durable(self, position: int) -> None:
        """Let go of every record below `position`: the log holds them, whatever happens to this process."""
        ...


@runtime_checkable
class Leaving(Protocol):
    """What a source has too that can leave to the next agent what says how far it has read."""

    def leave(self) -> None:
        """Let `close` keep that, because not all that was cut is in the log: else nobody would ever know of it."""
        ...
