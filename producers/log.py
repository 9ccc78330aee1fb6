"""The log directory's one writer; the layout is in `schemas.log_dir`, the bytes in `schemas.segment`.

What is durable when: `append` gathers in memory. `sync` writes, calls fdatasync(2) on every segment written to, and
only then overwrites `end`, all that readers go by: so nothing that a reader saw can be lost, or come again as other
bytes, by a crash of the process, of the machine, or a power cut. `end` itself is synced at most once a second, at each
new segment and at close; a writer that opens the log finds what is newer in the segments. New files are written aside,
synced, renamed, and their folder is synced, before anything in them is published.
"""

import contextlib
import fcntl
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from producers.durable import PART, make_folder, refusals, write_file
from producers.log_partition import PartitionWriter
from schemas import log_dir
from schemas.crashpoints import crash_point
from schemas.errors import LockedError, StorageError, UnavailableError, UsageError
from schemas.frame import Frame, Parts
from schemas.segment import StreamPosition
from schemas.stream import Stream
from schemas.surfaces import TOPICS

LOCK: Final = "writer.lock"
# What an unfinished creation may have left.
_OWN_NAMES: Final = {LOCK, log_dir.IDENTITY + PART}
_TOPIC: Final = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,248}")
_NUMBER: Final = 0


class LogWriter:
    """The log in the directory `path`, created if absent; every topic has one partition, number 0.

    At most about `retention_bytes` are kept, and nothing whose segment was closed `retention_ms` ago; segments are
    about `segment_bytes` long. `clock` gives CLOCK_REALTIME in ns; append times never go back, whatever it does. One
    thread appends; `close` may come from another and waits for it.

    Raises:
        LockedError: another writer owns the directory.
        UsageError: the directory holds something else, or a log of another format.
        StorageError: the disk refuses. From every method: nothing was taken, calling it again goes on where it stopped.
    """

    def __init__(
        self,
        path: Path,
        *,
        retention_bytes: int,
        retention_ms: int | None,
        segment_bytes: int,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._dir = path
        self._retention_bytes, self._retention_ms, self._segment_bytes = retention_bytes, retention_ms, segment_bytes
        self._clock = clock
        self._busy = threading.Lock()
        self._partitions: dict[str, PartitionWriter] = {}
        self._rolls = 0
        self._lock: int | None = _claim(path)
        with contextlib.ExitStack() as undo:
            undo.callback(self._release)
            self.log_id = self._identify().id
            for folder in sorted(path.glob(f"*/{_NUMBER}")):
                self._partition(folder.parent.name)
            undo.pop_all()

    @property
    def positions(self) -> dict[Stream, StreamPosition]:
        """Where every stream stands that the log remembers, with what was appended and not yet synced."""
        return {stream: at for partition in self._partitions.values() for stream, at in partition.streams.items()}

    @property
    def dir(self) -> Path:
        """The log's directory; its lock is ours."""
        return self._dir

    @property
    def torn_bytes(self) -> int:
        """How many bytes of unfinished writes were cut when the log was opened; nobody had been shown them."""
        return sum(partition.torn_bytes for partition in self._partitions.values())

    def append(self, topic: str, frame: Frame) -> None:
        """Take `frame` as the next entry of `topic`; durable and to be seen only after `sync`."""
        with self._busy:
            self._partition(topic).append(frame)

    def append_encoded(self, topic: str, parts: Parts, stream: Stream, at: StreamPosition) -> None:
        """Take a frame that is encoded already as the next entry of `topic`; `stream` stands `at` behind it."""
        with self._busy:
            self._partition(topic).append_encoded(parts, stream, at)

    def size_bytes(self) -> int:
        """Return what all segments take, with what is not yet synced."""
        with self._busy:
            closed = sum(each.size_bytes for part in self._partitions.values() for each in part.closed_segments())
            return closed + sum(part.size_bytes() for part in self._partitions.values())

    def sync(self) -> None:
        """Make everything appended durable and show it to readers, then keep the log to its size."""
        with self._busy:
            for partition in self._partitions.values():
                partition.sync()
            rolls = sum(partition.rolls for partition in self._partitions.values())
            if rolls != self._rolls:
                self._retain(None)
                self._rolls = rolls

    def retain(self, now_ns: int) -> int:
        """Delete what is too old or too much at `now_ns` (CLOCK_REALTIME), oldest first, never a newest segment.

        Return the bytes of what is left, with what is not yet synced.
        """
        with self._busy:
            return self._retain(now_ns)

    def close(self) -> None:
        """Sync and release the directory; it is released also when the sync raises."""
        try:
            self.sync()
        finally:
            with self._busy:
                self._release()

    def _identify(self) -> log_dir.LogIdentity:
        try:
            return log_dir.read_identity(self._dir)
        except UnavailableError:
            created = log_dir.LogIdentity(str(uuid.uuid4()), dict.fromkeys(TOPICS, 1))
        with refusals(self._dir):
            write_file(self._dir / log_dir.IDENTITY, log_dir.encode_identity(created))
        return created

    def _partition(self, topic: str) -> PartitionWriter:
        if self._lock is None:
            raise StorageError(f"{self._dir}: the log was closed")
        if topic not in self._partitions:
            assert _TOPIC.fullmatch(topic), topic
            folder = log_dir.partition_dir(self._dir, topic, _NUMBER)
            self._partitions[topic] = PartitionWriter(folder, self._segment_bytes, self._clock)
        return self._partitions[topic]

    def _retain(self, now_ns: int | None) -> int:
        closed = [each for partition in self._partitions.values() for each in partition.closed_segments()]
        closed.sort(key=lambda each: each.closed_ns)
        total_bytes = sum(each.size_bytes for each in closed)
        total_bytes += sum(partition.size_bytes() for partition in self._partitions.values())
        expired_ns = 0
        if now_ns is not None and self._retention_ms is not None:
            expired_ns = now_ns - self._retention_ms * 1_000_000
        for each in closed:
            if each.closed_ns >= expired_ns and total_bytes <= self._retention_bytes:
                break
            with refusals(each.path):
                each.path.unlink(missing_ok=True)
            crash_point("log:deleted")
            total_bytes -= each.size_bytes
        return total_bytes

    def _release(self) -> None:
        for partition in self._partitions.values():
            partition.close()
        self._partitions = {}
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None


# Returns the descriptor that holds the lock; the kernel gives it up when the process ends, however it ends.
def _claim(path: Path) -> int:
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is no directory")
    with refusals(path):
        make_folder(path)
        names = {each.name for each in path.iterdir()} - _OWN_NAMES
        if names and log_dir.IDENTITY not in names:
            raise UsageError(f"{path} is not empty and no log: it holds {min(names)!r}")
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise LockedError(f"{path} has a writer already: process {owner}") from None
    # The lock is what counts; a full disk cannot take the number, and must not keep the log from being opened.
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd
