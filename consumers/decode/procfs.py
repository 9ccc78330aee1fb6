"""Records of the surface `procfs` to rows of `procfs_text`, `procfs_hangs`, `procfs_blocked`, and what files fill."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from consumers.decode import procfs_text, state
from consumers.decode.base import Admit, Decoded, FrameIn, every_kind
from consumers.lake.tables import WORD
from schemas.stream import Stream

_HANGS: Final = (
    "hung_tasks",
    "hung_task_warnings",
    "hung_task_timeout_s",
    "watchdog",
    "nmi_watchdog",
    "watchdog_thresh_s",
    "rcu_stall_timeout_s",
    "softlockups",
    "hardlockups",
    "rcu_stalls",
    "oopses",
    "warnings",
    "tainted",
)
_TEXT: Final = state.table("procfs_text", path=WORD, text=pa.string(), truncated=pa.bool_())
_BLOCKED: Final = state.table(
    "procfs_blocked",
    pid=pa.int32(),
    tgid=pa.int32(),
    comm=WORD,
    started_ns=pa.int64(),
    blocked=pa.bool_(),
    state=WORD,
    since_ns=pa.int64(),
    woken_ns=pa.int64(),
    wchan=WORD,
)
_SENT: Final = state.State(_TEXT, state.table("procfs_hangs", **dict.fromkeys(_HANGS, pa.int64())), _BLOCKED)
_MADE: Final = (
    state.table("procfs_cpu", cpu=pa.int32(), **dict.fromkeys(procfs_text.CPU, pa.int64())),
    state.table(
        "procfs_pressure",
        resource=WORD,
        stalled=WORD,
        avg10=pa.float64(),
        avg60=pa.float64(),
        avg300=pa.float64(),
        total_ns=pa.int64(),
    ),
    state.table(
        "procfs_memory",
        **dict.fromkeys((*procfs_text.MEMINFO.values(), *procfs_text.VMSTAT.values()), pa.int64()),
    ),
    state.table(
        "procfs_disk",
        device=WORD,
        major=pa.int32(),
        minor=pa.int32(),
        **dict.fromkeys(procfs_text.DISK, pa.int64()),
    ),
)
_STATE: Final = state.State(*_SENT.tables, *_MADE)
TABLES: Final = _STATE.tables
POSITION: Final = state.POSITION
ONE_ROW_EACH: Final = False
owns, spec, columns_sql = _STATE.owns, _STATE.spec, _STATE.columns_sql
time_order = _STATE.time_order
check, head, trim = _STATE.check, _STATE.head, _STATE.trim
text_lines = _SENT.text_lines


def decode_many(frames: list[FrameIn], descriptors: Mapping[bytes, bytes], admit: Admit = every_kind) -> Decoded:
    """Return the rows of `frames`: a text is one, and so is each line of it that is known."""
    sent = _SENT.decode_many(frames, descriptors, admit)
    made: dict[str, list[dict[str, Any]]] = {}
    counts = Counter(sent.rows)
    for row in sent.tables[_TEXT.name].to_pylist() if _TEXT.name in sent.tables else ():
        front = {name: row[name] for name in (*Stream._fields, state.POSITION, "ts_ns", "arrival_ns")}
        table, found = procfs_text.rows(row["path"] or "", row["text"] or "")
        made.setdefault(table, []).extend(front | each for each in found)
        counts[Stream(*(row[name] for name in Stream._fields))] += len(found)
    tables = {each.name: pa.Table.from_pylist(made[each.name], each.schema) for each in _MADE if made.get(each.name)}
    return Decoded(sent.tables | tables, sent.bad, dict(counts))
