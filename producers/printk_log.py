"""printk's own clock where perf does not show it: bounds from the kernel log itself, by when a record could be read.

printk stamps a record and stores it with interrupts off (vprintk_store in kernel/printk/printk.c). So a record that was
not there at one read of /dev/kmsg, and was at another, was stamped between the two. Where it is allowed the second read
is of a record that this object wrote itself; else of what the kernel says, and between records nothing is known.
"""

import errno
import logging
import os
import re
import select
import time
from typing import Final

from producers import kmsg
from producers.printk_clock import PrintkReading

log = logging.getLogger(__name__)
MARKER: Final = "marker"
READ_TIME: Final = "read-time"
#: How much earlier than it could be read a record may have been stamped: a host may stop a virtual CPU in between.
_STORED_NS: Final = 10_000_000
#: How often a record wakes us between two samples: those that come close behind others say most.
_WAKES_MAX: Final = 8
_RECORDS_MAX: Final = 4096
_READ_BYTES: Final = 8192
_TEXT: Final = b"<15>hypocenter-clock %d %d\n"  # a debug message of user space
_HEADER: Final = re.compile(rb"\d+,\d+,(\d+),([^,;]*)")
_US: Final = 1000
_NO_CPU: Final = -1


class PrintkLog:
    """Bounds of it, until closed; with `marker` a record is written for each.

    `fileno` is the descriptor to wait on: of `beside`, and of the kernel log for a few records every `interval_s`.

    Raises:
        AccessError: the kernel log may not be read.
    """

    def __init__(self, beside: int, interval_s: float, *, marker: bool) -> None:
        self._period_ns = int(interval_s * 1e9)
        self._fd = kmsg.open_device(kmsg.DEVICE)
        self._out, self.refused = _out() if marker else (-1, "")
        self._number = 0
        self._period_at_ns = self._wakes = 0
        self._waiting = False
        self._epoll = select.epoll()
        self._epoll.register(beside, select.EPOLLIN)
        self._empty_ns = self._skip()

    @property
    def marks(self) -> bool:
        """Whether a marker is written for each reading."""
        return self._out >= 0

    def fileno(self) -> int:
        """Return the descriptor to wait on; -1 when closed."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def read(self) -> tuple[PrintkReading | None, str]:
        """Return the reading that follows from what is in the log by now, None where nothing does, and how it was made.

        A marker that the kernel dropped is no reading.
        """
        if self.marks:
            found = self._read_marker()
            if self.marks:
                return found, MARKER
        found = self._read_newest()
        self._wait(time.monotonic_ns())
        return found, READ_TIME

    def close(self) -> None:
        """Let go of the log; idempotent."""
        fds, self._fd, self._out = (self._fd, self._out), -1, -1
        self._epoll.close()
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def _read_marker(self) -> PrintkReading | None:
        self._empty_ns = self._skip()
        self._number += 1
        text = _TEXT % (os.getpid(), self._number)
        before_ns = time.monotonic_ns()
        try:
            os.write(self._out, text)
        except OSError as e:
            # kernel.printk_devkmsg was changed: from now on by what others write.
            log.warning("clocks: no marker can be written to the kernel log any more: %s", e.strerror)
            os.close(self._out)
            self._out = -1
            return None
        after_ns = time.monotonic_ns()
        for _ in range(_RECORDS_MAX):
            record = self._next()
            if record is None:
                return None  # the kernel dropped it
            if text[4:] in record:
                return _reading(record, before_ns, after_ns)
        return None

    # The newest record alone: one before it may be a line that waited for its end, stamped when it began.
    def _read_newest(self) -> PrintkReading | None:
        newest, read_ns = None, 0
        since_ns = self._empty_ns
        for _ in range(_RECORDS_MAX):
            now_ns = time.monotonic_ns()
            record = self._next()
            if record is None:
                self._empty_ns = now_ns
                return None if newest is None else _reading(newest, since_ns - _STORED_NS, read_ns)
            newest, read_ns = record, time.monotonic_ns()
        self._empty_ns = self._skip()
        return None

    # None where there is no other one yet.
    def _next(self) -> bytes | None:
        while True:
            try:
                return os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return None
            except OSError as e:
                # Overwritten meanwhile, or longer than any: what comes next is newer.
                if e.errno not in (errno.EPIPE, errno.EINVAL):
                    raise

    # Pass over everything there is; return when that was.
    def _skip(self) -> int:
        now_ns = time.monotonic_ns()
        os.lseek(self._fd, 0, os.SEEK_END)
        return now_ns

    def _wait(self, now_ns: int) -> None:
        if now_ns - self._period_at_ns >= self._period_ns:
            self._period_at_ns, self._wakes = now_ns, 0
        self._wakes += 1
        wanted = self._wakes <= _WAKES_MAX
        if wanted and not self._waiting:
            self._epoll.register(self._fd, select.EPOLLIN)
        elif self._waiting and not wanted:
            self._epoll.unregister(self._fd)
        self._waiting = wanted


def _reading(record: bytes, since_ns: int, until_ns: int) -> PrintkReading | None:
    header = _HEADER.match(record)
    # A piece of a line has the time of the line.
    if header is None or header[2] == b"c":
        return None
    # Cut to whole us.
    middle_ns = int(header[1]) * _US + _US // 2
    return PrintkReading((since_ns + until_ns) // 2, middle_ns, until_ns - since_ns + _US, _NO_CPU)


# The log to write to, -1 and why where that is not allowed.
def _out() -> tuple[int, str]:
    try:
        return os.open(kmsg.DEVICE, os.O_WRONLY | os.O_CLOEXEC), ""
    except OSError as e:
        return -1, str(e.strerror)
