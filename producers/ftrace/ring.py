"""One CPU's ring of one instance: whole pages in, by read(2) that never waits, and the kernel's counters of it.

Many pages are read by one readv(2): the kernel calls its read once for each buffer of the vector, and stops at the
first that gives less. Each buffer is one sub-buffer long: after a shorter read the rest would come without a header.
Source: kernel/trace/trace.c (tracing_buffers_read), kernel/trace/ring_buffer.c (ring_buffer_read_page).
"""

import errno
import mmap
import os
from typing import Final

from producers.ftrace.instance import Instance, current_clock
from producers.ftrace.pages import Heads, read_heads
from producers.journal import Journal
from schemas import ftrace

#: About as many bytes of pages fill one body.
BODY_BYTES: Final = 768 << 10
# No memory for a page, a CPU that was never there, a snapshot in use: nothing was taken, the next read may succeed.
_PASSING: Final = frozenset((errno.ENOMEM, errno.ENODEV, errno.EBUSY, errno.EINTR))
#: Names in `per_cpu/cpuN/stats`, and what they are called in counters.
_STATS: Final = {
    "entries": "entries",
    "overrun": "overrun",
    "commit overrun": "commit_overrun",
    "dropped events": "dropped_events",
    "read events": "read_events",
}


class CpuRing:
    """The ring of CPU `cpu`; `left_over` that its instance records no more, so that an empty ring stays empty.

    `present` tells whether the CPU was ever there since the instance was made; only then is its descriptor worth
    waiting on. Once `resized` its pages are of another length than they were, and nothing more is read. A full buffer
    (`free_pages` 0) must be taken before the next read.
    """

    def __init__(self, instance: Instance, cpu: int, journal: Journal | None, *, left_over: bool = False) -> None:
        self.instance = instance
        self.cpu = cpu
        self.left_over = left_over
        self.present = False
        self.resized = False
        self.errors = 0
        self._journal = journal
        layout = instance.layout
        self._page_bytes = layout.page_bytes
        self._pages_max = max(1, BODY_BYTES // layout.page_bytes)
        # Of a CPU that never comes none of it is memory.
        size_bytes = ftrace.HEAD_BYTES + self._pages_max * layout.page_bytes
        self._buffer = memoryview(mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        starts = range(ftrace.HEAD_BYTES, len(self._buffer), layout.page_bytes)
        self._free = [self._buffer[start : start + layout.page_bytes] for start in starts]
        self.filled = 0
        self._said = dict.fromkeys(_STATS.values(), 0)
        path = instance.path / "per_cpu" / f"cpu{cpu}"
        self._raw = self._stats = self._clock = -1
        try:
            self._raw = os.open(path / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._stats = os.open(path / "stats", os.O_RDONLY | os.O_CLOEXEC)
            self._clock = os.open(instance.path / "trace_clock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise

    @property
    def free_pages(self) -> int:
        """How many pages the next read can take."""
        return self._pages_max - self.filled

    @property
    def pending_bytes(self) -> int:
        """Bytes of the pages read and not yet taken."""
        return self.filled * self._page_bytes

    def fileno(self) -> int:
        """Return the descriptor that is readable when the ring is worth reading; -1 while there is none."""
        return self._raw if self.present else -1

    def read(self, position: int) -> int:
        """Read until the buffer is full or the ring empty; return the pages got, `position` being the first one's."""
        free = 0 if self.resized else self.free_pages
        if not free:
            return 0
        if self._journal is not None:
            self._journal.note(self.cpu, position, position + free)
        got = 0
        try:
            got, rest = divmod(os.readv(self._raw, self._free[self.filled :]), self._page_bytes)
            self.present = True
            # Somebody has made them shorter, which emptied the ring.
            self.resized = rest > 0
        except BlockingIOError:
            self.present = True
        except OSError as e:
            if e.errno not in _PASSING:
                raise
            self.errors += 1
        self.filled += got
        if self._journal is not None:
            self._journal.note(self.cpu, position + got, position + got)
        return got

    def forget(self, pages: int) -> None:
        """Give up the last `pages` that were read and not yet taken."""
        self.filled -= pages

    def take(self) -> tuple[bytes, Heads]:
        """Return the body of the pages read since the last call, and what their headers say; there is at least one."""
        end = ftrace.HEAD_BYTES + self.pending_bytes
        heads = read_heads(self._buffer[ftrace.HEAD_BYTES : end], self.instance.layout)
        self._buffer[: ftrace.HEAD_BYTES] = ftrace.head(self.filled, self._page_bytes)
        self.filled = 0
        return bytes(self._buffer[:end]), heads

    def stats(self) -> dict[str, int]:
        """Return the kernel's counters: events still in the ring, overwritten, dropped, and read from it."""
        try:
            text = os.pread(self._stats, 4096, 0).decode("ascii", "replace")
        except OSError:  # a CPU that was never there; or it is as it was, as far as anybody knows
            return dict(self._said)
        values = dict(line.partition(":")[::2] for line in text.splitlines())
        self._said = {name: int(values.get(key, "0")) for key, name in _STATS.items()}
        return dict(self._said)

    def clock(self) -> str:
        """Return the clock by which events are stamped now: somebody may have set another one."""
        return current_clock(os.pread(self._clock, 4096, 0).decode("ascii", "replace"))

    def known_position(self, durable: int) -> tuple[int, bool]:
        """Return the number of the next page, and whether pages may be missing that nobody counted.

        `durable` is where the log ends. Of a left-over ring more may have been read: what the journal says. Where there
        is none, the kernel's counters say whether anything was.
        """
        if self._journal is None:
            return durable, self.stats()["read_events"] > 0
        least, most = self._journal.noted(self.cpu)
        return max(durable, least), most > max(durable, least)

    def close(self) -> None:
        """Close the files, so that the instance can be removed; idempotent."""
        for fd in (self._raw, self._stats, self._clock):
            if fd >= 0:
                os.close(fd)
        self._raw = self._stats = self._clock = -1
