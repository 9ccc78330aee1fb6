"""Records of the surface `qmp` to rows of the tables `qmp_*`: events, run state, disks, and counts of a VM."""

from typing import Final

import pyarrow as pa

from consumers.decode import state
from consumers.decode.vcpu_time import EXITS
from consumers.lake.tables import WORD

_STATE: Final = state.State(
    state.table(
        "qmp_events",
        vm=WORD,
        event=WORD,
        realtime_ns=pa.int64(),
        data=pa.string(),
        reason=WORD,
        raw=pa.binary(),
    ),
    state.table(
        "qmp_status",
        vm=WORD,
        connected=pa.bool_(),
        status=WORD,
        running=pa.bool_(),
        answer_ns=pa.int64(),
        version=WORD,
        detail=pa.string(),
    ),
    state.table(
        "qmp_blocks",
        vm=WORD,
        device=WORD,
        qdev=WORD,
        node=WORD,
        io_status=WORD,
        file=WORD,
        driver=WORD,
        read_only=pa.bool_(),
        bps=pa.int64(),
        iops=pa.int64(),
        data=pa.string(),
    ),
    state.table(
        "qmp_blockstats",
        vm=WORD,
        device=WORD,
        qdev=WORD,
        node=WORD,
        rd_operations=pa.int64(),
        wr_operations=pa.int64(),
        flush_operations=pa.int64(),
        unmap_operations=pa.int64(),
        rd_bytes=pa.int64(),
        wr_bytes=pa.int64(),
        failed_rd_operations=pa.int64(),
        failed_wr_operations=pa.int64(),
        failed_flush_operations=pa.int64(),
        failed_unmap_operations=pa.int64(),
        idle_time_ns=pa.int64(),
    ),
    state.table("qmp_exits", vm=WORD, vcpu=pa.int32(), **EXITS),
)
TABLES: Final = _STATE.tables
POSITION: Final = state.POSITION
ONE_ROW_EACH: Final = True
owns, spec, columns_sql = _STATE.owns, _STATE.spec, _STATE.columns_sql
time_order = _STATE.time_order
check, head, trim = _STATE.check, _STATE.head, _STATE.trim
decode_many, text_lines = _STATE.decode_many, _STATE.text_lines
