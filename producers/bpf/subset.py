"""The part of a BTF that describes one struct, as a BTF of its own: a kernel's whole BTF has megabytes.

What a pointer points to is left out, because a record holds only the address. The input comes from this kernel, which
has verified it. Source: Documentation/bpf/btf.rst; include/uapi/linux/btf.h.
"""

import struct
import sys
from collections.abc import Iterator
from typing import Final

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("=HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
_TYPE: Final = struct.Struct("=III")  # name_off, info, size or type
_MEMBER: Final = struct.Struct("=III")  # name_off, type, offset
_ARRAY: Final = struct.Struct("=III")  # type, index_type, nelems
_ENUM: Final = struct.Struct("=II")  # name_off, value
_ENUM64: Final = struct.Struct("=III")  # name_off, low and high half of the value
_KIND_AT: Final = 24
_KIND_MASK: Final = 0x1F
_COUNT_MASK: Final = 0xFFFF
_INT, _PTR, _ARRAYS, _STRUCT, _UNION, _ENUMS, _TYPEDEF, _ENUMS64 = 1, 2, 3, 4, 5, 6, 8, 19
#: Those whose third word is a type: typedef, volatile, const, restrict, type tag.
_PASSED: Final = (_TYPEDEF, 9, 10, 11, 18)
#: Bytes behind a type of each kind: a fixed number, and so many for each entry.
_BEHIND: Final = {
    _INT: (4, 0),
    _ARRAYS: (12, 0),
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    _ENUMS: (0, 8),
    13: (0, 8),  # function prototype
    14: (4, 0),  # variable
    15: (0, 12),  # section
    17: (4, 0),  # declaration tag
    _ENUMS64: (0, 12),
}


def subset(btf: bytes, name: str) -> bytes | None:
    """Return the BTF of the struct `name`, or of a typedef of that name, in `btf`; None where there is neither."""
    whole = _Whole(btf)
    for kind in (_STRUCT, _TYPEDEF):
        found = whole.find(kind, name.encode())
        if found:
            return _Part(whole).of(found)
    return None


class _Whole:
    """A BTF with the place of each type; type 0 is void."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, header_bytes, type_at, type_bytes, text_at, text_bytes = _HEADER.unpack_from(data)
        assert magic == _MAGIC, "a BTF of another byte order"
        self.data = data
        self._texts = data[header_bytes + text_at :][:text_bytes]
        at, end = header_bytes + type_at, header_bytes + type_at + type_bytes
        self._places = [0]
        while at < end:
            self._places.append(at)
            info = int.from_bytes(data[at + 4 : at + 8], sys.byteorder)
            fixed, each = _BEHIND.get(info >> _KIND_AT & _KIND_MASK, (0, 0))
            at += _TYPE.size + fixed + each * (info & _COUNT_MASK)

    def find(self, kind: int, name: bytes) -> int:
        """Return the number of the first type of this kind and name, 0 where there is none."""
        for number in range(1, len(self._places)):
            name_at, info, _ = _TYPE.unpack_from(self.data, self._places[number])
            if info >> _KIND_AT & _KIND_MASK == kind and self._texts.startswith(name + b"\0", name_at):
                return number
        return 0

    def type(self, number: int) -> tuple[int, int, int, int]:
        """Return the place of a type's data behind its three words, and these."""
        at = self._places[number]
        return at + _TYPE.size, *_TYPE.unpack_from(self.data, at)

    def text(self, at: int) -> bytes:
        """Return the name at this offset."""
        return self._texts[at : self._texts.index(b"\0", at)]


class _Part:
    """The BTF in the making: numbers of types and offsets of names as they are here, by those of the whole."""

    def __init__(self, whole: _Whole) -> None:
        self._whole = whole
        self._numbers = {0: 0}
        self._order: list[int] = []
        self._names = {b"": 0}
        self._texts = bytearray(b"\0")

    def of(self, number: int) -> bytes:
        """Return the BTF of type `number` and of all that it is made of."""
        self._number(number)
        types = bytearray()
        for each in self._order:  # grows meanwhile
            types += b"".join(self._type(each))
        texts = bytes(self._texts)
        header = _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(types), len(types), len(texts))
        return header + bytes(types) + texts

    def _number(self, number: int) -> int:
        if number not in self._numbers:
            self._order.append(number)
            self._numbers[number] = len(self._order)
        return self._numbers[number]

    def _name(self, at: int) -> int:
        text = self._whole.text(at)
        if text not in self._names:
            self._names[text] = len(self._texts)
            self._texts += text + b"\0"
        return self._names[text]

    def _type(self, number: int) -> Iterator[bytes]:
        at, name_at, info, third = self._whole.type(number)
        kind, count, data = info >> _KIND_AT & _KIND_MASK, info & _COUNT_MASK, self._whole.data
        if kind == _PTR:
            third = 0
        elif kind in _PASSED:
            third = self._number(third)
        yield _TYPE.pack(self._name(name_at), info, third)
        if kind == _INT:
            yield data[at : at + 4]
        elif kind == _ARRAYS:
            element, index, elements = _ARRAY.unpack_from(data, at)
            yield _ARRAY.pack(self._number(element), self._number(index), elements)
        elif kind in (_STRUCT, _UNION):
            for name, member, offset in _MEMBER.iter_unpack(data[at : at + count * _MEMBER.size]):
                yield _MEMBER.pack(self._name(name), self._number(member), offset)
        elif kind in (_ENUMS, _ENUMS64):
            form = _ENUM if kind == _ENUMS else _ENUM64
            for name, *value in form.iter_unpack(data[at : at + count * form.size]):
                yield form.pack(self._name(name), *value)
