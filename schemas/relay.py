r"""The relay protocol's packets, sans-IO: what goes between a guest and the relay on its host over a stream of bytes.

The bytes are those of a virtio-serial port, a vsock or a UNIX socket: they may begin and break off anywhere, and a
disconnect loses what is under way without a word. `schemas/WIRE.md`, section 10, has the contract. A packet,
big-endian:

    magic 4s "\xd7HYR" | type u8 | topic u8 | zero u16 | link u32 | payload length u32 | value u64 | payload check u32
    | header check u32 | payload

The header check is the CRC-32 of the header's other bytes; so a false magic is known before its length is believed. The
payload check is the CRC-32 of the payload; of a frame it is the checksum that ends the frame, over the bytes before its
last five.
"""

import struct
from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgpack

from schemas import limits
from schemas.crc import crc32
from schemas.errors import BadInputError
from schemas.msgpack_reader import Reader
from schemas.surfaces import FRAME_TOPICS, TOPICS

VERSION: Final = 1
MAGIC: Final = b"\xd7HYR"
_HEAD: Final = struct.Struct(">4sBBHIIQI")
_CRC: Final = struct.Struct(">I")
#: Bytes of a packet in front of its payload.
HEADER_BYTES: Final = _HEAD.size + _CRC.size
#: A frame's last bytes: 0xce, then its checksum.
_FRAME_TAIL_BYTES: Final = 5
_UINT32: Final = 0xCE
_TIME: Final = struct.Struct(">q")
#: A topic's place in `TOPICS` is its number on the wire: TOPICS only grows at its end.
_TOPIC_NONE: Final = 0


class Kind(IntEnum):
    """What a packet is. Values are for ever."""

    HELLO = 1  # both ways; payload: the greeting
    FRAME = 2  # to the host; topic, value: the frame's offset in the guest's spool
    ACK = 3  # to the guest; topic, value: the next offset wanted; payload: the check of the frame before it
    PING = 4  # to the host; value: its number; payload: t0
    PONG = 5  # to the guest; value: the ping's number; payload: t0, t1, t2
    TIMES = 6  # to the host; value: the ping's number; payload: t0, t3
    DAMAGED = 7  # to the host; as FRAME, but the payload is what lies in the spool instead of a frame


#: Shortest and longest payload of each kind.
_SIZES: Final = {
    Kind.HELLO: (1, limits.RELAY_HELLO_BYTES_MAX),
    Kind.FRAME: (_FRAME_TAIL_BYTES + 1, limits.FRAME_BYTES_MAX),
    Kind.ACK: (_CRC.size, _CRC.size),
    Kind.PING: (_TIME.size, _TIME.size),
    Kind.PONG: (3 * _TIME.size, 3 * _TIME.size),
    Kind.TIMES: (2 * _TIME.size, 2 * _TIME.size),
    Kind.DAMAGED: (0, limits.FRAME_BYTES_MAX),
}


class Packet(NamedTuple):
    """One packet whose checks hold; `check` is that of the payload."""

    kind: Kind
    topic: str
    link: int
    value: int
    payload: bytes | bytearray
    check: int


class Refused(NamedTuple):
    """Bytes that were no packet: `reason` is `garbage`, `header`, `checksum` or `broken-off`; `data` is their start."""

    reason: str
    data: bytes
    size_bytes: int


class Hello(NamedTuple):
    """A greeting.

    Of the host: who it is (`machine`, `boot_id`), how it calls the guest (`name`), how many bytes it takes ahead of
    what it acknowledged. Of the guest: what it claims to be, its spool's id as `name`, and by topic the offset that
    its spool ends at. The `layer` is the guest's claim, `host` of a host.
    """

    name: str
    machine: str
    boot_id: str
    layer: str
    window_bytes: int
    ends: dict[str, int]


def encode(kind: Kind, link: int, *, topic: str = "", value: int = 0, payload: bytes = b"") -> bytes:
    """Return one packet; of a frame only its header, which the frame itself follows unchanged."""
    framed = kind == Kind.FRAME
    check = frame_check(payload) if framed else crc32(payload)
    number = TOPICS.index(topic) + 1 if topic else _TOPIC_NONE
    head = _HEAD.pack(MAGIC, kind, number, 0, link, len(payload), value, check)
    return head + _CRC.pack(crc32(head)) + (b"" if framed else payload)


def frame_check(frame: bytes | bytearray) -> int:
    """Return the checksum that ends `frame`."""
    return int.from_bytes(frame[-_CRC.size :], "big")


def pack_times(*times_ns: int) -> bytes:
    """Return the payload that holds these times."""
    return b"".join(map(_TIME.pack, times_ns))


def unpack_times(payload: bytes | bytearray) -> list[int]:
    """Return the times in the payload of a ping and its answers."""
    return [value for (value,) in _TIME.iter_unpack(payload)]


def pack_hello(hello: Hello) -> bytes:
    """Return the payload that says `hello`."""
    body: bytes = msgpack.packb({"version": VERSION, **hello._asdict()})
    return body


def unpack_hello(payload: bytes | bytearray) -> Hello:
    """Return what a greeting says; unknown keys are ignored.

    Raises:
        BadInputError: `reason` is `hello`: no such map, a key is missing or there twice, another version, a limit.
    """
    reader = Reader(payload, "hello")
    fields = {key: _read(key, reader) for key in reader.keys(limits.STATE_FIELDS_MAX)}
    reader.end()
    try:
        version, hello = fields["version"], Hello(**{key: fields[key] for key in Hello._fields})
    except KeyError as e:
        raise BadInputError("hello", f"the greeting lacks {e}") from None
    if version != VERSION:
        raise BadInputError("hello", f"version {version} of the relay protocol, this end knows {VERSION}")
    if not 0 <= hello.window_bytes <= limits.RELAY_WINDOW_BYTES_MAX or any(end < 0 for end in hello.ends.values()):
        raise BadInputError("hello", f"a window of {hello.window_bytes} bytes, or an end below 0")
    return hello


def _read(key: str, reader: Reader) -> Any:
    if key == "ends":
        return {topic: reader.integer() for topic in reader.keys(len(TOPICS))}
    if key in ("version", "window_bytes"):
        return reader.integer()
    if key in Hello._fields:
        return reader.text()
    reader.skip()
    return None


class Packets:
    """Cuts a stream of bytes into packets. What is none is passed over to the next magic, each byte looked at once.

    Holds at most one packet's bytes. Never raises: what cannot be read is a `Refused` among the packets. Bytes come by
    `feed`, or where a packet has begun, are read to where they belong: `room`, `filled`.
    """

    def __init__(self) -> None:
        self._rest = b""  # shorter than a header
        self._head: Packet | None = None  # whose payload is not yet whole
        self._payload = bytearray()
        self._have_bytes = 0  # of the payload
        self._garbage_bytes = 0
        self._garbage = b""

    @property
    def open(self) -> bool:
        """Whether a packet has begun and is not yet whole."""
        return self._head is not None

    def give_up(self) -> Refused | None:
        """Forget the packet that has begun: whoever sent it went away in the middle of it."""
        if self._head is None:
            return None
        data, self._head, self._payload = memoryview(self._payload)[: self._have_bytes], None, bytearray()
        return Refused("broken-off", _beginning(data), len(data) + HEADER_BYTES)

    def room(self) -> memoryview | None:
        """Return where the packet that has begun goes on; None where there is none: feed the next bytes."""
        return memoryview(self._payload)[self._have_bytes :] if self._head is not None else None

    def filled(self, size_bytes: int) -> list[Packet | Refused]:
        """Take note that the next bytes, so many, were put where `room` said, and return what they complete."""
        self._have_bytes += size_bytes
        return [self._whole()] if self._have_bytes == len(self._payload) else []

    def feed(self, data: bytes) -> list[Packet | Refused]:
        """Take the next bytes and return what they complete, in order."""
        found: list[Packet | Refused] = []
        at = 0
        if self._head is None and self._rest:
            data, self._rest = self._rest + data, b""
        while True:
            room = self.room()
            if room is not None:
                taken = min(len(room), len(data) - at)
                room[:taken] = memoryview(data)[at : at + taken]
                at += taken
                found += self.filled(taken)
                if self._head is not None:
                    return found
            at = self._find_head(data, at, found)
            if self._head is None:
                self._rest = data[at:]
                return found

    def _whole(self) -> Packet | Refused:
        head, payload, self._head, self._payload = self._head, self._payload, None, bytearray()
        assert head is not None
        if head.kind == Kind.FRAME:
            covered = memoryview(payload)[:-_FRAME_TAIL_BYTES]
            good = payload[-_FRAME_TAIL_BYTES] == _UINT32 and frame_check(payload) == head.check
        else:
            covered, good = memoryview(payload), True
        if not good or crc32(covered) != head.check:
            return Refused("checksum", _beginning(payload), len(payload) + HEADER_BYTES)
        return head._replace(payload=payload)

    # Returns where the payload of the next packet begins, or the bytes that may be the start of its header.
    def _find_head(self, data: bytes, at: int, found: list[Packet | Refused]) -> int:
        while True:
            start = data.find(MAGIC, at)
            if start < 0:
                start = _magic_begins(data, at)
                self._pass_over(data, at, start, found)
                return start
            self._pass_over(data, at, start, found)
            if len(data) - start < HEADER_BYTES:
                return start
            head = _read_head(data, start)
            if head is not None:
                self._end_of_garbage(found)
                self._head, size_bytes = head
                self._payload, self._have_bytes = bytearray(size_bytes), 0
                return start + HEADER_BYTES
            found.append(Refused("header", data[start : start + HEADER_BYTES], len(MAGIC)))
            at = start + len(MAGIC)

    def _pass_over(self, data: bytes, at: int, end: int, found: list[Packet | Refused]) -> None:
        if end == at:
            return
        if not self._garbage_bytes:
            self._garbage = data[at : min(end, at + limits.DEAD_LETTER_BYTES_MAX)]
        self._garbage_bytes += end - at
        if self._garbage_bytes >= limits.FRAME_BYTES_MAX:
            self._end_of_garbage(found)

    def _end_of_garbage(self, found: list[Packet | Refused]) -> None:
        if self._garbage_bytes:
            found.append(Refused("garbage", self._garbage, self._garbage_bytes))
            self._garbage_bytes, self._garbage = 0, b""


def _beginning(data: bytearray | memoryview) -> bytes:
    return bytes(data[: limits.DEAD_LETTER_BYTES_MAX])


# Where the last bytes of `data` could be the beginning of a magic, else its end.
def _magic_begins(data: bytes, at: int) -> int:
    for length in range(min(len(MAGIC) - 1, len(data) - at), 0, -1):
        if MAGIC.startswith(data[len(data) - length :]):
            return len(data) - length
    return len(data)


# The header at `start` and how long its payload is; None where it is none that this end knows.
def _read_head(data: bytes, start: int) -> tuple[Packet, int] | None:
    end = start + _HEAD.size
    if crc32(data[start:end]) != _CRC.unpack_from(data, end)[0]:
        return None
    _, kind, topic, zero, link, size_bytes, value, check = _HEAD.unpack_from(data, start)
    if kind not in _SIZES or zero or topic > len(FRAME_TOPICS) or value > limits.INT64_MAX:
        return None
    least, most = _SIZES[kind]
    if not least <= size_bytes <= most or (kind in _TOPICAL) != (topic > 0):
        return None
    return Packet(Kind(kind), TOPICS[topic - 1] if topic else "", link, value, b"", check), size_bytes


_TOPICAL: Final = frozenset({Kind.FRAME, Kind.ACK, Kind.DAMAGED})
