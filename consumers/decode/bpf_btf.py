"""BTF, the description of C types that compilers and the kernel write: one blob to types that can be asked for.

The bytes come from the machine that is observed. Parsing looks at every type once and builds nothing for its members;
whoever asks for a type pays for that one. A chain of names or qualifiers has an end (`HOPS_MAX`), so a cycle is an
error and no loop.

Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from schemas import limits
from schemas.errors import BadInputError

#: Longest BTF, longest name in it, and most typedefs and qualifiers in front of one type.
BTF_BYTES_MAX: Final = limits.BPF_BTF_BYTES_MAX
NAME_BYTES_MAX: Final = 128
HOPS_MAX: Final = 64
_MAGIC: Final = 0xEB9F
_HEADER: Final = "HBBIIIII"
_HEADER_BYTES: Final = 24
_TYPE_BYTES: Final = 12
_LONGS: Final = (b"long\0", b"unsigned long\0", b"long int\0", b"long unsigned int\0", b"unsigned long int\0")
_INT_SIZES: Final = (1, 2, 4, 8, 16)
_ENUM_SIZES: Final = (1, 2, 4, 8)


class Kind(IntEnum):
    """The kinds of types, as `BTF_KIND_...` numbers them."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# What follows a type: so many bytes once, and so many for each of its `vlen` entries.
_EXTRA: Final = {
    Kind.INT: (4, 0),
    Kind.PTR: (0, 0),
    Kind.ARRAY: (12, 0),
    Kind.STRUCT: (0, 12),
    Kind.UNION: (0, 12),
    Kind.ENUM: (0, 8),
    Kind.FWD: (0, 0),
    Kind.TYPEDEF: (0, 0),
    Kind.VOLATILE: (0, 0),
    Kind.CONST: (0, 0),
    Kind.RESTRICT: (0, 0),
    Kind.FUNC: (0, 0),
    Kind.FUNC_PROTO: (0, 8),
    Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12),
    Kind.FLOAT: (0, 0),
    Kind.DECL_TAG: (4, 0),
    Kind.TYPE_TAG: (0, 0),
    Kind.ENUM64: (0, 12),
}
_PASSED: Final = (Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG)


class Type(NamedTuple):
    """One type as it stands: `size` in bytes, or where `kind` refers to another, that type's id.

    `flag` is its kind_flag, `entries` how many members or values follow at the byte `at`.
    """

    kind: Kind
    name_at: int
    flag: bool
    entries: int
    size: int
    at: int


class Member(NamedTuple):
    """A member of a struct or union: `bit_offset` from its start, `bit_size` 0 where it is no bit field."""

    name: str
    type_id: int
    bit_offset: int
    bit_size: int


class Integer(NamedTuple):
    """An integer: `size` bytes, of which `bits` from `bit_offset` on count (all but in bit fields of old compilers)."""

    name: str
    size: int
    signed: bool
    boolean: bool
    bit_offset: int
    bits: int


class Array(NamedTuple):
    """An array of `count` elements."""

    type_id: int
    count: int  # type: ignore[assignment]  # shadows tuple.count


class Enum(NamedTuple):
    """An enumeration of `size` bytes; `names` has the first name of each value."""

    size: int
    signed: bool
    names: dict[int, str]


class Btf:
    """The types of one blob, whose byte order is that of its magic number.

    Raises (also its methods):
        BadInputError: `reason` is `btf`: the bytes are no BTF, or a limit is broken.
    """

    def __init__(self, data: bytes) -> None:
        if not _HEADER_BYTES <= len(data) <= BTF_BYTES_MAX:
            raise bad(f"{len(data)} bytes, {_HEADER_BYTES} to {BTF_BYTES_MAX} expected")
        self._data = data
        self.big_endian = data[:2] == _MAGIC.to_bytes(2, "big")
        self._order = ">" if self.big_endian else "<"
        magic, version, _, head, type_at, type_bytes, text_at, text_bytes = self._unpack(_HEADER, 0)
        if magic != _MAGIC or version != 1:
            raise bad(f"begins with 0x{magic:04x} and version {version}, not 0x{_MAGIC:04x} and 1")
        if head < _HEADER_BYTES or max(head + type_at + type_bytes, head + text_at + text_bytes) > len(data):
            raise bad(f"sections reach beyond its {len(data)} bytes")
        self._texts = data[head + text_at : head + text_at + text_bytes]
        if not self._texts or self._texts[0] or self._texts[-1]:
            raise bad("the names do not begin and end with a NUL")
        self._types = self._index(head + type_at, head + type_at + type_bytes)
        self._pointer_bytes = self._long_bytes()

    def __len__(self) -> int:
        return len(self._types)

    def type(self, type_id: int) -> Type:
        """Return one type; 0 is void."""
        if not 0 <= type_id < len(self._types):
            raise bad(f"type {type_id} of {len(self._types)}")
        return self._types[type_id]

    def resolved(self, type_id: int) -> tuple[int, Type]:
        """Return id and type behind typedefs and qualifiers."""
        for _ in range(HOPS_MAX):
            found = self.type(type_id)
            if found.kind not in _PASSED:
                return type_id, found
            type_id = found.size
        raise bad(f"type {type_id} is behind more than {HOPS_MAX} names and qualifiers")

    def struct(self, name: str) -> Type:
        """Return the one struct called `name`, by its tag or, failing that, by a typedef."""
        wanted = name.encode() + b"\0"
        for kind in (Kind.STRUCT, Kind.TYPEDEF):
            found = [
                i
                for i, each in enumerate(self._types)
                if each.kind == kind and self._texts.startswith(wanted, each.name_at)
            ]
            if len(found) > 1:
                raise bad(f"{len(found)} types are called {name!r:.80}")
            if found:
                struct_ = self.resolved(found[0])[1]
                if struct_.kind != Kind.STRUCT:
                    raise bad(f"{name!r:.80} is no struct")
                return struct_
        raise bad(f"no struct {name!r:.80} in {len(self._types)} types")

    def name(self, type_: Type) -> str:
        """Return the name of a type, empty where it has none; bytes that are no UTF-8 are U+FFFD."""
        return self._text(type_.name_at)

    def members(self, type_: Type) -> list[Member]:
        """Return the members of a struct or union in their order."""
        found = []
        for name_at, type_id, offset in self._entries(type_, "III"):
            bit_offset, bit_size = (offset & 0xFFFFFF, offset >> 24) if type_.flag else (offset, 0)
            found.append(Member(self._text(name_at), type_id, bit_offset, bit_size))
        return found

    def integer(self, type_: Type) -> Integer:
        """Return what an INT is."""
        (word,) = self._unpack("I", type_.at)
        encoding, bit_offset, bits = word >> 24 & 15, word >> 16 & 0xFF, word & 0xFF
        if type_.size not in _INT_SIZES or not 0 < bits <= 8 * type_.size or bit_offset + bits > 8 * type_.size:
            raise bad(f"an integer of {type_.size} bytes has bits {bit_offset} to {bit_offset + bits}")
        return Integer(self.name(type_), type_.size, bool(encoding & 1), bool(encoding & 4), bit_offset, bits)

    def array(self, type_: Type) -> Array:
        """Return what an ARRAY is."""
        type_id, _, count = self._unpack("III", type_.at)
        return Array(type_id, count)

    def enum(self, type_: Type) -> Enum:
        """Return what an ENUM or ENUM64 is."""
        if type_.size not in _ENUM_SIZES:
            raise bad(f"an enumeration has {type_.size} bytes")
        names: dict[int, str] = {}
        bits, form = (32, "II") if type_.kind == Kind.ENUM else (64, "III")
        bits = min(bits, 8 * type_.size)
        sign, word = 1 << (bits - 1), (1 << bits) - 1
        for name_at, low, *high in self._entries(type_, form):
            value = (high[0] << 32 | low if high else low) & word
            names.setdefault((value ^ sign) - sign if type_.flag else value, self._text(name_at))
        return Enum(type_.size, type_.flag, names)

    def size_bytes(self, type_id: int) -> int:
        """Return the size of a type's values."""
        times = 1
        for _ in range(HOPS_MAX):
            _, found = self.resolved(type_id)
            if found.kind == Kind.ARRAY:
                type_id, count = self.array(found)
                times *= count
            elif found.kind == Kind.PTR:
                return times * self._pointer_bytes
            elif found.kind in (Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.FLOAT):
                return times * found.size
            else:
                raise bad(f"type {type_id} ({found.kind.name}) has no size")
        raise bad(f"type {type_id} is in more than {HOPS_MAX} arrays")

    def _index(self, at: int, end: int) -> list[Type]:
        found = [Type(Kind.VOID, 0, False, 0, 0, at)]
        while at < end:
            if at + _TYPE_BYTES > end:
                raise bad(f"type {len(found)} is cut short")
            name_at, info, size = self._unpack("III", at)
            try:
                kind = Kind(info >> 24 & 31)
                once, each = _EXTRA[kind]
            except (ValueError, KeyError):
                raise bad(f"type {len(found)} is of the kind {info >> 24 & 31}, which nobody knows here") from None
            entries = info & 0xFFFF
            at += _TYPE_BYTES
            found.append(Type(kind, name_at, bool(info >> 31), entries, size, at))
            at += once + each * entries
        if at != end:
            raise bad(f"type {len(found) - 1} reaches beyond the types")
        return found

    # As libbpf does (`determine_ptr_size`): BTF does not say it otherwise. BPF itself has 64 bits.
    def _long_bytes(self) -> int:
        for each in self._types:
            if each.kind == Kind.INT and each.size in (4, 8) and self._texts.startswith(_LONGS, each.name_at):
                return each.size
        return 8

    def _entries(self, type_: Type, form: str) -> Iterator[tuple[int, ...]]:
        packed = struct.Struct(self._order + form)
        return packed.iter_unpack(memoryview(self._data)[type_.at : type_.at + type_.entries * packed.size])

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, self._data, at)

    def _text(self, at: int) -> str:
        end = self._texts.find(b"\0", at)
        if at >= len(self._texts) or end < 0:
            raise bad(f"a name at {at} of {len(self._texts)} bytes of names")
        if end - at > NAME_BYTES_MAX:
            raise bad(f"a name of {end - at} bytes, at most {NAME_BYTES_MAX}")
        return self._texts[at:end].decode("utf-8", "replace")


def bad(detail: str) -> BadInputError:
    """Return the error of a BTF that cannot be read."""
    return BadInputError("btf", detail)
