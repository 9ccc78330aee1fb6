"""Events as people know them from the kernel's own `trace` file, merged over CPUs by time.

Source: kernel/trace/trace_output.c (`trace_print_lat_fmt`, `trace_find_cmdline`): the task's name is not in the ring,
so it is `<...>`. Times are rounded to us, and of a clock that counts no ns they are as they are (`print_trace_fmt`).
"""

from collections.abc import Iterator, Mapping
from typing import Final

import pyarrow as pa

from consumers.decode.ftrace_columns import context_text
from consumers.decode.ftrace_events import FRONT
from consumers.decode.row_text import shown

#: Clocks that count something else than ns (kernel/trace/trace.c, `trace_clocks`).
_COUNTERS: Final = frozenset(("counter", "uptime", "x86-tsc", "ppc-tb", "s390-tod"))
_FRONT: Final = frozenset(each.name for each in FRONT)


def lines(tables: Mapping[str, pa.Table]) -> Iterator[str]:
    """Yield one line for each row of `tables`, by time, then CPU, page and position."""
    rows = [
        (row["ts_ns"], row["cpu"], row["page"], row["position"], name, row)
        for name, table in tables.items()
        for row in table.to_pylist()
    ]
    rows.sort(key=lambda row: row[:4])
    for ts_ns, cpu, _, _, name, row in rows:
        # Machines without such common fields have null there.
        flags, preempt_count, pid = (row.get(name) for name in ("flags", "preempt_count", "pid"))
        context = context_text(flags or 0, preempt_count or 0)
        head = f"{'<...>':>16}-{-1 if pid is None else pid:<7} [{cpu:03d}] {context} "
        what = f"{name.removeprefix('trace_')}: {shown(row, _FRONT)}"
        yield f"{head}{_time(ts_ns, row['clock'])}: {what}"


def _time(ts_ns: int, clock: str) -> str:
    if clock in _COUNTERS:
        return f"{ts_ns:12d}"
    us = (ts_ns + 500) // 1000
    return f"{us // 10**6:5d}.{us % 10**6:06d}"
