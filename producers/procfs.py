"""The surface `procfs`: files of /proc that say how a kernel fares, as they are, and its counters of hangs.

Whole texts, which the collector reads: proc(5), Documentation/accounting/psi.rst and admin-guide/iostats.rst. The
counters of hangs are files of one number each, so they are one record: admin-guide/sysctl/kernel.rst and
ABI/testing/sysfs-kernel-*_count there. Tasks that are blocked are looked for besides (`blocked.py`).
"""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from producers import hidden
from producers.blocked import Blocked, numbers_are_the_kernels
from producers.registry import Opening
from producers.source import Source
from producers.state_source import StateSource
from producers.topology import boottime_ns
from schemas.errors import AccessError
from schemas.state import Record
from schemas.stream import Stream

log = logging.getLogger(__name__)
SURFACE: Final = "procfs"
CLOCK: Final = "boot"
#: What is longer is cut: /proc/interrupts of hundreds of CPUs and devices.
FILE_BYTES_MAX: Final = 512 << 10
_READ_BYTES: Final = 64 << 10
_STAT: Final = "proc/stat"
FILES: Final = (
    _STAT,
    "proc/interrupts",
    "proc/softirqs",
    "proc/schedstat",
    "proc/pressure/cpu",
    "proc/pressure/io",
    "proc/pressure/memory",
    "proc/pressure/irq",
    "proc/meminfo",
    "proc/vmstat",
    "proc/diskstats",
)
HANGS: Final = {
    "hung_tasks": "proc/sys/kernel/hung_task_detect_count",
    "hung_task_warnings": "proc/sys/kernel/hung_task_warnings",
    "hung_task_timeout_s": "proc/sys/kernel/hung_task_timeout_secs",
    "watchdog": "proc/sys/kernel/watchdog",
    "nmi_watchdog": "proc/sys/kernel/nmi_watchdog",
    "watchdog_thresh_s": "proc/sys/kernel/watchdog_thresh",
    "rcu_stall_timeout_s": "sys/module/rcupdate/parameters/rcu_cpu_stall_timeout",
    "softlockups": "sys/kernel/softlockup_count",
    "hardlockups": "sys/kernel/hardlockup_count",
    "rcu_stalls": "sys/kernel/rcu_stall_count",
    "oopses": "sys/kernel/oops_count",
    "warnings": "sys/kernel/warn_count",
    "tainted": "proc/sys/kernel/tainted",
}


def open_sources(opening: Opening) -> list[Source]:
    """Return the one source, which reads all files every `interval_s`; those that are not there are said once."""
    stream = Stream(*opening.identity, SURFACE, "", CLOCK)
    known = opening.known.get(stream)
    reader = Reader(boottime_ns)
    if reader.absent:
        log.info("procfs: without %s, which this kernel has not got", ", ".join(reader.absent))
    interval_s, blocked_s = opening.config.procfs.interval_s, opening.config.procfs.blocked_s
    blocked: Blocked | None = None
    if blocked_s and numbers_are_the_kernels():
        hidden.warn(SURFACE, "blocked tasks")
        blocked = Blocked(boottime_ns, int(blocked_s * 1e9))
    elif blocked_s:
        log.info("procfs: blocked tasks are not looked for, because tasks have other numbers in this PID namespace")
    position = known.next if known else 0

    def sample() -> list[Record]:
        return [*reader.sample(), *(blocked.sample() if blocked is not None else ())]

    return [StateSource(stream, position, sample, interval_s=interval_s, on_close=reader.close)]


def check() -> str:
    """Return which files are not there, and whether blocked tasks of others are seen.

    Raises:
        AccessError: /proc cannot be read.
    """
    reader = Reader(boottime_ns)
    reader.close()
    if f"/{_STAT}" in reader.absent:
        raise AccessError(f"/{_STAT} cannot be read: is /proc mounted?")
    sentence = "all files are there" if not reader.absent else f"without {' '.join(reader.absent)}"
    return hidden.added(sentence, "blocked tasks")


class Reader:
    """The files below `root`, kept open; `now_ns` reads CLOCK_BOOTTIME."""

    def __init__(self, now_ns: Callable[[], int], root: Path = Path("/")) -> None:
        self._now_ns = now_ns
        self._files = {f"/{name}": fd for name in FILES if (fd := _open(root / name)) is not None}
        self._hangs = {column: fd for column, name in HANGS.items() if (fd := _open(root / name)) is not None}
        missing = [name for column, name in HANGS.items() if column not in self._hangs]
        #: Files that are not there, or may not be read.
        self.absent = [f"/{name}" for name in (*FILES, *missing) if name in missing or f"/{name}" not in self._files]

    def sample(self) -> list[Record]:
        """Return one record for each file, and one for the counters of hangs."""
        records = []
        for path, fd in self._files.items():
            at_ns = self._now_ns()
            data = _read(fd)
            if data is not None:
                text, whole = data[:FILE_BYTES_MAX].decode("utf-8", "replace"), len(data) <= FILE_BYTES_MAX
                records.append(Record("procfs_text", at_ns, {"path": path, "text": text, "truncated": not whole}))
        at_ns = self._now_ns()
        numbers = {}
        for column, fd in self._hangs.items():
            with contextlib.suppress(ValueError):
                numbers[column] = int(_read(fd) or b"")
        if numbers:
            records.append(Record("procfs_hangs", at_ns, numbers))
        return records

    def close(self) -> None:
        """Close all files."""
        fds, self._files, self._hangs = [*self._files.values(), *self._hangs.values()], {}, {}
        for fd in fds:
            os.close(fd)


# Some are there and cannot be read where the kernel was told so at its start (psi=0).
def _open(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    if _read(fd) is None:
        os.close(fd)
        return None
    return fd


# From the beginning, a byte more than the bound at most; None where the kernel refuses.
def _read(fd: int) -> bytes | None:
    pieces, size = [], 0
    try:
        while size <= FILE_BYTES_MAX and (piece := os.pread(fd, _READ_BYTES, size)):
            pieces.append(piece)
            size += len(piece)
    except OSError:
        return None
    return b"".join(pieces)[: FILE_BYTES_MAX + 1]
