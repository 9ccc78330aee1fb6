"""Events as people know them from the kernel's own `trace` file, merged over CPUs by time.

Source: kernel/trace/trace_output.c (`trace_print_lat_fmt`, `trace_find_cmdline`): the task's name is not in the ring,
so it is `<...>`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from consumers.decode.ftrace_columns import context_text
from consumers.decode.ftrace_events import FRONT

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
        context = context_text(row.get("flags", 0), row.get("preempt_count", 0))
        head = f"{'<...>':>16}-{row.get('pid', -1):<7} [{cpu:03d}] {context} "
        yield f"{head}{ts_ns // 10**9:5d}.{ts_ns // 1000 % 10**6:06d}: {name.removeprefix('trace_')}: {_fields(row)}"


def _fields(row: dict[str, Any]) -> str:
    shown = []
    for name, value in row.items():
        if name in _FRONT or name.endswith("_name"):
            continue
        named = row.get(f"{name}_name")
        text = value.hex() if isinstance(value, bytes) else str(value if named is None else named)
        shown.append(f"{name}={''.join(char if char.isprintable() else '?' for char in text)}")
    return " ".join(shown)
