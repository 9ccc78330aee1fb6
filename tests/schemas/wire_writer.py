"""Writes frames from schemas/WIRE.md alone, with nothing of the code under test: also those that nobody should write."""

import struct
import zlib

#: Keys of the frame map, as WIRE.md numbers them.
KEYS = {
    "version": 0,
    "stream": 1,
    "run": 2,
    "number": 3,
    "first": 4,
    "next": 5,
    "count": 6,
    "losses": 7,
    "ts_first_ns": 8,
    "ts_last_ns": 9,
    "realtime_ns": 10,
    "snapshot": 11,
    "encoding": 12,
    "encoding_version": 13,
    "descriptor": 14,
    "codec": 15,
    "body_bytes": 16,
    "body": 17,
}
CRC_KEY = b"\x7f"
NIL, FALSE, TRUE = b"\xc0", b"\xc2", b"\xc3"


def integer(value):
    """The shortest form."""
    if -32 <= value < 128:
        return struct.pack(">b", value)
    for first, code, low, high in (
        (0xCC, "B", 0, 1 << 8),
        (0xCD, "H", 0, 1 << 16),
        (0xCE, "I", 0, 1 << 32),
        (0xCF, "Q", 0, 1 << 64),
        (0xD0, "b", -(1 << 7), 0),
        (0xD1, "h", -(1 << 15), 0),
        (0xD2, "i", -(1 << 31), 0),
        (0xD3, "q", -(1 << 63), 0),
    ):
        if low <= value < high:
            return bytes([first]) + struct.pack(f">{code}", value)
    raise ValueError(value)


def text(value):
    data = value.encode() if isinstance(value, str) else value
    if len(data) < 32:
        return bytes([0xA0 | len(data)]) + data
    return (b"\xd9" + bytes([len(data)]) if len(data) < 256 else b"\xda" + struct.pack(">H", len(data))) + data


def binary(data):
    for first, code, high in ((0xC4, "B", 1 << 8), (0xC5, "H", 1 << 16), (0xC6, "I", 1 << 32)):
        if len(data) < high:
            return bytes([first]) + struct.pack(f">{code}", len(data)) + data
    raise ValueError(len(data))


def array(items):
    head = bytes([0x90 | len(items)]) if len(items) < 16 else b"\xdc" + struct.pack(">H", len(items))
    return head + b"".join(items)


def mapping(pairs):
    head = bytes([0x80 | len(pairs)]) if len(pairs) < 16 else b"\xde" + struct.pack(">H", len(pairs))
    return head + b"".join(key + value for key, value in pairs)


def loss(kind, first, count, reason, found_by, unit="position"):
    items = [text(kind), integer(first), NIL if count is None else integer(count), text(reason), text(found_by)]
    return array(items if unit == "position" else [*items, text(unit)])


def fields(frame, *, body=None, codec=0):
    """The packed value of every field of `frame`, by its name; `body` instead of its own where that is compressed."""
    return {
        "version": integer(1),
        "stream": array([text(tag) for tag in frame.stream]),
        "run": text(frame.run),
        "number": integer(frame.number),
        "first": integer(frame.first),
        "next": integer(frame.next),
        "count": integer(frame.count),
        "losses": array([loss(*entry) for entry in frame.losses]),
        "ts_first_ns": integer(frame.ts_first_ns),
        "ts_last_ns": integer(frame.ts_last_ns),
        "realtime_ns": integer(frame.realtime_ns),
        "snapshot": NIL if frame.snapshot is None else text(frame.snapshot),
        "encoding": text(frame.encoding),
        "encoding_version": integer(frame.encoding_version),
        "descriptor": NIL if frame.descriptor is None else binary(frame.descriptor),
        "codec": integer(codec),
        "body_bytes": integer(len(frame.body)),
        "body": binary(frame.body if body is None else body),
    }


def seal(values, *more):
    """The frame of these fields (by name) and `more` pairs of packed key and value, with its right checksum."""
    return sealed([*((integer(KEYS[name]), value) for name, value in values.items()), *more])


def sealed(pairs):
    return with_crc(mapping([*pairs, (CRC_KEY, b"")]))


def with_crc(head):
    """Whatever `head` is, with its right checksum behind it."""
    return head + b"\xce" + struct.pack(">I", zlib.crc32(head))
