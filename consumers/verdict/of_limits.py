"""Whether the VMM held a disk's requests back to a limit that somebody gave it.

QEMU's limits are leaky buckets (util/throttle.c): what moves fills one, and what the limit allows leaks out of it. As
long as one is not empty, requests wait. Tables: qmp_blocks of the host, procfs_disk of the guest.
"""

from itertools import pairwise
from typing import Any, Final

from consumers.clocks.graph import BOOT
from consumers.coverage import Span
from consumers.verdict.facts import Fact, known, unknown
from consumers.verdict.look import Look, S, of_rows
from consumers.verdict.verdict import Evidence

#: What a bucket holds is counted from so long before the time in question; it can have held more.
_FILLED_NS: Final = 300 * S
_AROUND_NS: Final = 10 * S
#: Of the time in question, from the first to the last reading with a request that had not ended.
_STOOD_MIN: Final = 0.5


def evidence(limited: list[dict[str, Any]]) -> list[Evidence]:
    """Return that there is a limit, which alone decides nothing, by rows of qmp_blocks."""
    return [
        Evidence("H4", f"QEMU limits the disk {_name(row)} to {_limit(row)}", of_rows("qmp_blocks", [row]))
        for row in limited[:1]
    ]


def held_back(look: Look, limited: list[dict[str, Any]]) -> Fact[bool]:
    """Return whether requests of a disk of the guest stood, which had moved more than a limit in `limited` allows."""
    window = look.guest(BOOT)
    if not limited or window is None:
        return Fact()
    rows = look.rows(
        "procfs_disk",
        "select * from procfs_disk where machine = ? and boot_id = ? and ts_ns between ? and ? order by device, ts_ns",
        *look.incident.source[:2], window.since_ns - _FILLED_NS, window.until_ns + _AROUND_NS,
    )  # fmt: skip
    disks: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        disks.setdefault(row["device"], []).append(row)
    for device, readings in disks.items():
        for limit in limited:
            if _stood(readings, window) and _full(readings, limit, window):
                text = f"requests of the guest's disk {device} stood, which had moved all that QEMU's limit of"
                text += f" {_limit(limit)} on its disk {_name(limit)} allows"
                used = [row for row in readings if row["ts_ns"] >= window.since_ns - _AROUND_NS]
                return known(True, text, (*of_rows("qmp_blocks", [limit]), *of_rows("procfs_disk", used)))
    return unknown("QEMU limits a disk, and nothing shows that the limit was reached")


# Between readings that are next to each other, and both have a request, there was one all along: none may have ended.
def _stood(readings: list[dict[str, Any]], window: Span) -> bool:
    stood_ns = 0
    for one, two in pairwise(readings):
        same = all(one[name] == two[name] for name in ("reads", "writes"))
        if same and (one["in_flight"] or 0) > 0 and (two["in_flight"] or 0) > 0:
            stood_ns += max(0, min(two["ts_ns"], window.until_ns) - max(one["ts_ns"], window.since_ns))
    return stood_ns >= _STOOD_MIN * (window.until_ns - window.since_ns)


# Whether a bucket was not empty when the time was over: since some reading more went in than leaked out.
def _full(readings: list[dict[str, Any]], limit: dict[str, Any], window: Span) -> bool:
    last = next((row for row in reversed(readings) if row["ts_ns"] <= window.until_ns), None)
    if last is None:
        return False
    for row in readings:
        took_s = (window.until_ns - row["ts_ns"]) / S
        if row["ts_ns"] >= last["ts_ns"]:
            break
        moved = {
            "bps": _grown(row, last, "read_bytes", "written_bytes"),
            "iops": _grown(row, last, "reads", "writes"),
        }
        if any(limit[name] and count > limit[name] * took_s for name, count in moved.items()):
            return True
    return False


def _grown(one: dict[str, Any], two: dict[str, Any], *names: str) -> int:
    return sum((two[name] or 0) - (one[name] or 0) for name in names)


def _name(row: dict[str, Any]) -> str:
    return str(row["device"] or row["node"])


def _limit(row: dict[str, Any]) -> str:
    limits = ((row["bps"], "byte/s"), (row["iops"], "requests/s"))
    return " and ".join(f"{value:,} {unit}" for value, unit in limits if value)
