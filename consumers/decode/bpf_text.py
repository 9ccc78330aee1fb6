"""BPF records as lines in the style of the kernel's own `trace` file, over all rings by time."""

from collections.abc import Iterator, Mapping
from typing import Final

import pyarrow as pa

from consumers.decode.bpf_rows import FRONT
from consumers.decode.row_text import shown

_LEFT_OUT: Final = frozenset((*(each.name for each in FRONT), "cpu"))


def lines(tables: Mapping[str, pa.Table]) -> Iterator[str]:
    """Yield one line for each row of `tables`, those without a time first, then by time, stream and position."""
    rows = [row for table in tables.values() for row in table.to_pylist()]
    rows.sort(key=lambda row: (row["ts_ns"] or 0, row["instance"], row["position"]))
    for row in rows:
        cpu, ts_ns = row.get("cpu"), row["ts_ns"]
        where = f"[{cpu:03d}]" if isinstance(cpu, int) else "[---]"
        when = f"{'-':>12}" if ts_ns is None else f"{ts_ns // 10**9:5d}.{ts_ns // 1000 % 10**6:06d}"
        left_out = _LEFT_OUT if isinstance(cpu, int) else _LEFT_OUT - {"cpu"}
        yield f"{where} {when}: {row['instance']}: {shown(row, left_out)}"
