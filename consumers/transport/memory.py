"""The log reader's twin in memory: what the shared suite proves of the others holds here too."""

import threading
import time
import uuid

from consumers.transport.base import LogReplacedError, LogWentBackError, Message, Partition, RetentionOvertookError


class MemoryLog:
    """A log of `topics`, one partition each unless `partitions` says more; safe to append to from any thread."""

    def __init__(self, topics: list[str], partitions: int = 1) -> None:
        self.id = str(uuid.uuid4())
        self.changed = threading.Condition()
        self.starts: dict[Partition, int] = {}
        self.messages: dict[Partition, list[Message]] = {}
        self.topic_ids: dict[str, str] = {}
        for topic in topics:
            self.create(topic, partitions)

    def create(self, topic: str, partitions: int = 1) -> None:
        """Create `topic`, empty; one of that name is deleted first."""
        with self.changed:
            self.topic_ids[topic] = str(uuid.uuid4())
            for partition in [each for each in self.messages if each.topic == topic]:
                del self.messages[partition], self.starts[partition]
            for number in range(partitions):
                self.messages[Partition(topic, number)] = []
                self.starts[Partition(topic, number)] = 0

    def append(self, partition: Partition, value: bytes, ts_ns: int | None = None) -> int:
        """Append one message and return its offset; `ts_ns` is CLOCK_REALTIME, read when None."""
        with self.changed:
            held = self.messages[partition]
            offset = self.starts[partition] + len(held)
            held.append(Message(offset, time.time_ns() if ts_ns is None else ts_ns, value))
            self.changed.notify_all()
        return offset

    def delete_before(self, partition: Partition, offset: int) -> None:
        """Do what retention does: forget everything below `offset`."""
        with self.changed:
            drop = min(max(0, offset - self.starts[partition]), len(self.messages[partition]))
            del self.messages[partition][:drop]
            self.starts[partition] += drop

    def cut(self, partition: Partition, end: int) -> None:
        """Go back to `end`, as a log does that is restored from a copy: what follows gets its offsets once more."""
        with self.changed:
            del self.messages[partition][max(0, end - self.starts[partition]) :]

    def recreate(self) -> None:
        """Become another, empty log with the same topics."""
        with self.changed:
            self.id = str(uuid.uuid4())
            counts = {topic: sum(each.topic == topic for each in self.messages) for topic in self.topic_ids}
        for topic, count in counts.items():
            self.create(topic, count)


class MemoryReader:
    """Reads `log`, at most `batch_max` messages of a partition at once."""

    def __init__(self, log: MemoryLog, batch_max: int = 1000) -> None:
        self._log = log
        self._id = log.id
        self._batch_max = batch_max
        self._positions: dict[Partition, int] = {}

    def log_id(self) -> str:
        """Return the log's id."""
        return self._log.id

    def partitions(self, topics: list[str]) -> list[Partition]:
        """Return the partitions of those `topics` that exist."""
        return [each for topic in topics for each in sorted(self._log.messages) if each.topic == topic]

    def topic_id(self, topic: str) -> str:
        """Return the id that `create` gave the topic."""
        return self._log.topic_ids[topic]

    def start_offset(self, partition: Partition) -> int:
        """Return the oldest offset still held."""
        return self._log.starts[partition]

    def end_offset(self, partition: Partition) -> int:
        """Return the offset that the next message will get."""
        with self._log.changed:
            return self._log.starts[partition] + len(self._log.messages[partition])

    def known_end(self, partition: Partition) -> int | None:
        """Return the end offset, which is at hand."""
        return self.end_offset(partition)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read `partition` from `offset` on."""
        self._positions[partition] = offset

    def forget(self, partition: Partition) -> None:
        """Stop reading `partition`."""
        self._positions.pop(partition, None)

    def poll(self, timeout_ms: int) -> dict[Partition, list[Message]]:
        """Return the next messages of each sought partition, as soon as there is one.

        Raises:
            RetentionOvertookError: a position is below the log's start.
            LogReplacedError: the log became another one.
            LogWentBackError: a position is behind the log's end.
        """
        deadline_s = time.monotonic() + timeout_ms / 1000
        with self._log.changed:
            while True:
                if self._log.id != self._id:
                    raise LogReplacedError("the memory holds another log now: start again to read that one")
                found = self._read()
                wait_s = deadline_s - time.monotonic()
                if found or wait_s <= 0:
                    return found
                self._log.changed.wait(wait_s)

    def commit_advisory(self, partition: Partition, offset: int) -> None:
        """Do nothing: a list keeps no offsets of its readers."""

    def close(self) -> None:
        """Forget everything."""
        self._positions.clear()

    def _read(self) -> dict[Partition, list[Message]]:
        behind = {each: at for each, at in self._positions.items() if at < self._log.starts[each]}
        for partition, position in behind.items():
            raise RetentionOvertookError(partition, position, self._log.starts[partition])
        found = {}
        for partition, position in self._positions.items():
            first = position - self._log.starts[partition]
            if first > len(self._log.messages[partition]):
                raise LogWentBackError(partition, self.end_offset(partition))
            messages = self._log.messages[partition][first : first + self._batch_max]
            if messages:
                found[partition] = messages
                self._positions[partition] = messages[-1].offset + 1
        return found
