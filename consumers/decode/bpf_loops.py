"""The compiled loop of the BPF decoder: a stretch of ring to where its records are.

`bpf_records` checks its arguments and allocates. Why numba: `ftrace_loops` says it. No header is read that does not lie
in the stretch as a whole; with NUMBA_BOUNDSCHECK=1 in the environment the compiled code raises IndexError for any index
outside an array, and the fuzzing tests run in that mode too.

Source of the format: kernel/bpf/ringbuf.c (`__bpf_ringbuf_reserve`, `bpf_ringbuf_commit`), include/uapi/linux/bpf.h.
"""

from typing import Any, Final

import numba
import numpy as np

from consumers.compiled import compiled

_OCTETS: Final = numba.types.Array(numba.uint8, 1, "C", readonly=True)
_INT64S: Final = numba.int64[::1]

# Codes of `bpf_records.Fault`, as plain numbers for the compiler.
NO_FAULT: Final = 0
FAULT_BUSY: Final = 1
FAULT_BEYOND: Final = 2
FAULT_COUNT: Final = 3

_HEAD_BYTES: Final = 8
_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_LENGTH_MASK: Final = _DISCARDED - 1


@compiled(_OCTETS, numba.boolean, _INT64S, _INT64S)
def walk(data: Any, big: Any, starts: Any, lengths: Any) -> Any:
    """Fill `starts` and `lengths` with the records' data in `data`, without those that were discarded.

    Returns how many they are, the code of a fault, and the byte of the header at which reading ended.
    """
    at, row, end = np.int64(0), 0, len(data)
    while at < end:
        if at + _HEAD_BYTES > end:
            return row, FAULT_BEYOND, at
        a, b, c, d = np.int64(data[at]), np.int64(data[at + 1]), np.int64(data[at + 2]), np.int64(data[at + 3])
        word = a << 24 | b << 16 | c << 8 | d if big else d << 24 | c << 16 | b << 8 | a
        length = word & _LENGTH_MASK
        after = at + _HEAD_BYTES + ((length + 7) & ~7)
        if word & _BUSY:
            return row, FAULT_BUSY, at
        if after > end:
            return row, FAULT_BEYOND, at
        if not word & _DISCARDED:
            if row == len(starts):
                return row, FAULT_COUNT, at
            starts[row], lengths[row] = at + _HEAD_BYTES, length
            row += 1
        at = after
    return row, NO_FAULT if row == len(starts) else FAULT_COUNT, at
