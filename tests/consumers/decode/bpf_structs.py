"""Random structs, written as BTF, and a plain reader that says what their columns are."""

import struct

from tests.consumers.decode import btf_writer
from tests.consumers.decode.btf_writer import Types

INTEGERS = [(size, signed) for size in (1, 2, 4, 8) for signed in (0, 1)]
NAMES = {0: "ZERO", 1: "ONE", 200: "MANY"}
WIDE_NAMES = {0: "NONE", 1 << 63: "TOP", 77: "SOME"}


class Struct:
    """A struct of random members; `columns` are (name, function from a record's bytes to the value)."""

    def __init__(self, random_, big=False, types=None, depth=0):
        self.random, self.order = random_, ">" if big else "<"
        self.types = types or Types(big)
        self.size, self.columns, members = 0, [], []
        for i in range(random_.randrange(1, 6)):
            self.size += random_.choice((0, 0, 0, 1, 4))
            name = f"f{i}"
            bits = random_.random() < 0.2
            type_id, at, more = self.bits(name) if bits else self.member(name, depth)
            members.append((name, type_id, at, *more))
        self.size += random_.choice((0, 3))
        self.id = self.types.struct("top" if not depth else "", self.size, *members, flag=1)

    def add(self, name, read):
        self.columns.append((name, read))

    def bits(self, name):
        size, signed = self.random.choice(INTEGERS)
        at, count = 8 * self.size + self.random.randrange(8), self.random.randrange(1, 8 * size + 1)
        self.size = (at + count + 7) // 8

        def read(data):
            data = data[: self.size]
            number = int.from_bytes(data, "little" if self.order == "<" else "big")
            number >>= at if self.order == "<" else 8 * len(data) - at - count
            number &= (1 << count) - 1
            return number - (signed and number >> (count - 1) << count)

        self.add(name, read)
        return self.types.integer("bits", size, signed), at, (count,)

    def member(self, name, depth):
        dimensions = self.random.choice(((), (), (), (3,), (1,), (2, 3), (2, 1) if depth else (2, 1, 2)))
        type_id, size, parts = self.value(name, depth)
        start, total, stride = self.size, size, size
        strides = []
        for count in reversed(dimensions):
            type_id = self.types.array(type_id, count)
            strides.insert(0, stride)
            stride *= count
            total *= count
        self.size += total
        for part, read in parts:
            self.add(part, nested(read, start, list(zip(dimensions, strides, strict=True)), size))
        return type_id, 8 * start, ()

    def value(self, name, depth):
        how = self.random.randrange(9)
        order, types = self.order, self.types
        if how == 0 and depth < 2:
            inner = Struct(self.random, self.order == ">", types, depth + 1)
            return inner.id, inner.size, [(f"{name}_{part}", read) for part, read in inner.columns]
        if how == 1:
            size = self.random.choice((1, 3, 8, 12, 16, 40))
            text = types.array(types.integer("char", 1, 1), size)
            return text, size, [(name, lambda data: data.partition(b"\0")[0].decode("utf-8", "replace"))]
        if how == 2:
            return types.array(types.integer("unsigned char", 1), 6), 6, [(name, bytes)]
        if how == 3:
            return types.integer("_Bool", 1, btf_writer.BOOL), 1, [(name, lambda data: data != b"\0")]
        if how == 4:
            form, size = self.random.choice((("f", 4), ("d", 8)))
            return (
                types.add("float", btf_writer.FLOAT, size),
                size,
                [(name, lambda data: struct.unpack(order + form, data)[0])],
            )
        if how == 5:
            size = self.random.choice((4, 12))
            member = types.integer("u32", 4)
            return types.struct("u", size, ("a", member, 0), kind=btf_writer.UNION), size, [(name, bytes)]
        if how == 6:
            size = self.random.choice((1, 4))
            enum = types.enum("e", size, **{word: value for value, word in NAMES.items()})
            return enum, size, [(name, integer(order, False)), (f"{name}_name", named(order, NAMES))]
        if how == 7:
            enum = types.enum64("w", 8, **{word: value for value, word in WIDE_NAMES.items()})
            return enum, 8, [(name, integer(order, False)), (f"{name}_name", named(order, WIDE_NAMES))]
        size, signed = self.random.choice(INTEGERS)
        return types.integer("number", size, signed), size, [(name, integer(order, bool(signed)))]

    def blob(self):
        return self.types.blob()

    def some(self):
        """Return random bytes of a record in which enumerations and texts have values that occur."""
        how = self.random.random()
        if how < 0.3:
            return bytes(self.size)
        data = bytearray(self.random.randbytes(self.size))
        if how < 0.6:
            data = bytearray(self.random.choice((0, 0, 1, 200, 65)) for _ in range(self.size))
        return bytes(data)


def integer(order, signed):
    return lambda data: int.from_bytes(data, "little" if order == "<" else "big", signed=signed)


def named(order, names):
    return lambda data: names.get(integer(order, False)(data))


def nested(read, start, dimensions, size):
    """Return a reader of lists of lists, as `dimensions` of (count, stride) say."""
    if not dimensions:
        return lambda data: read(data[start : start + size])
    (count, stride), rest = dimensions[0], dimensions[1:]
    return lambda data: [nested(read, start + i * stride, rest, size)(data) for i in range(count)]
