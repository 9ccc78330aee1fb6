"""The compiled loop over trace pages: where each event is, and when it was.

Nothing is exported to users of the decoder; `ftrace_pages` checks their arguments and allocates.

Why numba: the walk is one branch per record, which NumPy can only do in lock-step over pages, thirty times slower; a
C extension would need a compiler wherever a collector is installed, numba brings its own.

It reads nothing outside what it was given. Each page is a slice of its own and every read of it is behind a comparison
with `end`, which is compared with the length of the page. With NUMBA_BOUNDSCHECK=1 in the environment the compiled
code raises IndexError for any index outside an array; the fuzzing tests run in that mode too.

Source of the format: kernel/trace/ring_buffer.c (`rb_update_event`, `rb_event_discard`, `check_buffer`,
`ring_buffer_read_page`), include/linux/ring_buffer.h (`enum ring_buffer_type`).
"""

from typing import Any, Final

import numba
import numpy as np

from consumers.compiled import compiled

_INT: Final = numba.int64
# What is only read may be read-only, and at any address.
_FOURS: Final = numba.types.Array(numba.uint32, 1, "A", readonly=True, aligned=False)
_INT32S, _INT64S, _UINT16S, _UINT8S = numba.int32[::1], numba.int64[::1], numba.uint16[::1], numba.uint8[::1]
_LAYOUT: Final = numba.types.Tuple((_INT, _INT, _INT, numba.boolean, numba.boolean))
EVENTS: Final = numba.types.Tuple((_INT32S, _INT32S, _INT64S, _UINT16S, _INT64S, _INT32S))
_BY_PAGE: Final = numba.types.Tuple((_INT32S, _INT64S, _UINT8S, _INT32S))

# Codes of `ftrace_pages.Fault`, as plain numbers for the compiler.
NO_FAULT: Final = 0
FAULT_COMMIT: Final = 1
FAULT_ZEROED: Final = 2
FAULT_LENGTH: Final = 3
FAULT_BEYOND: Final = 4
FAULT_PADDING: Final = 5
LOST_UNKNOWN: Final = -1

_PADDING: Final = 29
_TIME_EXTEND: Final = 30
_TIME_STAMP: Final = 31
_DELTA_BITS: Final = 27
_DELTA_MASK: Final = (1 << _DELTA_BITS) - 1
_SIZE_MASK: Final = (1 << 27) - 1
_MISSED_EVENTS: Final = 1 << 31
_MISSED_STORED: Final = 1 << 30
# An absolute stamp has 59 bits; the five above them are restored from the time before it (`rb_fix_abs_ts`).
_STAMP_BITS: Final = 59
_STAMP_TOP: Final = -(1 << _STAMP_BITS)


@compiled(numba.uint32)
def _swapped(word: Any) -> Any:
    half = word >> np.uint32(16) | word << np.uint32(16)
    return half >> np.uint32(8) & np.uint32(0x00FF00FF) | half << np.uint32(8) & np.uint32(0xFF00FF00)


# The word from byte `at` on.
@compiled(_FOURS, _INT, numba.boolean)
def _u32(fours: Any, at: Any, swap: Any) -> Any:
    word = np.uint32(fours[np.uint64(at)])
    return np.int64(_swapped(word) if swap else word)


@compiled(_FOURS, _INT, _LAYOUT)
def _i64(fours: Any, at: Any, layout: Any) -> Any:
    first, second = _u32(fours, at, layout[4]), _u32(fours, at + 4, layout[4])
    return first << 32 | second if layout[3] else second << 32 | first


@compiled(_FOURS, _LAYOUT)
def _page_header(fours: Any, layout: Any) -> Any:
    data_offset, commit_offset, commit_bytes, big, swap = layout
    page_bytes = len(fours) + 3
    commit = _u32(fours, commit_offset + (4 if big and commit_bytes == 8 else 0), swap)
    end = data_offset + (commit & _SIZE_MASK)
    fault, lost = NO_FAULT, 0
    if end > page_bytes:
        fault, end = FAULT_COMMIT, data_offset
    if commit & _MISSED_EVENTS:
        if commit & _MISSED_STORED and fault == NO_FAULT and end + commit_bytes <= page_bytes:
            lost = _i64(fours, end, layout) if commit_bytes == 8 else _u32(fours, end, swap)
        if lost <= 0:
            lost = LOST_UNKNOWN
    return _i64(fours, 0, layout), end, fault, lost


@compiled(_FOURS, _INT, _INT, _LAYOUT, _INT, EVENTS, _BY_PAGE, _INT32S, _INT64S)
def _walk_page(  # noqa: C901 - one branch per type of record
    fours: Any, number: Any, base: Any, layout: Any, row: Any, columns: Any, by_page: Any, least: Any, counts: Any
) -> Any:
    page_of, position_of, ts_of, id_of, start_of, length_of = columns
    first, at, big, swap = row, layout[0], layout[3], layout[4]
    ts, end, fault, lost = _page_header(fours, layout)
    while at < end:
        # Every type but the short events has a second word.
        word = _u32(fours, at, swap) if at + 4 <= end else 0
        kind, delta = (word >> 27, word & _DELTA_MASK) if big else (word & 31, word >> 5)
        short = 0 < kind < _PADDING
        if at + (4 if short else 8) > end:
            fault = FAULT_BEYOND
            break
        extra = 4 * kind if short else _u32(fours, at + 4, swap)
        if kind == _TIME_EXTEND:
            ts += (extra << _DELTA_BITS) + delta
            at += 8
            continue
        if kind == _TIME_STAMP:
            stamp = (extra << _DELTA_BITS | delta) & ~_STAMP_TOP
            if ts & _STAMP_TOP:
                stamp |= ts & _STAMP_TOP
                if stamp < ts:
                    stamp += 1 << _STAMP_BITS
            ts = stamp
            at += 8
            continue
        # The length word counts itself; of an event also its id must be there.
        if kind == _PADDING and delta == 0:
            fault = FAULT_PADDING
            break
        if not short and extra < (4 if kind == _PADDING else 6):
            fault = FAULT_ZEROED if word == 0 and extra == 0 else FAULT_LENGTH
            break
        after = at + 4 + ((extra + 3) & ~3)
        if after > end:
            fault = FAULT_BEYOND
            break
        # `rb_event_discard` puts a delta of 1 for 0: that one is no time (`check_buffer`).
        if kind != _PADDING or delta != 1:
            ts += delta
        if kind != _PADDING:
            start, length = (at + 4, extra) if short else (at + 8, extra - 4)
            slot = np.uint64(row)
            page_of[slot], position_of[slot], ts_of[slot] = number, row - first, ts
            # An id is followed by two more bytes of the event, or by padding.
            head = _u32(fours, start, swap)
            event_id = np.uint64(head >> 16 if big else head & 0xFFFF)
            id_of[slot] = event_id
            if length >= least[event_id]:
                counts[event_id] += 1
            start_of[slot], length_of[slot] = base + start, length
            row += 1
        at = after
    events, losses, faults, fault_at = by_page
    events[number], losses[number], faults[number], fault_at[number] = row - first, lost, fault, at
    return row


@compiled(
    _FOURS,
    _INT,
    numba.types.Tuple((_INT, _INT, _INT, _INT, numba.boolean, numba.boolean)),
    EVENTS,
    _BY_PAGE,
    _INT32S,
    _INT64S,
)
def walk(fours: Any, pages: Any, layout: Any, columns: Any, by_page: Any, least: Any, counts: Any) -> Any:
    """Fill `columns` with the data events of `pages` pages and `by_page` with what each page says.

    `fours` are the four bytes from each byte on; `layout` is (page_bytes, data_offset, commit_offset, commit_bytes,
    big, swap), the last says whether numbers are in the other order than this machine's. `columns` are (page, position,
    ts, id, start, length), `by_page` (events, lost, fault, fault_at). By id `least` says how many bytes a whole event
    has, and `counts`, all 0 before, how many whole ones there are. Returns the number of events.
    """
    page_bytes, row = layout[0], 0
    for number in range(pages):
        base = number * page_bytes
        row = _walk_page(
            fours[base : base + page_bytes - 3], number, base, layout[1:], row, columns, by_page, least, counts
        )
    return row
