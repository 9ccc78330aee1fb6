"""BTF written from its description (Documentation/bpf/btf.rst), with no code of the reader."""

import struct

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)
SIGNED, BOOL = 1, 4


class Types:
    """Types one behind the other; each method adds one and returns its id."""

    def __init__(self, big=False):
        self.order = ">" if big else "<"
        self.texts, self.types, self.count = bytearray(1), [], 0

    def text(self, name):
        if not name:
            return 0
        data = name if isinstance(name, bytes) else name.encode()
        self.texts += data + b"\0"
        return len(self.texts) - len(data) - 1

    def add(self, name, kind, size, *more, entries=0, flag=0):
        words = (self.text(name), flag << 31 | kind << 24 | entries, size, *more)
        self.types.append(struct.pack(f"{self.order}{len(words)}I", *(word & 0xFFFFFFFF for word in words)))
        self.count += 1
        return self.count

    def integer(self, name, size, encoding=0, bit_offset=0, bits=None):
        return self.add(name, INT, size, encoding << 24 | bit_offset << 16 | (8 * size if bits is None else bits))

    def array(self, type_id, count, index=0):
        return self.add("", ARRAY, 0, type_id, index, count)

    def struct(self, name, size, *members, kind=STRUCT, flag=0):
        """Members are (name, type, bit offset), with a fourth, the bits, in bit fields of a struct with `flag`."""
        words = [
            word
            for member, type_id, at, *bits in members
            for word in (self.text(member), type_id, at | (bits[0] if bits else 0) << 24)
        ]
        return self.add(name, kind, size, *words, entries=len(members), flag=flag)

    def enum(self, name, size=4, flag=0, **values):
        words = [word for each, value in values.items() for word in (self.text(each), value)]
        return self.add(name, ENUM, size, *words, entries=len(values), flag=flag)

    def enum64(self, name, size=8, flag=0, **values):
        words = [word for each, value in values.items() for word in (self.text(each), value, value >> 32)]
        return self.add(name, ENUM64, size, *words, entries=len(values), flag=flag)

    def ref(self, kind, type_id, name="", *more, entries=0):
        return self.add(name, kind, type_id, *more, entries=entries)

    def blob(self):
        data = b"".join(self.types)
        head = struct.pack(f"{self.order}HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(data), len(data), len(self.texts))
        return head + data + bytes(self.texts)
