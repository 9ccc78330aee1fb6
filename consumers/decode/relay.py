"""The relay's records to rows: `relay_guests`, a guest at one moment, and `relay_refused`, bytes that were no frame."""

from typing import Final

import pyarrow as pa

from consumers.decode.state import POSITION as STATE_POSITION
from consumers.decode.state import State, table
from consumers.lake.tables import WORD

_NAMES: Final = {"vm": WORD, "uuid": WORD, "host_machine": WORD, "host_boot_id": WORD}
_STATE: Final = State(
    table(
        "relay_guests",
        **_NAMES,
        generation=pa.int64(),
        connected=pa.bool_(),
        connections=pa.int64(),
        bytes=pa.int64(),
        frames=pa.int64(),
        duplicates=pa.int64(),
        refused=pa.map_(pa.string(), pa.int64()),
        mismatches=pa.int64(),
        claimed_machine=WORD,
        claimed_layer=WORD,
        claimed_boot_id=WORD,
        rtt_ns=pa.int64(),
    ),
    table("relay_refused", **_NAMES, reason=WORD, size_bytes=pa.int64(), data=pa.binary()),
)
TABLES: Final = _STATE.tables
POSITION: Final = STATE_POSITION
ONE_ROW_EACH: Final = True
owns, spec, columns_sql = _STATE.owns, _STATE.spec, _STATE.columns_sql
time_order = _STATE.time_order
check, head, trim = _STATE.check, _STATE.head, _STATE.trim
decode_many, text_lines = _STATE.decode_many, _STATE.text_lines
