"""The compiled loop that cuts columns out of trace events.

Nothing is exported to users of the decoder; `ftrace_cut` checks the arguments and allocates. Why numba: `ftrace_loops`.

It reads nothing outside what it was given: what is cut out of an event lies within the least length of its kind, which
is compared with the event's own. With NUMBA_BOUNDSCHECK=1 in the environment the compiled code raises IndexError for
any index outside an array; the fuzzing tests run in that mode too.
"""

from typing import Any, Final

import numba
import numpy as np

from consumers.compiled import compiled
from consumers.decode.ftrace_loops import EVENTS
from consumers.decode.slice_loops import pair_slot

_INT: Final = numba.int64
# What is only read may be read-only, and at any address.
_OCTETS: Final = numba.types.Array(numba.uint8, 1, "C", readonly=True)
_TWOS, _FOURS, _EIGHTS = (
    numba.types.Array(kind, 1, "A", readonly=True, aligned=False) for kind in (numba.uint16, numba.uint32, numba.uint64)
)
_INT32S, _INT64S = numba.int32[::1], numba.int64[::1]
_UINT8S, _UINT16S, _UINT32S, _UINT64S = numba.uint8[::1], numba.uint16[::1], numba.uint32[::1], numba.uint64[::1]
_BY_PAGE: Final = numba.types.Tuple((_INT64S, _INT64S))
_VIEWS: Final = numba.types.Tuple((_OCTETS, _TWOS, _FOURS, _EIGHTS))
_OUT: Final = numba.types.Tuple((_UINT8S, _UINT16S, _UINT32S, _UINT64S))
_KINDS: Final = numba.types.Tuple((_INT32S, _INT64S, _INT64S, _INT64S))
_BLOCK: Final = numba.types.Tuple((_UINT32S, _UINT64S, _INT32S, _INT64S, _INT64S, _INT32S))
_PLAN: Final = numba.types.Tuple((_INT64S, _INT64S, _INT64S, _INT64S, _INT64S))
_TEXTS: Final = numba.types.Tuple((_INT32S, _UINT64S, _UINT64S, _INT64S, _INT64S, _INT64S, _INT64S, _UINT8S))
# So many events at a time are put into the order of their kinds: their pages stay in the cache meanwhile.
_BLOCK_EVENTS: Final = 4096
# Where the values of a column come from: a number of the payload, or the number of a text in it; the number, time of
# arrival or index of the event's page; its own position, time, beginning or length. Or what somebody else puts there.
FROM_PAYLOAD: Final = 0
FROM_TEXT: Final = 1
FROM_NUMBER: Final = 2
FROM_ARRIVAL: Final = 3
FROM_PAGE: Final = 4
FROM_POSITION: Final = 5
FROM_TS: Final = 6
FROM_START: Final = 7
FROM_LENGTH: Final = 8
FROM_ELSEWHERE: Final = 9


@compiled(_VIEWS, _UINT64S, _INT, _INT, _INT, _INT, _OUT)
def _cut_payload(views: Any, starts: Any, count: Any, offset: Any, size: Any, to: Any, columns: Any) -> None:
    # Where indices are unsigned nobody looks whether one of them counts from the end.
    behind, place = np.uint64(offset), np.uint64(to)
    if size == 8:
        for i in range(np.uint64(count)):
            columns[3][place + i] = views[3][starts[i] + behind]
    elif size == 4:
        for i in range(np.uint64(count)):
            columns[2][place + i] = views[2][starts[i] + behind]
    elif size == 2:
        for i in range(np.uint64(count)):
            columns[1][place + i] = views[1][starts[i] + behind]
    else:
        for i in range(np.uint64(count)):
            columns[0][place + i] = views[0][starts[i] + behind]


@compiled(EVENTS, _BY_PAGE, _UINT32S, _INT, _INT, _INT, _UINT64S)
def _cut_place(  # noqa: C901 - one loop for each source
    events: Any, by_page: Any, order: Any, count: Any, source: Any, to: Any, column: Any
) -> None:
    page_of, _, ts_of, _, start_of, length_of = events
    number_of, arrival_of = by_page
    place = np.uint64(to)
    if source == FROM_TS:
        for i in range(np.uint64(count)):
            column[place + i] = np.uint64(ts_of[order[i]])
    elif source == FROM_NUMBER:
        for i in range(np.uint64(count)):
            column[place + i] = np.uint64(number_of[page_of[order[i]]])
    elif source == FROM_ARRIVAL:
        for i in range(np.uint64(count)):
            column[place + i] = np.uint64(arrival_of[page_of[order[i]]])
    elif source == FROM_PAGE:
        for i in range(np.uint64(count)):
            column[place + i] = np.uint64(page_of[order[i]])
    elif source == FROM_START:
        for i in range(np.uint64(count)):
            column[place + i] = np.uint64(start_of[order[i]])
    else:
        for i in range(np.uint64(count)):
            column[place + i] = np.uint64(length_of[order[i]])


@compiled(_EIGHTS, _UINT64S, _INT, _INT, _INT, _INT, _UINT32S, _TEXTS, _INT, _UINT64S)
def _cut_text(
    eights: Any,
    starts: Any,
    count: Any,
    offset: Any,
    size: Any,
    to: Any,
    column: Any,
    texts: Any,
    text: Any,
    seeds: Any,
) -> None:
    slots, lefts, rights, first_slots, slot_counts, first_entries, entry_counts, full = texts
    slot_count, known = slot_counts[text], entry_counts[text]
    table = slots[first_slots[text] : first_slots[text] + slot_count]
    left = lefts[first_entries[text] : first_entries[text] + slot_count // 2]
    right = rights[first_entries[text] : first_entries[text] + slot_count // 2]
    head, tail, place = np.uint64(offset), np.uint64(offset + size - 8), np.uint64(to)
    mask = np.uint64(slot_count - 1)
    for i in range(np.uint64(count)):
        first, second = eights[starts[i] + head], eights[starts[i] + tail]
        slot = np.uint64(pair_slot(first, second, seeds, slot_count))
        code = table[slot]
        while code >= 0 and (left[np.uint32(code)] != first or right[np.uint32(code)] != second):
            slot = (slot + np.uint64(1)) & mask
            code = table[slot]
        if code < 0:
            code = known
            if known == slot_count // 2:
                full[text] = 1
                break
            table[slot], left[code], right[code] = code, first, second
            known += 1
        column[place + i] = code
    entry_counts[text] = known


@compiled(EVENTS, _INT, _INT, _KINDS, _BLOCK, _INT64S, _INT)
def _order(events: Any, first: Any, end: Any, kinds: Any, block: Any, others: Any, found: Any) -> Any:
    """Put the events from `first` to `end` into the order of their kinds; return how many kinds, and `found` anew."""
    _, _, _, id_of, start_of, length_of = events
    kind_of, least, _, _ = kinds
    order, starts, kind_at, counts, begins, present = block
    different = 0
    for row in range(first, end):
        kind = kind_of[id_of[row]]
        if kind >= 0 and length_of[row] < least[kind]:
            kind = -1
        kind_at[row - first] = kind
        if kind < 0:
            others[found] = row
            found += 1
            continue
        if counts[kind] == 0:
            present[different] = kind
            different += 1
        counts[kind] += 1
    at = 0
    for i in range(different):
        begins[present[i]] = at
        at += counts[present[i]]
    for row in range(first, end):
        kind = kind_at[row - first]
        if kind >= 0:
            slot = begins[kind]
            begins[kind] = slot + 1
            order[slot], starts[slot] = row, start_of[row]
    return different, found


@compiled(_VIEWS, EVENTS, _BY_PAGE, _KINDS, _PLAN, _OUT, _UINT64S, _INT64S, _TEXTS, _UINT64S)
def cut(
    views: Any,
    events: Any,
    by_page: Any,
    kinds: Any,
    plan: Any,
    columns: Any,
    passing: Any,
    others: Any,
    texts: Any,
    seeds: Any,
) -> Any:
    """Fill columns with what is wanted of each event of a kind; return how many of `others` are filled.

    `views` are the bytes, and the two, four and eight bytes from each byte on; `events` is what `walk` fills, `by_page`
    number and time of arrival. `kinds` are (kind by id, -1 for none; by kind the least length, the first of its
    columns, and how many events it has had, zeros at first); `plan` has for each column (source, offset in the payload,
    size, its first place, which text). `columns` is one piece of memory as numbers of each size, `passing` another one
    of eight bytes, for FROM_PAGE, FROM_START and FROM_LENGTH; places count numbers of the column's own size. What is of
    no kind, or shorter than the least, is in `others`.

    `texts` are hash tables of texts as their first and last eight bytes: (slots, -1 where empty, firsts, lasts; by text
    its first slot, how many it has, a power of two, its first entry, of which it may have half as many, how many it
    has, and whether it was full, so that its column is not whole).
    """
    _, least, first_column, rows = kinds
    sources, offsets, sizes, places, text_of = plan
    order, starts = np.empty(_BLOCK_EVENTS, np.uint32), np.empty(_BLOCK_EVENTS, np.uint64)
    kind_at, present = np.empty(_BLOCK_EVENTS, np.int32), np.empty(_BLOCK_EVENTS, np.int32)
    counts, begins = np.zeros(len(least), np.int64), np.empty(len(least), np.int64)
    block = (order, starts, kind_at, counts, begins, present)
    position_of, found = events[1], 0
    for first in range(0, len(position_of), _BLOCK_EVENTS):
        end = min(first + _BLOCK_EVENTS, len(position_of))
        different, found = _order(events, first, end, kinds, block, others, found)
        for i in range(different):
            kind = present[i]
            count, last = counts[kind], begins[kind]
            own_order, own_starts = order[last - count : last], starts[last - count : last]
            for column in range(first_column[kind], first_column[kind + 1]):
                source, offset, size = sources[column], offsets[column], sizes[column]
                to = places[column] + rows[kind]
                if source == FROM_PAYLOAD:
                    _cut_payload(views, own_starts, count, offset, size, to, columns)
                elif source == FROM_TEXT:
                    text = text_of[column]
                    _cut_text(views[3], own_starts, count, offset, size, to, columns[2], texts, text, seeds)
                elif source == FROM_POSITION:
                    place = np.uint64(to)
                    for j in range(np.uint64(count)):
                        columns[2][place + j] = np.uint32(position_of[own_order[j]])
                elif source in (FROM_PAGE, FROM_START, FROM_LENGTH):
                    _cut_place(events, by_page, own_order, count, source, to, passing)
                elif source != FROM_ELSEWHERE:
                    _cut_place(events, by_page, own_order, count, source, to, columns[3])
            rows[kind] += count
            counts[kind] = 0
    return found


@compiled(_INT32S, _UINT64S, _UINT64S, _INT, _UINT64S)
def index_texts(slots: Any, lefts: Any, rights: Any, count: Any, seeds: Any) -> None:
    """Put the numbers of `count` different texts into `slots`, at least twice as many and all of them -1 before."""
    for code in range(count):
        slot = pair_slot(lefts[code], rights[code], seeds, len(slots))
        while slots[slot] >= 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = code
