"""A C struct, as BTF describes it, to a flat list of columns: where in a record each is and how its bytes are read.

==========================  ==========================================================================================
`struct s b; ` with `a`     its members, `b_a`; those of an anonymous struct under their own names
array                       a list; of several dimensions a list of lists; of structs a list for each of their members
`char`s                     text
other single octets         raw bytes: they are addresses and identifiers
enumeration                 its number, and behind it `<name>_name`
bit field                   its number
union                       its raw bytes; one without a name is `union_<byte offset>`
pointer                     an address of 64 bits
`x[]` at the end            all that the record has from there on
==========================  ==========================================================================================

A type comes from the machine that is observed, so all of it is bounded, and every column lies within the struct.
Source: include/uapi/linux/btf.h; of bit fields also `btf_member_bit_offset` in include/linux/btf.h.
"""

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from consumers.decode.bpf_btf import Btf, Enum, Kind, Member, Type, bad
from schemas import limits

#: Largest struct, most columns of it, members looked at, structs within structs, dimensions of an array, and names of
#: values in all enumerations.
STRUCT_BYTES_MAX: Final = limits.BODY_BYTES_MAX
COLUMNS_MAX: Final = 1024
MEMBERS_MAX: Final = 1 << 14
NESTING_MAX: Final = 16
DIMENSIONS_MAX: Final = 8
NAMES_MAX: Final = 1 << 16
_INTEGER_SIZES: Final = (1, 2, 4, 8)
_LONGEST_INTEGER: Final = 8


class Shape(StrEnum):
    """How the bytes of one value are read."""

    INTEGER = "integer"
    BOOL = "bool"
    FLOAT = "float"
    BITS = "bits"
    TEXT = "text"
    RAW = "raw"


class Dimension(NamedTuple):
    """`count` values, each `stride` bytes behind the one before."""

    count: int  # type: ignore[assignment]  # shadows tuple.count
    stride: int


_Dimensions = tuple[Dimension, ...]


@dataclass(slots=True)
class Column:
    """One column: values of `size` bytes at the byte `offset` of a record, one for each place in `dimensions`.

    Of `BITS` the value is `bit_size` bits, the first of them `bit_offset` bits behind `offset` as the machine counts
    (from the low end, or of a big-endian machine from the high one), and `size` the bytes of an integer for it. With
    `tail` the values go on to the end of the record, however many there are. `names` is what an enumeration calls its
    values.
    """

    name: str
    shape: Shape
    offset: int
    size: int
    signed: bool = False
    boolean: bool = False
    bit_offset: int = 0
    bit_size: int = 0
    dimensions: tuple[Dimension, ...] = ()
    tail: bool = False
    names: dict[int, str] | None = None


@dataclass(slots=True)
class Layout:
    """The columns of a struct in its order; `size` bytes are what every record of it has at least."""

    columns: list[Column]
    size: int
    big_endian: bool


def layout(btf: Btf, name: str) -> Layout:
    """Return the columns of the struct `name`.

    Raises:
        BadInputError: `reason` is `btf`: there is no such struct, it has nothing in it, or it breaks a limit.
    """
    top = btf.struct(name)
    if not 0 < top.size <= STRUCT_BYTES_MAX:
        raise bad(f"struct {name!r:.80} has {top.size} bytes, 1 to {STRUCT_BYTES_MAX} expected")
    found = _Flattener(btf, top.size)
    found.struct(top, "", 0, (), 0, last=True)
    if not found.columns:
        raise bad(f"struct {name!r:.80} has no member that has a value")
    ends_open = found.columns[-1].tail
    size = found.columns[-1].offset if ends_open else top.size
    # What a flexible array follows may be padded beyond the array's beginning.
    return Layout(found.columns, max(size, *(_end(each) for each in found.columns)), btf.big_endian)


def _end(column: Column) -> int:
    if column.tail:
        return column.offset
    size = (column.bit_offset + column.bit_size + 7) // 8 if column.shape == Shape.BITS else column.size
    return column.offset + size + sum((each.count - 1) * each.stride for each in column.dimensions)


class _Flattener:
    """Walks over a struct once; `columns` is what it found."""

    def __init__(self, btf: Btf, size_bytes: int) -> None:
        self.columns: list[Column] = []
        self._bits_left = 8 * size_bytes
        self._names_left = NAMES_MAX
        self._btf = btf
        self._members_left = MEMBERS_MAX
        self._enums: dict[int, Enum] = {}

    def struct(self, type_: Type, prefix: str, offset: int, dimensions: _Dimensions, depth: int, *, last: bool) -> None:
        if depth >= NESTING_MAX:
            raise bad(f"more than {NESTING_MAX} structs within each other at {prefix!r:.80}")
        self._members_left -= type_.entries
        if self._members_left < 0:
            raise bad(f"more than {MEMBERS_MAX} members")
        members = self._btf.members(type_)
        for i, member in enumerate(members):
            ends = last and not dimensions and i + 1 == len(members)
            self._member(type_, member, prefix, offset, dimensions, depth, last=ends)

    def _member(
        self,
        parent: Type,
        member: Member,
        prefix: str,
        offset: int,
        dimensions: _Dimensions,
        depth: int,
        *,
        last: bool,
    ) -> None:
        name = prefix + _word(member.name)
        type_id, type_ = self._btf.resolved(member.type_id)
        if type_.kind in (Kind.INT, Kind.ENUM, Kind.ENUM64):
            bits = self._bits(type_, member)
            if bits is not None:
                start, size = bits
                if start + size > 8 * parent.size:
                    raise bad(f"the bit field {name} is bits {start} to {start + size} of {parent.size} bytes")
                self._bit_field(name, type_id, type_, offset, start, size, dimensions)
                return
        if member.bit_offset % 8 or member.bit_size:
            raise bad(f"{name} begins at bit {member.bit_offset} and is no bit field of an integer")
        start = member.bit_offset // 8
        size = self._btf.size_bytes(type_id)
        if start + size > parent.size:
            raise bad(f"{name} is bytes {start} to {start + size} of {parent.size}")
        if type_.kind == Kind.ARRAY:
            self._array(name, type_id, offset + start, dimensions, depth, last=last)
        elif size:
            self._value(name, type_id, type_, offset + start, dimensions, depth, last=last, named=bool(member.name))

    # An array is put off until its element is known: text and raw bytes take its innermost dimension.
    def _array(self, name: str, type_id: int, offset: int, dimensions: _Dimensions, depth: int, *, last: bool) -> None:
        whole, counts = self._btf.size_bytes(type_id), []
        element_id, element = self._btf.resolved(type_id)
        while element.kind == Kind.ARRAY:
            element_id, count = self._btf.array(element)
            counts.append(count)
            element_id, element = self._btf.resolved(element_id)
        size = self._btf.size_bytes(element_id)
        if not whole:
            if last and size and counts[0] == 0 and math.prod(counts[1:]):
                self._tail(name, element_id, element, offset, size, flat=len(counts) == 1)
            return
        strides = [size * math.prod(counts[i + 1 :]) for i in range(len(counts))]
        shape = self._octets(element)
        if shape is not None:
            size = counts.pop()
            strides.pop()
        dimensions = (*dimensions, *map(Dimension, counts, strides))
        if len(dimensions) > DIMENSIONS_MAX:
            raise bad(f"{name} has more than {DIMENSIONS_MAX} dimensions")
        if shape is not None:
            self._add(Column(name, shape, offset, size, dimensions=dimensions))
        else:
            self._value(name, element_id, element, offset, dimensions, depth, last=False, named=True)

    def _tail(self, name: str, type_id: int, type_: Type, offset: int, size: int, *, flat: bool) -> None:
        shape = self._octets(type_)
        found = self._scalar(name, type_id, type_, offset) if flat and shape is None else None
        if found is None or found.size != size or found.shape not in (Shape.INTEGER, Shape.FLOAT, Shape.BOOL):
            found = Column(name, shape or Shape.RAW, offset, 1)
        found.tail = True
        self._add(found)

    def _octets(self, type_: Type) -> Shape | None:
        if type_.kind != Kind.INT:
            return None
        found = self._btf.integer(type_)
        if found.size != 1 or found.boolean:
            return None
        if found.name == "char":
            return Shape.TEXT
        return None if found.signed else Shape.RAW

    def _value(
        self,
        name: str,
        type_id: int,
        type_: Type,
        offset: int,
        dimensions: _Dimensions,
        depth: int,
        *,
        last: bool,
        named: bool,
    ) -> None:
        if type_.kind == Kind.STRUCT:
            self.struct(type_, f"{name}_" if named else name, offset, dimensions, depth + 1, last=last)
            return
        if type_.kind == Kind.UNION and not named:
            name += f"union_{offset}"
        found = self._scalar(name, type_id, type_, offset)
        found.dimensions = dimensions
        self._add(found)

    def _scalar(self, name: str, type_id: int, type_: Type, offset: int) -> Column:
        btf = self._btf
        if type_.kind == Kind.INT:
            found = btf.integer(type_)
            if found.size > _LONGEST_INTEGER:
                return Column(name, Shape.RAW, offset, found.size)
            shape = Shape.BOOL if found.boolean and found.size == 1 else Shape.INTEGER
            return Column(name, shape, offset, found.size, signed=found.signed and not found.boolean)
        if type_.kind in (Kind.ENUM, Kind.ENUM64):
            enum = self._enum(type_id, type_)
            return Column(name, Shape.INTEGER, offset, enum.size, signed=enum.signed, names=enum.names or None)
        size = btf.size_bytes(type_id)
        if type_.kind == Kind.PTR:
            return Column(name, Shape.INTEGER, offset, size)
        if type_.kind == Kind.FLOAT and size in (4, 8):
            return Column(name, Shape.FLOAT, offset, size)
        return Column(name, Shape.RAW, offset, size)

    # Where a member's bits are; None where it is no bit field. Old compilers say it in the integer.
    def _bits(self, type_: Type, member: Member) -> tuple[int, int] | None:
        bit_offset, bits = member.bit_offset, member.bit_size
        if type_.kind == Kind.INT and not bits:
            found = self._btf.integer(type_)
            if found.bits == 8 * found.size and not found.bit_offset and bit_offset % 8 == 0:
                return None
            bit_offset, bits = bit_offset + found.bit_offset, found.bits
        if not bits:
            return None
        if bits > 8 * min(type_.size, _LONGEST_INTEGER):
            raise bad(f"{member.name} is {bits} bits of a type of {type_.size} bytes")
        return bit_offset, bits

    def _bit_field(
        self,
        name: str,
        type_id: int,
        type_: Type,
        offset: int,
        start: int,
        size: int,
        dimensions: _Dimensions,
    ) -> None:
        found = self._scalar(name, type_id, type_, offset + start // 8)
        found.boolean = found.shape == Shape.BOOL
        found.shape, found.bit_offset, found.bit_size = Shape.BITS, start % 8, size
        found.dimensions = dimensions
        found.size = next(each for each in _INTEGER_SIZES if 8 * each >= size)
        low, end = (-(1 << size - 1), 1 << size - 1) if found.signed else (0, 1 << size)
        found.names = {value: each for value, each in (found.names or {}).items() if low <= value < end} or None
        self._add(found)

    def _enum(self, type_id: int, type_: Type) -> Enum:
        if type_id not in self._enums:
            self._enums[type_id] = self._btf.enum(type_)
        return self._enums[type_id]

    def _add(self, column: Column) -> None:
        if len(self.columns) == COLUMNS_MAX:
            raise bad(f"more than {COLUMNS_MAX} columns")
        self._names_left -= len(column.names or ())
        if self._names_left < 0:
            raise bad(f"more than {NAMES_MAX} names of values")
        # Members of a struct never overlap; if they did, a record could be made into any number of values.
        values = math.prod(each.count for each in column.dimensions)
        self._bits_left -= 0 if column.tail else values * (column.bit_size or 8 * column.size)
        if self._bits_left < 0:
            raise bad(f"members overlap at {column.name}")
        self.columns.append(column)


def _word(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)
