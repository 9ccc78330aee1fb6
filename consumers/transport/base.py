"""What a collector needs of a log: partitions, offsets, messages in order. Kafka's words, Kafka's meaning."""

from typing import NamedTuple, Protocol

from schemas.errors import HypocenterError


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.number}"


class Message(NamedTuple):
    """One frame as the log holds it; `ts_ns` is the log's append time (CLOCK_REALTIME, ns)."""

    offset: int
    ts_ns: int
    value: bytes


class RetentionOvertookError(HypocenterError):
    """The position asked for was deleted by retention; reading can go on from `start`."""

    def __init__(self, partition: Partition, position: int, start: int) -> None:
        super().__init__(f"{partition}: offset {position} is gone, the log starts at {start}")
        self.partition, self.position, self.start = partition, position, start


class LogReplacedError(HypocenterError):
    """Another log or topic is where this reader's was: whoever reads on starts anew, with another chain (exit 69)."""

    exit_code = 69


class LogWentBackError(LogReplacedError):
    """Messages that were read are no longer in the log, which goes on at `end`: it is a copy, or a broker lost them."""

    def __init__(self, partition: Partition, end: int) -> None:
        super().__init__(
            f"{partition}: the log went back to offset {end}, and more of it was read; it is read again from its start,"
            " and what is stored already is not stored again"
        )
        self.partition, self.end = partition, end


class LogReader(Protocol):
    """A reader of one log. Not thread-safe."""

    def log_id(self) -> str:
        """Return an identity that changes when the log is another one (Kafka's cluster id, the directory's id)."""
        ...

    def partitions(self, topics: list[str]) -> list[Partition]:
        """Return the partitions of those `topics` that exist; what is made later shows in later calls, if not the next.

        Only the first call may wait for an answer.
        """
        ...

    def topic_id(self, topic: str) -> str:
        """Return an identity that changes when the topic is deleted and created again; as it is after the last poll.

        So what was polled is of the topic that had one identity before and has it still.

        Raises:
            UnavailableError: nobody can say now.
        """
        ...

    def start_offset(self, partition: Partition) -> int:
        """Return the oldest offset still held."""
        ...

    def end_offset(self, partition: Partition) -> int:
        """Return the offset that the next message will get."""
        ...

    def known_end(self, partition: Partition) -> int | None:
        """Return the end offset of `partition`, which is read, as last heard, asking nobody; None before that."""
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Read `partition` from `offset` on; a partition never sought is not read."""
        ...

    def forget(self, partition: Partition) -> None:
        """Stop reading `partition`."""
        ...

    def poll(self, timeout_ms: int) -> dict[Partition, list[Message]]:
        """Return the next messages of each sought partition, at most a few MiB, after at most `timeout_ms`.

        Raises:
            RetentionOvertookError: a position is below the log's start; seek to `start` and go on.
            UnavailableError: the log cannot be reached.
            LogReplacedError: another log has taken its place.
            LogWentBackError: a position is behind the log's end; forget the partition, its chain ends here.
        """
        ...

    def commit_advisory(self, partition: Partition, offset: int) -> None:
        """Tell whoever watches lag that `partition` is stored up to `offset`; nothing depends on it."""
        ...

    def close(self) -> None:
        """Release everything; the reader is not used again."""
        ...
