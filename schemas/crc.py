"""CRC-32 (ISO-HDLC, as in zlib) by the quickest who is there, and that of bytes that are joined, from their parts'.

`crc(a + b) = shifted(crc(a), len(b)) ^ crc(b)`, and what follows from it: the checksum is linear over GF(2), a shift by
n bytes a multiplication by x^(8n) modulo the polynomial. Source: crc32_combine() of zlib, crc32.c.
"""

from array import array
from functools import cache
from typing import Final

try:
    from isal.isal_zlib import crc32
except ImportError:  # a guest may have the standard library alone: the same number, at a tenth of the speed
    from zlib import crc32

__all__ = ["WORTH_BYTES", "crc32", "shifted"]

_POLYNOMIAL: Final = 0xEDB88320
_ONE: Final = 1 << 31
#: Of so many bytes on it is less work than to read them.
WORTH_BYTES: Final = 1 << 15


def shifted(crc: int, size_bytes: int) -> int:
    """Return the share that bytes of this `crc` have in the checksum of them and `size_bytes` behind them."""
    place = 0
    while size_bytes:
        if size_bytes & 0xF:
            t = _table(place, size_bytes & 0xF)
            crc = (
                t[crc >> 28]
                ^ t[0x10 | crc >> 24 & 0xF]
                ^ t[0x20 | crc >> 20 & 0xF]
                ^ t[0x30 | crc >> 16 & 0xF]
                ^ t[0x40 | crc >> 12 & 0xF]
                ^ t[0x50 | crc >> 8 & 0xF]
                ^ t[0x60 | crc >> 4 & 0xF]
                ^ t[0x70 | crc & 0xF]
            )
        size_bytes >>= 4
        place += 1
    return crc


# The products of `_power(place, count)` with each value of each of the eight places of four bits, highest first. There
# are no more than six times fifteen of these for the lengths of frames, some 60 KiB.
@cache
def _table(place: int, count: int) -> "array[int]":
    # The product of each single bit, the highest first, is a shift of the one before.
    bits = [_power(place, count)]
    for _ in range(31):
        bits.append(_times_x(bits[-1]))
    table = array("I")
    for at in range(0, 32, 4):
        products = [0]
        for bit in reversed(bits[at : at + 4]):
            products += [each ^ bit for each in products]
        table.extend(products)
    return table


# x to the power of 8 * count * 16^place.
@cache
def _power(place: int, count: int) -> int:
    if count > 1:
        return _product(_power(place, count - 1), _power(place, 1))
    return _ONE >> 8 if place == 0 else _product(_power(place - 1, 15), _power(place - 1, 1))


# Of two polynomials whose highest powers are in the lowest bits.
def _product(a: int, b: int) -> int:
    found = 0
    while a:
        if a & _ONE:
            found ^= b
        a = a << 1 & 0xFFFFFFFF
        b = _times_x(b)
    return found


def _times_x(polynomial: int) -> int:
    return polynomial >> 1 ^ _POLYNOMIAL if polynomial & 1 else polynomial >> 1
