"""Texts of /proc to rows of numbers. What a line does not have is not in its row; a line of another form is no row.

Sources: proc(5), Documentation/accounting/psi.rst, Documentation/admin-guide/iostats.rst.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from schemas import limits

Row = dict[str, Any]
#: USER_HZ is 100 on all architectures that this runs on.
_TICK_NS: Final = 10**7
_SECTOR_BYTES: Final = 512
_MS: Final = 10**6
CPU: Final = (
    "user_ns",
    "nice_ns",
    "system_ns",
    "idle_ns",
    "iowait_ns",
    "irq_ns",
    "softirq_ns",
    "steal_ns",
    "guest_ns",
    "guest_nice_ns",
)
_CPU_LINE: Final = re.compile(r"^cpu(\d{0,6})((?: +\d{1,19})+)$", re.MULTILINE)
_PRESSURE_LINE: Final = re.compile(
    r"^(some|full) avg10=([\d.]{1,9}) avg60=([\d.]{1,9}) avg300=([\d.]{1,9}) total=(\d{1,16})$", re.MULTILINE
)
MEMINFO: Final = {
    "MemTotal": "total_bytes",
    "MemFree": "free_bytes",
    "MemAvailable": "available_bytes",
    "Buffers": "buffers_bytes",
    "Cached": "cached_bytes",
    "AnonPages": "anonymous_bytes",
    "Dirty": "dirty_bytes",
    "Writeback": "writeback_bytes",
    "Slab": "slab_bytes",
    "SwapTotal": "swap_total_bytes",
    "SwapFree": "swap_free_bytes",
}
VMSTAT: Final = {
    "pswpin": "swapped_in_pages",
    "pswpout": "swapped_out_pages",
    "pgmajfault": "major_faults",
    "oom_kill": "oom_kills",
}
#: Behind major, minor and name; what a column counts by is the unit that it stands in.
DISK: Final = {
    "reads": 1,
    "reads_merged": 1,
    "read_bytes": _SECTOR_BYTES,
    "read_ns": _MS,
    "writes": 1,
    "writes_merged": 1,
    "written_bytes": _SECTOR_BYTES,
    "write_ns": _MS,
    "in_flight": 1,
    "busy_ns": _MS,
    "weighted_ns": _MS,
    "discards": 1,
    "discards_merged": 1,
    "discarded_bytes": _SECTOR_BYTES,
    "discard_ns": _MS,
    "flushes": 1,
    "flush_ns": _MS,
}
_DISK_LINE: Final = re.compile(r"^ *(\d{1,9}) +(\d{1,9}) +(\S{1,255})((?: +\d{1,19})+)$", re.MULTILINE)


def rows(path: str, text: str) -> tuple[str, list[Row]]:
    """Return the table that the file at `path` fills, empty where it fills none, and its rows."""
    table, parse = _PARSERS.get(path, ("", _none))
    return table, list(parse(text))


def _none(text: str) -> Iterator[Row]:  # noqa: ARG001 - every parser has this signature
    return iter(())


def _cpu(text: str) -> Iterator[Row]:
    for number, times in _CPU_LINE.findall(text):
        found = [_bounded(int(word) * _TICK_NS) for word in times.split()]
        yield {"cpu": int(number) if number else None, **dict(zip(CPU, found, strict=False))}


def _pressure(resource: str) -> Callable[[str], Iterator[Row]]:
    def parse(text: str) -> Iterator[Row]:
        for kind, *averages, total in _PRESSURE_LINE.findall(text):
            try:
                shares = dict(zip(("avg10", "avg60", "avg300"), map(float, averages), strict=True))
            except ValueError:
                continue
            yield {"resource": resource, "stalled": kind, **shares, "total_ns": _bounded(int(total) * 1000)}

    return parse


def _meminfo(text: str) -> Iterator[Row]:
    found = re.findall(r"^(\w+): +(\d{1,15}) kB$", text, re.MULTILINE)
    row = {MEMINFO[name]: _bounded(int(size) << 10) for name, size in found if name in MEMINFO}
    if row:
        yield row


def _vmstat(text: str) -> Iterator[Row]:
    found = re.findall(r"^(\w+) (\d{1,19})$", text, re.MULTILINE)
    row = {VMSTAT[name]: _bounded(int(count)) for name, count in found if name in VMSTAT}
    if row:
        yield row


def _disks(text: str) -> Iterator[Row]:
    for major, minor, name, numbers in _DISK_LINE.findall(text):
        found = zip(DISK.items(), numbers.split(), strict=False)
        values = {column: _bounded(int(word) * unit) for (column, unit), word in found}
        yield {"major": int(major), "minor": int(minor), "device": name, **values}


# A counter of the kernel has 64 bits without a sign.
def _bounded(value: int) -> int | None:
    return value if value <= limits.INT64_MAX else None


_PARSERS: Final[dict[str, tuple[str, Callable[[str], Iterator[Row]]]]] = {
    "/proc/stat": ("procfs_cpu", _cpu),
    "/proc/meminfo": ("procfs_memory", _meminfo),
    "/proc/vmstat": ("procfs_memory", _vmstat),
    "/proc/diskstats": ("procfs_disk", _disks),
    **{f"/proc/pressure/{name}": ("procfs_pressure", _pressure(name)) for name in ("cpu", "io", "memory", "irq")},
}
