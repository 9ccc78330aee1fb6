"""Records of the surface `topology` to rows of `topology_vm`, `_vcpu` and `_thread`: what was so, and when."""

from typing import Final

import pyarrow as pa

from consumers.decode import state
from consumers.lake.tables import WORD

_VALID: Final = {"valid_from_ns": pa.int64(), "valid_until_ns": pa.int64()}
# They are told once, and again when they change.
_STATE: Final = state.State(
    state.lasting(
        "topology_vm",
        vm=WORD,
        uuid=WORD,
        guest_machine=WORD,
        vmm=WORD,
        pid=pa.int32(),
        start_ns=pa.int64(),
        cgroup=WORD,
        vcpus=pa.int32(),
        **_VALID,
    ),
    state.lasting(
        "topology_vcpu",
        vm=WORD,
        vcpu=pa.int32(),
        pid=pa.int32(),
        tid=pa.int32(),
        start_ns=pa.int64(),
        cpus_allowed=WORD,
        last_cpu=pa.int32(),
        **_VALID,
    ),
    state.lasting(
        "topology_thread",
        vm=WORD,
        role=WORD,
        name=WORD,
        pid=pa.int32(),
        tid=pa.int32(),
        start_ns=pa.int64(),
        **_VALID,
    ),
)
TABLES: Final = _STATE.tables
POSITION: Final = state.POSITION
ONE_ROW_EACH: Final = True
owns, spec, columns_sql = _STATE.owns, _STATE.spec, _STATE.columns_sql
time_order = _STATE.time_order
check, head, trim = _STATE.check, _STATE.head, _STATE.trim
decode_many, text_lines = _STATE.decode_many, _STATE.text_lines
