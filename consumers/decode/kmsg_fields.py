"""Dictionary lines of /dev/kmsg records, ` KEY=value` each, into maps: many records at once.

Source: Documentation/ABI/testing/dev-kmsg. Drivers attach SUBSYSTEM and DEVICE to what they say about a device, so a
tenth of a kernel's lines can have them; the usual ones cost no Python object.
"""

from typing import Any, Final

import numpy as np
import pyarrow as pa

from consumers.decode.kmsg_text import unescape
from consumers.decode.slices import Bytes, Ints, Mask, between, contents, firsts

TYPE: Final = pa.map_(pa.string(), pa.string())


def dictionary(lines: bytes) -> list[tuple[str, str]]:
    """Return the keys and values of dictionary lines, in order of first sight.

    A line without `=` is a key with an empty value; the values of a key that comes again are joined by a newline.
    """
    fields: dict[str, list[str]] = {}
    for line in lines.split(b"\n"):
        if line:
            key, _, value = line.removeprefix(b" ").partition(b"=")
            name, text = (unescape(part).decode("utf-8", "replace") for part in (key, value))
            fields.setdefault(name, []).append(text)
    return [(name, "\n".join(values)) for name, values in fields.items()]


def maps(data: Any, starts: Ints, ends: Ints) -> pa.Array:
    """Return one map for each block of dictionary lines `data[starts[i]:ends[i]]`, as `dictionary` reads it."""
    blocks = between(data, starts, ends, pa.binary()).take(pa.array(2 * np.arange(len(starts))))
    offsets, octets = contents(blocks)
    row, line_start, line_end = _lines(offsets, octets)
    equals = np.flatnonzero(octets == ord("="))
    key_end = np.append(equals, offsets[-1])[np.searchsorted(equals, line_start)]
    key_end = np.minimum(key_end, line_end)
    value_start = np.minimum(key_end + 1, line_end)
    buffer = pa.py_buffer(octets)
    slow = _slow(offsets, octets, row, _taken(buffer, line_start, key_end, pa.binary()))
    fast = ~slow[row]
    keys = _taken(buffer, line_start[fast], key_end[fast], pa.string())
    values = _taken(buffer, value_start[fast], line_end[fast], pa.string())
    map_offsets = np.zeros(len(blocks) + 1, np.int32)
    np.cumsum(np.bincount(row[fast], minlength=len(blocks)), out=map_offsets[1:])
    found = pa.MapArray.from_arrays(pa.array(map_offsets), keys, values)
    rest = np.flatnonzero(slow)
    if not len(rest):
        return found
    indices = np.arange(len(blocks))
    indices[rest] = len(blocks) + np.arange(len(rest))
    others = pa.array([dictionary(blocks[i].as_py()) for i in rest.tolist()], TYPE)
    return pa.concat_arrays([found, others]).take(pa.array(indices))


# Block, start and end of every line that is not empty, without its leading space.
def _lines(offsets: Ints, octets: Bytes) -> tuple[Ints, Ints, Ints]:
    newlines = np.flatnonzero(octets == ord("\n"))
    start = np.sort(np.concatenate([offsets[:-1], newlines + 1]), kind="stable")
    start = start[firsts(start)]
    start = start[start < offsets[-1]]
    row = np.searchsorted(offsets, start, side="right") - 1
    end = np.append(newlines, offsets[-1])[np.searchsorted(newlines, start)]
    end = np.minimum(end, offsets[row + 1])
    some = end > start
    row, start, end = row[some], start[some], end[some]
    return row, start + (octets[start] == ord(" ")), end


# The blocks that need a closer look: an escape, a byte that may be no UTF-8, a key that comes again.
def _slow(offsets: Ints, octets: Bytes, row: Ints, keys: pa.Array) -> Mask:
    slow = np.zeros(len(offsets) - 1, np.bool_)
    special = np.flatnonzero((octets == ord("\\")) | (octets >= 0x80))
    slow[np.searchsorted(offsets, special, side="right") - 1] = True
    codes = keys.dictionary_encode()
    pairs = np.sort(row * len(codes.dictionary) + codes.indices.to_numpy(), kind="stable")
    again = pairs[1:][pairs[1:] == pairs[:-1]]
    slow[again // max(1, len(codes.dictionary))] = True
    return slow


def _taken(buffer: Any, starts: Ints, ends: Ints, type_: pa.DataType) -> pa.Array:
    return between(buffer, starts, ends, type_).take(pa.array(2 * np.arange(len(starts))))
