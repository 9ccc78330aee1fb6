"""printk's own clock, read: a perf event of this process whose sample carries the time of `local_clock()`.

printk stamps a record with `local_clock()` (kernel/printk/printk.c), which no system call reads. perf stamps its
samples with the same function (`perf_event_clock`, kernel/events/core.c). So: count page faults of user space, each
of them a sample (include/uapi/linux/perf_event.h, PERF_COUNT_SW_PAGE_FAULTS); touch a page that is not there between
two readings of CLOCK_MONOTONIC; the sample's time lies between them. A fault is an event of the calling thread
itself, so nothing is waited for. Under kernel.perf_event_paranoid up to 2 that takes no right, above it CAP_PERFMON.
"""

import ctypes
import mmap
import os
import platform
import struct
import time
from typing import Final, NamedTuple

from schemas.errors import AccessError

_SYSCALL: Final = {"x86_64": 298, "aarch64": 241}
_PERF_TYPE_SOFTWARE: Final = 1
_PERF_COUNT_SW_PAGE_FAULTS: Final = 2
_SAMPLE_TIME_AND_CPU: Final = 1 << 2 | 1 << 7
_EXCLUDE_KERNEL_AND_HYPERVISOR: Final = 1 << 5 | 1 << 6
_FLAG_CLOEXEC: Final = 8
_ATTR: Final = struct.Struct("=IIQQQQQ")  # type, size, config, sample_period, sample_type, read_format, flags
_ATTR_BYTES: Final = 64
_HEAD_AT: Final = 1024  # `data_head` in struct perf_event_mmap_page, and `data_tail` behind it
_PAIR: Final = struct.Struct("=QQ")
_RECORD_HEADER: Final = struct.Struct("=IHH")  # type, misc, size
_SAMPLE: Final = struct.Struct("=QII")  # time, cpu, reserved
_PERF_RECORD_SAMPLE: Final = 9
_TRIES: Final = 5


class PrintkReading(NamedTuple):
    """printk's clock was at `printk_ns` within `bracket_ns / 2` of CLOCK_MONOTONIC's `monotonic_ns`, on `cpu`."""

    monotonic_ns: int
    printk_ns: int
    bracket_ns: int
    cpu: int


def spanning(one: PrintkReading, other: PrintkReading) -> PrintkReading:
    """Return the reading that holds for both CPUs: its bracket has in it what their clocks differ by."""
    ahead = [
        (
            each.printk_ns - each.monotonic_ns - each.bracket_ns // 2,
            each.printk_ns - each.monotonic_ns + each.bracket_ns // 2,
        )
        for each in (one, other)
    ]
    low, high = min(low for low, _ in ahead), max(high for _, high in ahead)
    return one._replace(printk_ns=one.monotonic_ns + (low + high) // 2, bracket_ns=high - low + 2)


class PrintkClock:
    """Reads it, until closed.

    Raises:
        AccessError: the kernel does not let us count page faults of our own.
    """

    def __init__(self) -> None:
        number = _SYSCALL.get(platform.machine())
        if number is None:
            raise AccessError(f"printk's clock is not read on {platform.machine()}")
        what = (_PERF_TYPE_SOFTWARE, _ATTR_BYTES, _PERF_COUNT_SW_PAGE_FAULTS, 1, _SAMPLE_TIME_AND_CPU, 0)
        attr = _ATTR.pack(*what, _EXCLUDE_KERNEL_AND_HYPERVISOR).ljust(_ATTR_BYTES, b"\0")
        libc = ctypes.CDLL(None, use_errno=True)
        # Of the calling thread, on any CPU.
        self._fd = libc.syscall(number, attr, 0, -1, -1, _FLAG_CLOEXEC)
        if self._fd < 0:
            why = os.strerror(ctypes.get_errno())
            raise AccessError(f"perf_event_open: {why}: it takes kernel.perf_event_paranoid <= 2 or CAP_PERFMON")
        self._data_at = mmap.PAGESIZE
        try:
            self._ring = mmap.mmap(self._fd, 2 * mmap.PAGESIZE)
        except OSError as e:
            os.close(self._fd)
            raise AccessError(f"no ring for perf events: {e.strerror}") from None
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def read(self) -> PrintkReading | None:
        """Return the tightest of a few readings; None where the kernel gave no sample."""
        found = [reading for _ in range(_TRIES) if (reading := self._read_once()) is not None]
        return min(found, key=lambda reading: reading.bracket_ns, default=None)

    def close(self) -> None:
        """Let go of the event; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._ring.close()
            self._page.close()
            os.close(fd)

    # The page is given back first, so that the touch is a fault.
    def _read_once(self) -> PrintkReading | None:
        self._page.madvise(mmap.MADV_DONTNEED)
        start, _ = _PAIR.unpack_from(self._ring, _HEAD_AT)
        before = time.monotonic_ns()
        self._page[0] = 1
        after = time.monotonic_ns()
        end, _ = _PAIR.unpack_from(self._ring, _HEAD_AT)
        samples = self._samples(start, end)
        struct.pack_into("=Q", self._ring, _HEAD_AT + 8, end)
        # Others in between are faults of the interpreter's own: which one was ours nobody can say.
        if len(samples) != 1:
            return None
        ((printk_ns, cpu),) = samples
        return PrintkReading((before + after) // 2, printk_ns, after - before, cpu)

    def _samples(self, start: int, end: int) -> list[tuple[int, int]]:
        size = mmap.PAGESIZE
        data = self._ring[self._data_at : self._data_at + size]
        found = []
        while start + _RECORD_HEADER.size <= end:
            # A record may go round the end of the ring.
            record = (data[start % size :] + data[: start % size])[: end - start]
            kind, _, length = _RECORD_HEADER.unpack_from(record)
            if length < _RECORD_HEADER.size:
                break
            if kind == _PERF_RECORD_SAMPLE and length >= _RECORD_HEADER.size + _SAMPLE.size:
                printk_ns, cpu, _ = _SAMPLE.unpack_from(record, _RECORD_HEADER.size)
                found.append((printk_ns, cpu))
            start += length
        return found
