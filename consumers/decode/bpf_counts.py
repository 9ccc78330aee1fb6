"""Samples of what BPF programs count and measure (`producers/bpf/counts.py`), as rows; TABLES.md has their columns."""

from typing import Final

import pyarrow as pa

from consumers.decode import state
from consumers.decode.state import State, table
from consumers.lake.tables import WORD

_INT: Final = pa.int64()
_COUNTS: Final = table(
    "bpf_counts",
    program=WORD,
    loaded_ns=_INT,
    cpu=pa.int32(),
    attempts=_INT,
    ring_full=_INT,
    ring_busy=_INT,
    untracked=_INT,
    runs=_INT,
    run_ns=_INT,
    recursion_misses=_INT,
    measures=pa.map_(pa.string(), _INT),
)
_HISTOGRAMS: Final = table("bpf_histograms", program=WORD, loaded_ns=_INT, measure=WORD, slots=pa.list_(_INT))
_STATE: Final = State(_COUNTS, _HISTOGRAMS)

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
