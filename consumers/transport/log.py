"""The log reader over the embedded log's directory: waits by looking at each partition's `end` every 10 ms."""

import time
from pathlib import Path
from typing import Final

from consumers.transport.base import LogReplacedError, LogWentBackError, Message, Partition, RetentionOvertookError
from schemas import log_dir
from schemas.errors import HypocenterError
from schemas.log_cursor import LogCursor, OvertakenError

_READ_BYTES: Final = 2 << 20
_TICK_S: Final = 0.01


class DirectoryReader:
    """Reads the log in `directory`, and only that one: another log in its place is an error, never a continuation.

    Any number of readers may read beside the one writer; they take no lock.

    Raises:
        UnavailableError: there is no log.
        UsageError: it is of another format.
    """

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        self._cursors: dict[Partition, LogCursor] = {}
        self._stamp = self._stat()
        self._identity = log_dir.read_identity(directory)

    def log_id(self) -> str:
        """Return the directory's id, made when it was."""
        self._check()
        return self._identity.id

    def partitions(self, topics: list[str]) -> list[Partition]:
        """Return the partitions of `topics` that the log declares or has; those without a message are empty."""
        self._check()
        declared = {
            Partition(topic, number) for topic in topics for number in range(self._identity.partitions.get(topic, 0))
        }
        found = {
            Partition(topic, int(path.parent.name))
            for topic in topics
            for path in self._dir.glob(f"{topic}/*/{log_dir.END}")
        }
        return sorted(declared | found, key=lambda each: (topics.index(each.topic), each.number))

    def topic_id(self, topic: str) -> str:
        """Return log id and name: a topic of a directory lives as long as the directory."""
        return f"{self.log_id()}/{topic}"

    def start_offset(self, partition: Partition) -> int:
        """Return the oldest offset still held."""
        return LogCursor(self._dir, *partition).start_offset()

    def end_offset(self, partition: Partition) -> int:
        """Return the offset that the next message will get."""
        return LogCursor(self._dir, *partition).end_offset()

    def known_end(self, partition: Partition) -> int | None:
        """Return the end offset, which is at hand."""
        return self.end_offset(partition)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read `partition` from `offset` on."""
        if partition not in self._cursors:
            self._cursors[partition] = LogCursor(self._dir, *partition)
        self._cursors[partition].seek(offset)

    def forget(self, partition: Partition) -> None:
        """Stop reading `partition`."""
        cursor = self._cursors.pop(partition, None)
        if cursor is not None:
            cursor.close()

    def poll(self, timeout_ms: int) -> dict[Partition, list[Message]]:
        """Return the next messages of each sought partition, as soon as there is one.

        Raises:
            RetentionOvertookError: a position is below the log's start.
            UnavailableError: the log is gone.
            LogReplacedError: another one lies in its place.
            LogWentBackError: a position is behind the log's end.
            StorageError: the disk refuses.
        """
        deadline_s = time.monotonic() + timeout_ms / 1000
        while True:
            positions = {partition: cursor.position for partition, cursor in self._cursors.items()}
            found = self._read()
            try:
                # Looked at after reading: what was read before a change of logs is still this log's.
                self._check()
            except HypocenterError:
                for partition in found:
                    self._cursors[partition].seek(positions[partition])
                raise
            wait_s = deadline_s - time.monotonic()
            if found or wait_s <= 0:
                return found
            time.sleep(min(_TICK_S, wait_s))

    def commit_advisory(self, partition: Partition, offset: int) -> None:
        """Do nothing: a directory keeps no offsets of its readers."""

    def close(self) -> None:
        """Release every open file."""
        for partition in list(self._cursors):
            self.forget(partition)

    def _read(self) -> dict[Partition, list[Message]]:
        found: dict[Partition, list[Message]] = {}
        for partition, cursor in self._cursors.items():
            try:
                entries = cursor.read(_READ_BYTES)
                if cursor.position > cursor.end:
                    self._check()  # one that is gone has no end at all
                    raise LogWentBackError(partition, cursor.end)
            except HypocenterError as e:
                if found:
                    break  # what the others gave first; this comes up again at the next poll
                if isinstance(e, OvertakenError):
                    raise RetentionOvertookError(partition, e.position, e.start) from None
                raise
            if entries:
                found[partition] = list(map(Message._make, entries))
        return found

    def _check(self) -> None:
        stamp = self._stat()
        if stamp == self._stamp:
            return
        found = log_dir.read_identity(self._dir)
        if found.id != self._identity.id:
            raise LogReplacedError(f"{self._dir} holds another log now: start again to read that one")
        self._stamp, self._identity = stamp, found

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = (self._dir / log_dir.IDENTITY).stat()
        except OSError:
            return None  # read_identity says what is wrong
        return found.st_dev, found.st_ino, found.st_mtime_ns
