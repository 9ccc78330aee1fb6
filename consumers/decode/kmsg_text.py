r"""Texts of /dev/kmsg records: `\xNN` is one byte, any other backslash is itself.

Source: Documentation/ABI/testing/dev-kmsg. A record cut at the reader's limit may end within an escape, which stays.
"""

import re
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumers.decode.slices import Mask, contents

_ESCAPE: Final = re.compile(rb"\\x([0-9a-fA-F]{2})")
_TAIL_BYTES: Final = 3  # of an escape, after the backslash; `contents` pads by more
# The value of a hexadecimal digit; 16 for every other byte.
_HEX: Final = np.full(256, 16, np.uint8)
_HEX[[*b"0123456789abcdefABCDEF"]] = [*range(16), *range(10, 16)]


class Texts(NamedTuple):
    """`message` as string; `raw` as binary, null where `message` says the same."""

    message: pa.Array
    raw: pa.Array


def unescape(text: bytes) -> bytes:
    r"""Return `text` with every whole `\xNN` replaced by its byte."""
    if b"\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), text)


def texts(escaped: pa.Array) -> Texts:
    """Return the decoded form of `escaped`, a binary array without nulls."""
    unescaped, torn = _unescape_all(escaped)
    try:
        message = unescaped.cast(pa.string())
    except pa.ArrowInvalid:
        values, invalid = _replace_invalid(unescaped)
        message = pa.array(values, pa.string())
        torn[invalid] = True
    return Texts(message, pc.if_else(pa.array(torn), unescaped, pa.scalar(None, pa.binary())))


def _replace_invalid(unescaped: pa.Array) -> tuple[list[str], list[int]]:
    values, invalid = [], []
    for i, value in enumerate(unescaped.to_pylist()):
        try:
            values.append(value.decode())
        except UnicodeDecodeError:
            values.append(value.decode("utf-8", "replace"))
            invalid.append(i)
    return values, invalid


# All texts at once: escapes never overlap, as each holds one backslash. Also says where a backslash begins none.
def _unescape_all(escaped: pa.Array) -> tuple[pa.Array, Mask]:
    offsets, octets = contents(escaped)
    size = int(offsets[-1])
    at = np.flatnonzero(octets == ord("\\"))
    rows = np.searchsorted(offsets, at, side="right") - 1
    # Zero bytes follow the last text, and a text's end is checked before its digits are believed.
    high, low = _HEX[octets[at + 2]], _HEX[octets[at + 3]]
    whole = (octets[at + 1] == ord("x")) & (high < 16) & (low < 16) & (at + _TAIL_BYTES < offsets[rows + 1])
    torn = np.zeros(len(escaped), np.bool_)
    torn[rows[~whole]] = True
    at = at[whole]
    octets[at] = high[whole] << 4 | low[whole]
    keep = np.ones(size, np.bool_)
    for i in range(1, _TAIL_BYTES + 1):
        keep[at + i] = False
    removed = np.zeros(len(offsets), np.int64)
    removed[1:] = np.cumsum(np.bincount(rows[whole], minlength=len(escaped))) * _TAIL_BYTES
    new_offsets = (offsets - removed).astype(np.int32)
    buffers = [None, pa.py_buffer(new_offsets), pa.py_buffer(octets[:size][keep])]
    return pa.Array.from_buffers(pa.binary(), len(escaped), buffers), torn
