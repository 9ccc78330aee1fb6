"""The tags of a frame in its most usual form, by an unpacker in C: in a third of the time that its reader takes.

Usual is what `schemas.frame.encode` makes of a frame without losses, whose texts are short.
Anything else is not refused here: `schemas.frame` reads it piece by piece, and says what is wrong with it. So all that
is told of a frame here must be what would be told there.
"""

from itertools import islice, product
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgpack

from schemas import limits
from schemas.errors import BadInputError
from schemas.frame_keys import (
    CRC_TAIL_BYTES,
    K_BODY,
    K_CRC,
    K_DESCRIPTOR,
    K_ENCODING,
    K_LOSSES,
    K_RUN,
    K_SNAPSHOT,
    K_STREAM,
    VERSION,
)
from schemas.msgpack_reader import Reader
from schemas.stream import Stream

#: A map of all fields, its version, and the key of its stream.
_START: Final = bytes((0xDE, 0, K_BODY + 2, 0, VERSION, K_STREAM))
#: What a frame has in front of its body is shorter: nothing larger is ever built here.
_HEAD_BYTES_MAX: Final = 2048
#: A character has at most four bytes, so such a text is not too long.
_CHARS_MAX: Final = limits.TEXT_BYTES_MAX // 4
_KEYS: Final = list(range(K_RUN, K_BODY + 1))
_TEXTS: Final = [str] * len(Stream._fields)


def _types(snapshot: type, descriptor: type) -> list[type]:
    of_key: dict[int, type] = {
        K_RUN: str,
        K_LOSSES: list,
        K_SNAPSHOT: snapshot,
        K_ENCODING: str,
        K_DESCRIPTOR: descriptor,
    }
    return [kind for key in _KEYS for kind in (int, of_key.get(key, int))][:-1]


_TEXT: Final[tuple[type, ...]] = (str, type(None))
_BYTES: Final[tuple[type, ...]] = (bytes, type(None))
#: Of keys and values between stream and body, and of the body's key.
_TYPES: Final = [_types(text, hash_) for text, hash_ in product(_TEXT, _BYTES)]

_integers: Final = itemgetter(*[at for at, kind in enumerate(_TYPES[0]) if kind is int])


class Usual(NamedTuple):
    """The fields by key, of the body its size, and where the stream is."""

    fields: dict[int, Any]
    stream_at: int
    stream_end: int


def read_usual(data: bytes | bytearray) -> Usual | None:
    """Return what the frame in `data`, whose checksum holds, says of itself; None where it is another way."""
    if not data.startswith(_START):
        return None
    head = msgpack.Unpacker(read_size=_HEAD_BYTES_MAX, max_buffer_size=_HEAD_BYTES_MAX)
    head.feed(memoryview(data)[len(_START) : _HEAD_BYTES_MAX])
    reader = Reader(data, "malformed")
    try:
        stream, stream_end = head.unpack(), len(_START) + head.tell()
        rest = list(islice(head, len(_TYPES[0])))
        reader.at = len(_START) + head.tell()
        body_bytes = reader.binary_size(limits.FRAME_BYTES_MAX)
    except (ValueError, msgpack.exceptions.UnpackException, BadInputError):
        return None
    if type(stream) is not list or list(map(type, stream)) != _TEXTS or list(map(type, rest)) not in _TYPES:
        return None
    fields: dict[int, Any] = dict(zip(_KEYS, rest[1::2], strict=False))
    if (
        rest[::2] != _KEYS
        or reader.at + 1 + CRC_TAIL_BYTES != len(data)
        or data[reader.at] != K_CRC
        or fields[K_LOSSES]
        or len(fields[K_DESCRIPTOR] or b"") > limits.DESCRIPTOR_BYTES_MAX
        or max(map(len, (*stream, fields[K_RUN], fields[K_SNAPSHOT] or "", fields[K_ENCODING]))) > _CHARS_MAX
        or max(_integers(rest)) > limits.INT64_MAX
    ):
        return None
    fields[K_STREAM], fields[K_BODY] = Stream(*stream), body_bytes
    return Usual(fields, len(_START), stream_end)
