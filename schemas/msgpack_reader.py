"""Reads msgpack piece by piece: each piece's type and length is looked at before anything of that size is made.

An ordinary unpacker builds whatever the bytes declare: nested arrays turn a kilobyte into megabytes. Here the caller
says what must come next. Source: the msgpack specification, whose format is told by an object's first byte.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import msgpack

from schemas import limits
from schemas.errors import BadInputError

#: Bytes of the value, and whether it is signed.
_INTEGERS: Final = {
    **{0xCC + i: (1 << i, False) for i in range(4)},
    **{0xD0 + i: (1 << i, True) for i in range(4)},
}
#: Bytes of the length that follows the first byte; the shortest forms carry it in the first byte itself.
_TEXTS: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BINARIES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_ARRAYS: Final = {0xDC: 2, 0xDD: 4}
_MAPS: Final = {0xDE: 2, 0xDF: 4}
_CONSTANTS: Final = {0xC0: None, 0xC2: False, 0xC3: True}
_DOUBLE: Final = 0xCB


class Reader:
    """Reads `data`; every method takes one piece, in order. `at` says how many bytes were taken.

    Raises:
        BadInputError: from every method, with `reason`: something else comes next, it is too long, or cut short.
    """

    __slots__ = ("_data", "_reason", "at")

    def __init__(self, data: bytes | bytearray, reason: str) -> None:
        self._data = data
        self._reason = reason
        self.at = 0

    def map_header(self, length_max: int) -> int:
        """Take the header of a map and return its number of entries, at most `length_max`."""
        first = self._first()
        length = first & 0x0F if first & 0xF0 == 0x80 else self._length(_MAPS, first, "a map")
        return self._at_most(length_max, length, "entries")

    def keys(self, length_max: int) -> Iterator[str]:
        """Take a map from texts of at most `length_max` entries: yield each key, whose value the caller takes then.

        Raises:
            BadInputError: a key is there twice, beside what `map_header` and `text` refuse.
        """
        known: set[str] = set()
        for _ in range(self.map_header(length_max)):
            key = self.text()
            if key in known:
                raise BadInputError(self._reason, f"{key!r:.40} is there twice")
            known.add(key)
            yield key

    def array_header(self, length_max: int) -> int:
        """Take the header of an array and return its number of elements, at most `length_max`."""
        first = self._first()
        length = first & 0x0F if first & 0xF0 == 0x90 else self._length(_ARRAYS, first, "an array")
        return self._at_most(length_max, length, "elements")

    def integer(self) -> int:
        """Take an integer that fits into signed 64 bits."""
        first = self._first()
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first not in _INTEGERS:
            self._refuse(f"an integer was expected, not first byte 0x{first:02x}")
        width_bytes, signed = _INTEGERS[first]
        value = int.from_bytes(self._bytes(width_bytes), "big", signed=signed)
        if value > limits.INT64_MAX:
            self._refuse(f"{value} does not fit into signed 64 bits")
        return value

    def optional_integer(self) -> int | None:
        """Take an integer, or nil for None."""
        return None if self._nil() else self.integer()

    def text(self, bytes_max: int = limits.TEXT_BYTES_MAX) -> str:
        """Take a text of at most `bytes_max` bytes of valid UTF-8."""
        first = self._first()
        size_bytes = first & 0x1F if first & 0xE0 == 0xA0 else self._length(_TEXTS, first, "a text")
        data = self._bytes(self._at_most(bytes_max, size_bytes, "bytes of text"))
        try:
            return data.decode()
        except UnicodeDecodeError as e:
            self._refuse(f"no UTF-8: {e.reason}")

    def optional_text(self, bytes_max: int = limits.TEXT_BYTES_MAX) -> str | None:
        """Take a text, or nil for None."""
        return None if self._nil() else self.text(bytes_max)

    def binary(self, bytes_max: int) -> bytes:
        """Take a bin of at most `bytes_max` bytes."""
        size_bytes = self._length(_BINARIES, self._first(), "a bin")
        return self._bytes(self._at_most(bytes_max, size_bytes, "bytes of bin"))

    def binary_size(self, bytes_max: int) -> int:
        """Pass over a bin of at most `bytes_max` bytes and return how many it has."""
        size_bytes = self._at_most(bytes_max, self._length(_BINARIES, self._first(), "a bin"), "bytes of bin")
        if self.at + size_bytes > len(self._data):
            self._refuse("cut short")
        self.at += size_bytes
        return size_bytes

    def optional_binary(self, bytes_max: int) -> bytes | None:
        """Take a bin, or nil for None."""
        return None if self._nil() else self.binary(bytes_max)

    def scalar(self) -> Any:
        """Take nil, a boolean, an integer, a double, a text or a bin; as long as the data is."""
        first = self._data[self.at] if self.at < len(self._data) else self._first()
        if first in _CONSTANTS or first == _DOUBLE:
            self.at += 1
            return _CONSTANTS[first] if first in _CONSTANTS else struct.unpack(">d", self._bytes(8))[0]
        if first in _TEXTS or first & 0xE0 == 0xA0:
            return self.text(len(self._data))
        return self.binary(len(self._data)) if first in _BINARIES else self.integer()

    def value(self, length_max: int) -> Any:
        """Take a scalar, or an array of scalars or a map from texts to scalars of at most `length_max` elements."""
        first = self._data[self.at] if self.at < len(self._data) else self._first()
        if first in _ARRAYS or first & 0xF0 == 0x90:
            return [self.scalar() for _ in range(self.array_header(length_max))]
        if first in _MAPS or first & 0xF0 == 0x80:
            return {name: self.scalar() for name in self.keys(length_max)}
        return self.scalar()

    def skip(self) -> None:
        """Pass over one whole object of any type, without building it."""
        rest = memoryview(self._data)[self.at :]
        # Its own limits are those of the bytes that are there; it must not take its defaults, which are larger.
        size_bytes = max(len(rest), 1)
        unpacker = msgpack.Unpacker(read_size=size_bytes, max_buffer_size=size_bytes)
        unpacker.feed(rest)
        try:
            unpacker.skip()
        except (ValueError, msgpack.exceptions.UnpackException) as e:
            self._refuse(f"no msgpack: {type(e).__name__}")
        self.at += int(unpacker.tell())

    def end(self) -> None:
        """Verify that nothing is left."""
        if self.at != len(self._data):
            self._refuse(f"{len(self._data) - self.at} bytes follow the end")

    def _first(self) -> int:
        at = self.at
        if at >= len(self._data):
            self._refuse("cut short")
        self.at = at + 1
        return self._data[at]

    def _bytes(self, size_bytes: int) -> bytes:
        end = self.at + size_bytes
        if end > len(self._data):
            self._refuse("cut short")
        data = bytes(self._data[self.at : end])
        self.at = end
        return data

    def _length(self, forms: dict[int, int], first: int, what: str) -> int:
        if first not in forms:
            self._refuse(f"{what} was expected, not first byte 0x{first:02x}")
        return int.from_bytes(self._bytes(forms[first]), "big")

    def _at_most(self, length_max: int, length: int, what: str) -> int:
        if length > length_max:
            self._refuse(f"{length} {what}, at most {length_max}")
        return length

    def _nil(self) -> bool:
        if self._data[self.at : self.at + 1] != b"\xc0":
            return False
        self.at += 1
        return True

    def _refuse(self, what: str) -> NoReturn:
        raise BadInputError(self._reason, f"byte {self.at}: {what}")
