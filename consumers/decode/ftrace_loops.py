"""The compiled loops of the trace decoder: pages to columns of events.

Nothing is exported to users of the decoder; `ftrace_pages` checks their arguments and allocates.

Why numba: the walk is one branch per record, which NumPy can only do in lock-step over pages, thirty times slower; a
C extension would need a compiler wherever a collector is installed, numba brings its own.

No loop reads outside what it was given. Each page is a slice of its own and every read of it is behind a comparison
with `end`, which is compared with the length of the slice. With NUMBA_BOUNDSCHECK=1 in the environment the compiled
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
_OCTETS: Final = numba.types.Array(numba.uint8, 1, "C", readonly=True)
_INT32S, _INT64S, _UINT16S, _UINT8S = numba.int32[::1], numba.int64[::1], numba.uint16[::1], numba.uint8[::1]
_LAYOUT: Final = numba.types.Tuple((_INT, _INT, _INT, numba.boolean))
_COLUMNS: Final = numba.types.Tuple((_INT32S, _INT32S, _INT64S, _UINT16S, _INT64S, _INT32S))
_SORTED: Final = numba.types.Tuple((_INT32S, _INT64S, _INT32S, _INT64S, _INT64S, _INT64S, _INT64S))
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


@compiled(_OCTETS, _INT, numba.boolean)
def _u32(page: Any, at: Any, big: Any) -> Any:
    a, b, c, d = np.int64(page[at]), np.int64(page[at + 1]), np.int64(page[at + 2]), np.int64(page[at + 3])
    if big:
        return a << 24 | b << 16 | c << 8 | d
    return d << 24 | c << 16 | b << 8 | a


@compiled(_OCTETS, _INT, numba.boolean)
def _i64(page: Any, at: Any, big: Any) -> Any:
    first, second = _u32(page, at, big), _u32(page, at + 4, big)
    return first << 32 | second if big else second << 32 | first


@compiled(_OCTETS, _LAYOUT)
def _page_header(page: Any, layout: Any) -> Any:
    data_offset, commit_offset, commit_bytes, big = layout
    commit = _u32(page, commit_offset + (4 if big and commit_bytes == 8 else 0), big)
    end = data_offset + (commit & _SIZE_MASK)
    fault, lost = NO_FAULT, 0
    if end > len(page):
        fault, end = FAULT_COMMIT, data_offset
    if commit & _MISSED_EVENTS:
        if commit & _MISSED_STORED and fault == NO_FAULT and end + commit_bytes <= len(page):
            lost = _i64(page, end, big) if commit_bytes == 8 else _u32(page, end, big)
        if lost <= 0:
            lost = LOST_UNKNOWN
    return _i64(page, 0, big), end, fault, lost


@compiled(_OCTETS, _INT, _LAYOUT, _INT, _COLUMNS, _BY_PAGE)
def _walk_page(page: Any, number: Any, layout: Any, row: Any, columns: Any, by_page: Any) -> Any:  # noqa: C901 - one branch per type of record
    page_of, position_of, ts_of, id_of, start_of, length_of = columns
    first, base, at, big = row, number * len(page), layout[0], layout[3]
    ts, end, fault, lost = _page_header(page, layout)
    while at < end:
        # Every type but the short events has a second word.
        word = _u32(page, at, big) if at + 4 <= end else 0
        kind, delta = (word >> 27, word & _DELTA_MASK) if big else (word & 31, word >> 5)
        short = 0 < kind < _PADDING
        if at + (4 if short else 8) > end:
            fault = FAULT_BEYOND
            break
        extra = 4 * kind if short else _u32(page, at + 4, big)
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
            page_of[row], position_of[row], ts_of[row] = number, row - first, ts
            low, high = (page[start + 1], page[start]) if big else (page[start], page[start + 1])
            id_of[row] = np.int64(high) << 8 | low
            start_of[row], length_of[row] = base + start, length
            row += 1
        at = after
    events, losses, faults, fault_at = by_page
    events[number], losses[number], faults[number], fault_at[number] = row - first, lost, fault, at
    return row


@compiled(_OCTETS, _INT, numba.types.Tuple((_INT, _INT, _INT, _INT, numba.boolean)), _COLUMNS, _BY_PAGE)
def walk(data: Any, pages: Any, layout: Any, columns: Any, by_page: Any) -> Any:
    """Fill `columns` with the data events of `pages` pages and `by_page` with what each page says.

    `layout` is (page_bytes, data_offset, commit_offset, commit_bytes, big); `columns` are (page, position, ts, id,
    start, length), `by_page` (events, lost, fault, fault_at). Returns the number of events.
    """
    page_bytes, row = layout[0], 0
    for number in range(pages):
        page = data[number * page_bytes : (number + 1) * page_bytes]
        row = _walk_page(page, number, layout[1:], row, columns, by_page)
    return row


@compiled(_COLUMNS, _INT64S, _INT64S, _INT64S, _SORTED)
def sort_by_id(columns: Any, number_of: Any, arrival_of: Any, slots: Any, ordered: Any) -> None:
    """Put events into the order of their ids, those of one id as they came: one pass, where NumPy takes one a column.

    `columns` are as `walk` fills them, all of the same length as those of `ordered`: (page, number, position, ts,
    arrival, start, length); `number_of` and `arrival_of` are by page. `slots` has for each of 65,536 ids the row of its
    first event, and ends as that of the next id's.
    """
    page_of, position_of, ts_of, id_of, start_of, length_of = columns
    pages, numbers, positions, times, arrivals, starts, lengths = ordered
    for row in range(len(id_of)):
        page, slot = page_of[row], slots[id_of[row]]
        slots[id_of[row]] = slot + 1
        pages[slot], numbers[slot], arrivals[slot] = page, number_of[page], arrival_of[page]
        positions[slot], times[slot] = position_of[row], ts_of[row]
        starts[slot], lengths[slot] = start_of[row], length_of[row]
