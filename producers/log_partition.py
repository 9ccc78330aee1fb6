"""One partition as its writer sees it: entries gathered in memory, made durable together, then published."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from producers.durable import make_folder, refusals, write_all_at, write_at, write_file
from producers.log_recovery import recover
from schemas import log_dir, segment
from schemas.crashpoints import crash_point
from schemas.crc import WORTH_BYTES, crc32
from schemas.errors import BadInputError
from schemas.frame import Frame, Parts, checksum, encode
from schemas.frame_keys import CRC_TAIL_BYTES
from schemas.segment import End, StreamPosition
from schemas.segment_file import SegmentFile
from schemas.stream import Stream

log = logging.getLogger(__name__)
# Gathered entries beyond this are written without waiting for a sync.
_PENDING_BYTES_MAX: Final = 8 << 20
# How far behind the newest append time a clock may be before somebody is told.
_AHEAD_NS: Final = 60 * 10**9
# How old the published end on the disk itself may be; what is in the page cache is always new.
_END_SYNC_S: Final = 1.0


class Closed(NamedTuple):
    """A segment that is no longer written: closed at `closed_ns` (CLOCK_REALTIME)."""

    path: Path
    closed_ns: int
    size_bytes: int


class PartitionWriter:
    """The writer of the partition in `folder`, created if absent. `clock` gives CLOCK_REALTIME in ns.

    Raises:
        StorageError: from every method, when the disk refuses; calling it again goes on where it stopped.
    """

    def __init__(self, folder: Path, segment_bytes: int, clock: Callable[[], int]) -> None:
        self.folder = folder
        self._end_path = folder / log_dir.END
        self._segment_bytes = segment_bytes
        self._clock = clock
        self._pending: list[bytes | memoryview] = []
        self._pending_bytes = 0
        self._closed: dict[int, Closed] = {}
        self._rolling = self._ahead = False
        #: How many segments were begun since the log was opened.
        self.rolls = 0
        with refusals(folder):
            make_folder(folder)
            found = recover(folder)
            self.torn_bytes, self.streams = found.torn_bytes, found.streams
            self._base, self._position, self._next = found.base, found.position, found.offset
            self._append_ns = found.append_ns
            if not self._position:
                self._position = self._create(self._base)
            self._fd = self._open(self._base)
            try:
                self._published = End(self._next, self._base, self._position)
                self._end_fd = _open_end(self._end_path, segment.encode_end(self._published))
            except OSError:
                os.close(self._fd)
                raise
        self._end_synced_s = time.monotonic()

    def append(self, frame: Frame) -> None:
        """Gather `frame`; when this raises, it was not taken."""
        self.append_encoded((encode(frame),), frame.stream, StreamPosition(frame.next, frame.number))

    def append_encoded(self, parts: Parts, stream: Stream, at: StreamPosition) -> None:
        """Gather a frame that is encoded, its checksum known to hold, after which `stream` stands `at`."""
        frame_bytes = sum(map(len, parts))
        size_bytes = segment.ENTRY_PREFIX_BYTES + frame_bytes
        if self._pending_bytes + size_bytes > _PENDING_BYTES_MAX:
            self.sync()
        # A segment holds at least one entry, however small segments are to be.
        full = self._position + self._pending_bytes + size_bytes > self._segment_bytes
        if self._rolling or (full and self._next > self._base):
            self._roll()
        now_ns = self._clock()
        append_ns = max(now_ns, self._append_ns)
        if (append_ns - now_ns > _AHEAD_NS) is not self._ahead:
            self._tell_ahead(append_ns, now_ns)
        crc = _frame_crc(parts[-1]) if frame_bytes >= WORTH_BYTES else None
        self._pending += (segment.encode_prefix(self._next, append_ns, parts, crc), *parts)
        self._pending_bytes += size_bytes
        self._next, self._append_ns = self._next + 1, append_ns
        self.streams.pop(stream, None)
        self.streams[stream] = at
        crash_point("log:appended")

    def sync(self) -> None:
        """Make everything appended durable, then show it to readers."""
        if self._pending:
            self._write_pending()
        end = End(self._next, self._base, self._position)
        if end != self._published:
            with refusals(self._end_path):
                write_at(self._end_fd, segment.encode_end(end), 0)
                crash_point("log:published")
                self._published = end
                if time.monotonic() - self._end_synced_s >= _END_SYNC_S:
                    self._sync_end()

    def size_bytes(self) -> int:
        """Return the size of the newest segment, with what is not yet written."""
        return self._position + self._pending_bytes

    def closed_segments(self) -> Iterator[Closed]:
        """Yield the segments that retention may delete, oldest first; whoever else deletes some is no error."""
        closed_ns = 0
        bases = log_dir.segment_bases(self.folder)
        for base in self._closed.keys() - set(bases):
            del self._closed[base]
        for base, after in pairwise(base for base in bases if base <= self._base):
            if base not in self._closed:
                with contextlib.suppress(FileNotFoundError), refusals(self.folder):
                    self._closed[base] = self._look_at(base, after)
            if base in self._closed:
                # Never out of order, even where a damaged header gave way to the file's own time.
                closed_ns = max(closed_ns, self._closed[base].closed_ns)
                yield self._closed[base]._replace(closed_ns=closed_ns)

    def close(self) -> None:
        """Release the files; what was not synced before is not kept."""
        with contextlib.suppress(OSError):
            os.fdatasync(self._end_fd)
        os.close(self._fd)
        os.close(self._end_fd)

    # Append times never go back: one moment of a wrong clock gives its time to all that comes until then.
    def _tell_ahead(self, append_ns: int, now_ns: int) -> None:
        self._ahead = not self._ahead
        if self._ahead:
            until = datetime.fromtimestamp(append_ns // 10**9, UTC)
            log.warning(
                "%s: the clock is %d s behind the newest append time, and all that comes has that time until the clock"
                " is there (%s UTC); a log in a new directory has times of its own",
                self.folder, (append_ns - now_ns) // 10**9, until.strftime("%Y-%m-%d %H:%M:%S"),
            )  # fmt: skip

    # After a failed fdatasync the kernel counts the pages as clean, so syncing again would prove nothing: what is not
    # known to be durable stays in memory and is written again.
    def _write_pending(self) -> None:
        with refusals(self._path):
            try:
                write_all_at(self._fd, self._pending, self._position)
                crash_point("log:written")
                os.fdatasync(self._fd)
                crash_point("log:synced")
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._position)  # a full disk gets its bytes back
                raise
        self._position += self._pending_bytes
        self._pending, self._pending_bytes = [], 0

    def _roll(self) -> None:
        self.sync()
        # Once the next segment's file may be there, nothing more goes into this one.
        self._rolling = True
        with refusals(log_dir.segment_path(self.folder, self._next)):
            position = self._create(self._next)
            crash_point("log:created")
            fd = self._open(self._next)
            os.close(self._fd)
            self._fd, self._base, self._position = fd, self._next, position
        self._rolling = False
        self.rolls += 1
        self.sync()
        with refusals(self._end_path):
            self._sync_end()
        crash_point("log:rolled")

    def _sync_end(self) -> None:
        os.fdatasync(self._end_fd)
        self._end_synced_s = time.monotonic()

    # Written aside and renamed: a segment never begins with half a header.
    def _create(self, base: int) -> int:
        for stream in list(self.streams)[: -segment.STREAMS_MAX]:
            log.warning("%s: forgetting where %s stood, it was silent for longest", self.folder, stream)
            del self.streams[stream]
        data = segment.encode_header(base, self._append_ns, self.streams)
        write_file(log_dir.segment_path(self.folder, base), data)
        return len(data)

    def _open(self, base: int) -> int:
        path = log_dir.segment_path(self.folder, base)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._path = path  # of errors: made anew for each sync it would cost more than the rest of it
        return fd

    def _look_at(self, base: int, after: int) -> Closed:
        path = log_dir.segment_path(self.folder, base)
        found = path.stat()
        file = SegmentFile(log_dir.segment_path(self.folder, after), after)
        try:
            closed_ns = file.header().floor_ns
        except BadInputError:
            closed_ns = found.st_mtime_ns
        finally:
            file.close()
        return Closed(path, closed_ns, found.st_size)


# That of the whole frame, of which `last` is the last part: all but its end is what the frame's own checksum is of.
def _frame_crc(last: bytes | memoryview) -> int:
    return crc32(last[-CRC_TAIL_BYTES:], checksum(last))


# Overwritten in place where it exists: a full disk still has that room, and readers see no moment without it.
def _open_end(path: Path, data: bytes) -> int:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size == len(data):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                write_at(fd, data, 0)
                os.fdatasync(fd)
            except OSError:
                os.close(fd)
                raise
            return fd
    write_file(path, data)
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
