"""The compiled loops of the export: columns of events to messages of protobuf, and messages in order to bundles.

What is written is protobuf's wire format (protobuf.dev, "Encoding"): a key, `number << 3 | type`, then a varint of
seven bits a byte or a length and so many bytes. Every length is computed before anything is written, and `out` is at
least as long as `size_max` says, so no byte is written outside it. With NUMBA_BOUNDSCHECK=1 the compiled code checks.
"""

from typing import Any, Final

import numba
import numpy as np

from consumers.compiled import compiled

#: Sorts of column: a number, a slice of `octets`, a slice of `numbers` whose elements are written one by one.
NUMBER: Final = 0
SLICE: Final = 1
NUMBERS: Final = 2
_INT: Final = numba.int64
_OCTETS: Final = numba.types.Array(numba.uint8, 1, "C", readonly=True)
_INTS: Final = numba.types.Array(numba.int64, 1, "C", readonly=True)
_TABLE: Final = numba.types.Array(numba.int64, 2, "C", readonly=True)
_MASK: Final = numba.types.Array(numba.uint8, 2, "C", readonly=True)
_UINT8S, _INT64S = numba.uint8[::1], numba.int64[::1]
_PLAN: Final = numba.types.Tuple((_INTS, _INTS, _INTS, _OCTETS, _INTS))
_COLUMNS: Final = numba.types.Tuple((_TABLE, _TABLE, _MASK, _OCTETS, _INTS))

# Keys: `event` of FtraceEventBundle; `timestamp`, `pid`, `common_flags` of FtraceEvent; `field` of GenericFtraceEvent.
_EVENT: Final = 2 << 3 | 2
_TIMESTAMP: Final = 1 << 3
_PID: Final = 2 << 3
_FLAGS: Final = 5 << 3
_FIELD: Final = 2 << 3 | 2


@compiled(numba.uint64)
def _size(value: Any) -> Any:
    found = 1
    while value >= np.uint64(128):
        value >>= np.uint64(7)
        found += 1
    return found


@compiled(_UINT8S, _INT, numba.uint64)
def _put(out: Any, at: Any, value: Any) -> Any:
    while value >= np.uint64(128):
        out[at] = np.uint8(value & np.uint64(127) | np.uint64(128))
        value >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@compiled(_UINT8S, _INT, _OCTETS, _INT, _INT)
def _copy(out: Any, at: Any, octets: Any, start: Any, length: Any) -> Any:
    for i in range(length):
        out[at + i] = octets[start + i]
    return at + length


# Of what follows the prefix of a column: the bytes of one value, without those around it.
@compiled(_INT, _INT, _INT, _INT)
def _value_size(sort: Any, prefix: Any, value: Any, length: Any) -> Any:
    if sort == SLICE:
        return prefix + _size(np.uint64(length)) + length
    return prefix + _size(np.uint64(value))


@compiled(_PLAN, _COLUMNS, _INT, _INT)
def _column_size(plan: Any, columns: Any, column: Any, row: Any) -> Any:
    sorts, wrapped, prefix_at, _, _ = plan
    values, lengths, present, _, numbers = columns
    if not present[column, row]:
        return 0
    prefix, value, length = prefix_at[column + 1] - prefix_at[column], values[column, row], lengths[column, row]
    if sorts[column] != NUMBERS:
        size = _value_size(sorts[column], prefix, value, length)
        return 1 + _size(np.uint64(size)) + size if wrapped[column] else size
    total = 0
    for i in range(length):
        size = prefix + _size(np.uint64(numbers[value + i]))
        total += 1 + _size(np.uint64(size)) + size if wrapped[column] else size
    return total


@compiled(_UINT8S, _INT, _PLAN, _COLUMNS, _INT, _INT)
def _put_column(out: Any, at: Any, plan: Any, columns: Any, column: Any, row: Any) -> Any:
    sorts, wrapped, prefix_at, prefixes, _ = plan
    values, lengths, present, octets, numbers = columns
    if not present[column, row]:
        return at
    start, prefix = prefix_at[column], prefix_at[column + 1] - prefix_at[column]
    value, length, sort = values[column, row], lengths[column, row], sorts[column]
    for i in range(length if sort == NUMBERS else 1):
        each = numbers[value + i] if sort == NUMBERS else value
        if wrapped[column]:
            out[at] = _FIELD
            at = _put(out, at + 1, np.uint64(_value_size(sort, prefix, each, length)))
        at = _copy(out, at, prefixes, start, prefix)
        if sort == SLICE:
            at = _put(out, at, np.uint64(length))
            at = _copy(out, at, octets, value, length)
        else:
            at = _put(out, at, np.uint64(each))
    return at


@compiled(_INTS, _INTS, _INTS, _PLAN, _COLUMNS, _UINT8S, _INT64S)
def encode(ts: Any, pids: Any, flags: Any, plan: Any, columns: Any, out: Any, starts: Any) -> Any:
    """Write one element `event` of a bundle for each row into `out`, and where each begins into `starts`.

    `flags` is -1 where there are none. `plan` is (sorts, wrapped, prefix_at, prefixes, head): of column i the sort,
    whether its values are messages of their own, and `prefixes[prefix_at[i]:prefix_at[i + 1]]`, written in front of
    each value; `head` is (key of the event, start and end in `prefixes` of what its message begins with). `columns` is
    (values, lengths, present, octets, numbers), the first three by column and row: a number; or where a slice begins,
    and its length. Returns the bytes written.
    """
    head = plan[4]
    at = 0
    for row in range(len(ts)):
        starts[row] = at
        inner = head[2] - head[1]
        for column in range(len(plan[0])):
            inner += _column_size(plan, columns, column, row)
        size = 2 + _size(np.uint64(ts[row])) + _size(np.uint64(pids[row]))
        size += _size(np.uint64(head[0])) + _size(np.uint64(inner)) + inner
        if flags[row] >= 0:
            size += 1 + _size(np.uint64(flags[row]))
        out[at] = _EVENT
        at = _put(out, at + 1, np.uint64(size))
        out[at] = _TIMESTAMP
        at = _put(out, at + 1, np.uint64(ts[row]))
        out[at] = _PID
        at = _put(out, at + 1, np.uint64(pids[row]))
        at = _put(out, at, np.uint64(head[0]))
        at = _put(out, at, np.uint64(inner))
        at = _copy(out, at, plan[3], head[1], head[2] - head[1])
        for column in range(len(plan[0])):
            at = _put_column(out, at, plan, columns, column, row)
        # Behind the event: readers look for the event right behind the pid.
        if flags[row] >= 0:
            out[at] = _FLAGS
            at = _put(out, at + 1, np.uint64(flags[row]))
    return at


@compiled(_OCTETS, _INTS, _INTS, _INTS, _UINT8S)
def gather(octets: Any, starts: Any, lengths: Any, order: Any, out: Any) -> None:
    """Copy the slices of `octets` into `out`, which is as long as all of them, in `order`."""
    at = 0
    for i in range(len(order)):
        at = _copy(out, at, octets, starts[order[i]], lengths[order[i]])
