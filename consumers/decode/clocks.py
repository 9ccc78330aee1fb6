"""The tables of the surface `clocks`: readings of one machine's clocks, and exchanges of times between two machines."""

from typing import Final

import pyarrow as pa

from consumers.decode import state
from consumers.decode.state import table
from consumers.lake.tables import WORD

_STATE: Final = state.State(
    table(
        "clock_readings",
        realtime_ns=pa.int64(),
        monotonic_ns=pa.int64(),
        monotonic_raw_ns=pa.int64(),
        boottime_ns=pa.int64(),
        tai_ns=pa.int64(),
        bracket_ns=pa.int64(),
        tsc=pa.int64(),
        tsc_monotonic_ns=pa.int64(),
        tsc_bracket_ns=pa.int64(),
        tsc_cpu=pa.int32(),
        cause=WORD,
        slew_ppb=pa.int64(),
        printk_ns=pa.int64(),
        printk_monotonic_ns=pa.int64(),
        printk_bracket_ns=pa.int64(),
        printk_cpu=pa.int32(),
        how=WORD,
    ),
    table(
        "clock_pings",
        t0_ns=pa.int64(),
        t1_ns=pa.int64(),
        t2_ns=pa.int64(),
        t3_ns=pa.int64(),
        generation=pa.int64(),
        host_machine=WORD,
        host_boot_id=WORD,
        vm=WORD,
    ),
)
TABLES: Final = _STATE.tables
POSITION: Final = state.POSITION
ONE_ROW_EACH: Final = True

owns = _STATE.owns
spec = _STATE.spec
columns_sql, time_order = _STATE.columns_sql, _STATE.time_order
check = _STATE.check
head = _STATE.head
trim = _STATE.trim
decode_many = _STATE.decode_many
text_lines = _STATE.text_lines
