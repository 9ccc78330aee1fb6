"""Headers of /dev/kmsg records, `prio,seq,ts_us,flag[,caller=...];`, parsed for many records at once.

The first bytes of every record are loaded as 64-bit words; where the separators are becomes one bit mask per record,
and numbers are read eight digits at a time. What is not of the usual form is left to `parse_one`.
"""

import re
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from consumers.decode.slices import Bytes, Ints, Mask
from schemas import limits
from schemas.errors import BadInputError

Words = npt.NDArray[np.uint64]
#: Bytes that must lie behind the last record: a window of 64 and a word after its end are loaded, and masked.
PAD_BYTES: Final = 80
_WINDOWS_BYTES: Final = (32, 64)
_CALLER: Final = b"caller="
_CALLER_WORD: Final = np.uint64(int.from_bytes(_CALLER, "little"))
_CALLER_MASK: Final = np.uint64((1 << 56) - 1)
# By the number of digits in a word: how far up they are moved, and which bits of them count.
_SHIFTS: Final = np.array([0, 56, 48, 40, 32, 24, 16, 8, 0], np.uint64)
_NIBBLES: Final = np.array([0] + [0x0F0F0F0F0F0F0F0F] * 8, np.uint64)
#: The facility is `prio >> 3` in an int16.
PRIO_MAX: Final = (1 << 18) - 1
TS_US_MAX: Final = limits.INT64_MAX // 1000
_HEADER: Final = re.compile(rb"([0-9]{1,20}),([0-9]{1,20}),([0-9]{1,20}),([ -+\--:<-~]*)((?:,[ -+\--:<-~]*)*);")


class Headers(NamedTuple):
    """Columns over records; where `ok` is false the rest is undefined. Positions are in the whole buffer.

    `caller_start` is 0 for a record without a caller.
    """

    ok: Mask
    prio: Ints
    seq: Ints
    ts_us: Ints
    flag: Bytes
    caller_start: Ints
    caller_end: Ints
    text_start: Ints


class Header(NamedTuple):
    """One header; `size_bytes` includes the semicolon."""

    prio: int
    seq: int
    ts_us: int
    flags: str
    caller: str | None
    extra: str | None
    size_bytes: int


def parse_one(record: bytes) -> Header:
    """Return the header of one record of any form.

    Raises:
        BadInputError: `reason` is `record`: no header, or a number out of bounds.
    """
    match = _HEADER.match(record)
    if match is None:
        raise BadInputError("record", f"no header in {record[:60]!r}")
    prio, seq, ts_us = (int(match[group]) for group in (1, 2, 3))
    if prio > PRIO_MAX or seq > limits.INT64_MAX or ts_us > TS_US_MAX:
        raise BadInputError("record", f"a number is out of bounds in {record[:60]!r}")
    caller, others = None, []
    for field in match[5].decode("ascii").split(",")[1:]:
        if caller is None and field.startswith("caller="):
            caller = field.removeprefix("caller=")
        else:
            others.append(field)
    extra = ",".join(others) if others else None
    return Header(prio, seq, ts_us, match[4].decode("ascii"), caller, extra, match.end())


def parse(data: bytes, starts: Ints, sizes: Ints) -> Headers:
    """Return the headers of the records at `starts`; `PAD_BYTES` follow the last."""
    headers = _parse(data, starts, sizes, _WINDOWS_BYTES[0])
    rest = np.flatnonzero(~headers.ok)
    if len(rest):
        wider = _parse(data, starts[rest], sizes[rest], _WINDOWS_BYTES[1])
        for name in Headers._fields:
            getattr(headers, name)[rest] = getattr(wider, name)
    return headers


def _parse(data: bytes, starts: Ints, sizes: Ints, window_bytes: int) -> Headers:
    # Overlapping and unaligned: words[i] is data[i:i+8]. A window is one opaque element, because to copy it word by
    # word takes seven times as long.
    words = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
    windows = np.ndarray((len(data) - window_bytes + 1,), f"V{window_bytes}", data, strides=(1,))
    window = windows[starts].view("<u8").reshape(len(starts), window_bytes // 8)
    octets = window.view(np.uint8)
    semicolons = _bits(octets == ord(";"), window_bytes)
    commas = _bits(octets == ord(","), window_bytes)
    digits = _bits((octets - np.uint8(ord("0"))) < 10, window_bytes)
    before = _below(semicolons)
    size = _count(before)
    separators = commas & before
    fields = _count(separators)
    comma_1 = _count(_below(separators))
    rest = separators & (separators - 1)
    comma_2 = _count(_below(rest))
    rest &= rest - 1
    numbers = _below(rest)
    comma_3 = _count(numbers)
    flags_end = _count(_below((rest & (rest - 1)) | semicolons))
    # Between the first two commas and after them nothing but digits, and each number within its words.
    ok: Mask = (semicolons != 0) & (size < sizes) & ((fields == 3) | (fields == 4))
    ok &= ((digits | separators) & numbers) == numbers
    ok &= (comma_1 >= 1) & (comma_1 <= 8) & (flags_end - comma_3 == 2)
    seq_digits, ts_digits = comma_2 - comma_1 - 1, comma_3 - comma_2 - 1
    ok &= (seq_digits >= 1) & (seq_digits <= 16) & (ts_digits >= 1) & (ts_digits <= 16)
    printable = np.uint8(ord("~") - ord(" "))
    flag = octets[np.arange(len(starts)), np.minimum(comma_3 + 1, window_bytes - 1)]
    ok &= (flag - np.uint8(ord(" "))) <= printable
    prio = _eight_digits(window[:, 0], comma_1)
    ts_us = _digits(words, starts + comma_3, ts_digits)
    ok &= (prio <= PRIO_MAX) & (ts_us <= TS_US_MAX)
    caller_start, caller_end = np.zeros_like(starts), np.zeros_like(starts)
    callers = np.flatnonzero(ok & (fields == 4))
    if len(callers):
        texts = _bits((octets[callers] - np.uint8(ord(" "))) <= printable, window_bytes)
        caller_start[callers] = starts[callers] + flags_end[callers] + 1 + len(_CALLER)
        caller_end[callers] = starts[callers] + size[callers]
        named = (words[caller_start[callers] - len(_CALLER)] & _CALLER_MASK) == _CALLER_WORD
        ok[callers] = named & ((texts & before[callers]) == before[callers])
    seq = _digits(words, starts + comma_2, seq_digits)
    return Headers(ok, prio, seq, ts_us, flag, caller_start, caller_end, starts + size + 1)


# One bit per byte of the window, the first byte lowest.
def _bits(flags: Mask, window_bytes: int) -> Words:
    return np.packbits(flags.ravel(), bitorder="little").view(f"<u{window_bytes // 8}")


# All bits below the lowest set one; all bits where none is set.
def _below(bits: Words) -> Words:
    return (bits - 1) & ~bits


def _count(bits: Words) -> Ints:
    return np.bitwise_count(bits).astype(np.int64)


# The number whose `count` (1 to 16) digits end just before `ends`.
def _digits(words: Words, ends: Ints, count: Ints) -> Ints:
    low = np.minimum(count, 8)
    value = _eight_digits(words[ends - low], low)
    if (count > 8).any():
        value += _eight_digits(words[ends - count], count - 8) * 100_000_000
    return value


# The number in the first `count` bytes of `word`, at most eight; 0 for none. Digits become pairs, then fours, then one.
def _eight_digits(word: Words, count: Ints) -> Ints:
    value = (word << _SHIFTS.take(count, mode="clip")) & _NIBBLES.take(count, mode="clip")
    value = (value * 10 + (value >> 8)) & np.uint64(0x00FF00FF00FF00FF)
    value = (value * 100 + (value >> 16)) & np.uint64(0x0000FFFF0000FFFF)
    value = (value * 10_000 + (value >> 32)) & np.uint64(0xFFFFFFFF)
    return value.astype(np.int64)
