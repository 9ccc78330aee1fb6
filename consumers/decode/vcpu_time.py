"""Records of the surface `vcpu-time`: what threads got of the host's CPUs, and how often KVM left a VM's guest."""

from typing import Final

import pyarrow as pa

from consumers.decode import state
from consumers.lake.tables import WORD

_THREAD: Final = {
    "pid": pa.int32(),
    "tid": pa.int32(),
    "start_ns": pa.int64(),
    "state": WORD,
    "frozen": pa.bool_(),
    "run_ns": pa.int64(),
    "wait_ns": pa.int64(),
    "timeslices": pa.int64(),
    "voluntary_switches": pa.int64(),
    "involuntary_switches": pa.int64(),
    "last_cpu": pa.int32(),
}
#: As the kernel names them; schemas of `vcpu_exits` and `qmp_exits`.
EXITS: Final = {
    "exits": pa.int64(),
    "signal_exits": pa.int64(),
    "io_exits": pa.int64(),
    "mmio_exits": pa.int64(),
    "halt_exits": pa.int64(),
    "irq_exits": pa.int64(),
    "request_irq_exits": pa.int64(),
    "irq_window_exits": pa.int64(),
    "nmi_window_exits": pa.int64(),
    "hypercalls": pa.int64(),
    "insn_emulation": pa.int64(),
    "mmio_exit_user": pa.int64(),
    "mmio_exit_kernel": pa.int64(),
    "hvc_exit_stat": pa.int64(),
    "wfe_exit_stat": pa.int64(),
    "wfi_exit_stat": pa.int64(),
}
_STATE: Final = state.State(
    state.table("vcpu_time", vm=WORD, vcpu=pa.int32(), **_THREAD),
    state.table("vmm_thread_time", vm=WORD, role=WORD, name=WORD, **_THREAD),
    state.table("vcpu_exits", vm=WORD, pid=pa.int32(), start_ns=pa.int64(), **EXITS),
)
TABLES: Final = _STATE.tables
POSITION: Final = state.POSITION
ONE_ROW_EACH: Final = True
owns, spec, columns_sql = _STATE.owns, _STATE.spec, _STATE.columns_sql
time_order = _STATE.time_order
check, head, trim = _STATE.check, _STATE.head, _STATE.trim
decode_many, text_lines = _STATE.decode_many, _STATE.text_lines
