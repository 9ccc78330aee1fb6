"""Events as people know them from the kernel's own `trace` file, merged over CPUs by time.

Source: kernel/trace/trace_output.c (`trace_print_lat_fmt`, `trace_find_cmdline`): the task's name is not in the ring,
so it is `<...>`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from consumers.decode.ftrace_events import FRONT

_FRONT: Final = frozenset(each.name for each in FRONT)
_IRQS_OFF, _NEED_RESCHED, _HARDIRQ, _SOFTIRQ = 1, 4, 8, 16
_UNKNOWN: Final = ("event_id", "reason", "data")


def lines(tables: Mapping[str, pa.Table]) -> Iterator[str]:
    """Yield one line for each row of `tables`, by time, then CPU, page and position."""
    rows = [
        (row["ts_ns"], row["cpu"], row["page"], row["position"], name, row)
        for name, table in tables.items()
        for row in table.to_pylist()
    ]
    rows.sort(key=lambda row: row[:4])
    for ts_ns, cpu, _, _, name, row in rows:
        head = f"{'<...>':>16}-{row.get('pid', -1):<7} [{cpu:03d}] {_context(row)} "
        yield f"{head}{ts_ns // 10**9:5d}.{ts_ns // 1000 % 10**6:06d}: {name.removeprefix('trace_')}: {_fields(row)}"


def _context(row: dict[str, Any]) -> str:
    flags, count = row.get("flags") or 0, row.get("preempt_count") or 0
    irq = {_HARDIRQ: "h", _SOFTIRQ: "s", _HARDIRQ | _SOFTIRQ: "H"}.get(flags & (_HARDIRQ | _SOFTIRQ), ".")
    depth = count & 15
    return "".join(
        ("d" if flags & _IRQS_OFF else ".", "N" if flags & _NEED_RESCHED else ".", irq, f"{depth:x}" if depth else ".")
    )


def _fields(row: dict[str, Any]) -> str:
    shown = []
    for name, value in row.items():
        if name in _FRONT or name.endswith("_name"):
            continue
        named = row.get(f"{name}_name")
        text = value.hex() if isinstance(value, bytes) else str(value if named is None else named)
        shown.append(f"{name}={''.join(char if char.isprintable() else '?' for char in text)}")
    return " ".join(shown)
