"""The frame: one batch of one stream's raw bytes plus its tags; one Kafka message.

Wire form: schemas/WIRE.md, pinned by tests/schemas/golden/. A msgpack map with small integer keys whose first entry is
the version and whose last is the CRC-32 (ISO-HDLC, as in zlib) of every byte before that checksum's own five bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgpack

from schemas import limits, zstd
from schemas.crc import WORTH_BYTES, crc32, shifted
from schemas.errors import BadInputError
from schemas.frame_keys import (
    CODEC_NONE,
    CODEC_ZSTD,
    CRC_TAIL_BYTES,
    K_BODY,
    K_BODY_BYTES,
    K_CODEC,
    K_COUNT,
    K_CRC,
    K_DESCRIPTOR,
    K_ENCODING,
    K_ENCODING_VERSION,
    K_FIRST,
    K_LOSSES,
    K_NEXT,
    K_NUMBER,
    K_REALTIME,
    K_RUN,
    K_SNAPSHOT,
    K_STREAM,
    K_TS_FIRST,
    K_TS_LAST,
    K_VERSION,
    VERSION,
)
from schemas.frame_usual import Usual, read_usual
from schemas.loss import Loss, LossUnit
from schemas.msgpack_reader import Reader
from schemas.stream import Stream

# A body shorter than this is not worth a compressor's call.
_COMPRESS_FROM_BYTES: Final = 512
_UINT32: Final = 0xCE  # msgpack's first byte of a 32-bit unsigned integer
_SHORT_CHARS: Final = limits.TEXT_BYTES_MAX // 4
_CRC_BYTES: Final = CRC_TAIL_BYTES - 1
#: So begin the runs of shippers, whose frames say what a spool gave up; how one is sent again may differ.
SHIPPER_RUN: Final = "ship-"
# Of what follows a frame's stream, enough to tell two frames apart: number, times, the beginning of the body.
_CONTENT_BYTES: Final = 1024


_Read = dict[int, Callable[[Reader], Any]]
_Spans = dict[int, tuple[int, int]]  # by key, where the value begins and ends


@dataclass(slots=True)
class Frame:
    """One batch of one stream.

    `first` and `next` bound the half-open range of positions it covers, in the surface's own numbering; `count` is the
    number of records in `body`. `losses` are those known since the stream's frame before. `ts_first_ns` and
    `ts_last_ns` are on the stream's clock; `realtime_ns` is CLOCK_REALTIME of the producer when the frame was cut.
    """

    stream: Stream
    run: str
    number: int
    first: int
    next: int
    count: int
    encoding: str
    encoding_version: int
    body: bytes
    losses: list[Loss] = field(default_factory=list)
    ts_first_ns: int = 0
    ts_last_ns: int = 0
    realtime_ns: int = 0
    snapshot: str | None = None
    descriptor: bytes | None = None


#: The bytes of a frame, one part behind the other.
Parts = tuple[bytes | memoryview, ...]


class Tags(NamedTuple):
    """What a frame says of itself without its body; its stream's bytes are those from `stream_at` to `stream_end`."""

    stream: Stream
    run: str
    number: int
    first: int
    next: int
    stream_at: int
    stream_end: int


def encode(frame: Frame, *, compress: bool = True) -> bytes:
    """Return the wire form of `frame`.

    Raises:
        ValueError: the frame breaks a limit (a bug of the caller, not bad input).
    """
    try:
        _check(frame)
    except BadInputError as e:
        raise ValueError(f"refusing to encode: {e}") from e
    body, codec = frame.body, CODEC_NONE
    if compress and len(body) >= _COMPRESS_FROM_BYTES:
        packed = zstd.compress(body)
        if len(packed) < len(body):
            body, codec = packed, CODEC_ZSTD
    fields: dict[int, Any] = {
        K_VERSION: VERSION,
        K_STREAM: tuple(frame.stream),
        K_RUN: frame.run,
        K_NUMBER: frame.number,
        K_FIRST: frame.first,
        K_NEXT: frame.next,
        K_COUNT: frame.count,
        K_LOSSES: [_loss_fields(loss) for loss in frame.losses],
        K_TS_FIRST: frame.ts_first_ns,
        K_TS_LAST: frame.ts_last_ns,
        K_REALTIME: frame.realtime_ns,
        K_SNAPSHOT: frame.snapshot,
        K_ENCODING: frame.encoding,
        K_ENCODING_VERSION: frame.encoding_version,
        K_DESCRIPTOR: frame.descriptor,
        K_CODEC: codec,
        K_BODY_BYTES: len(frame.body),
        K_BODY: body,
        K_CRC: 0xFFFFFFFF,
    }
    data: bytes = msgpack.packb(fields)
    if len(data) > limits.FRAME_BYTES_MAX:
        raise ValueError(
            f"refusing to encode: {len(data)} bytes with {len(frame.losses)} losses are more than a frame holds"
        )
    head = memoryview(data)[:-CRC_TAIL_BYTES]
    return b"".join((head, bytes((_UINT32,)), crc32(head).to_bytes(4, "big")))


def decode(data: bytes) -> Frame:
    """Return the frame in `data`, every limit and the checksum verified; unknown keys are ignored.

    Raises:
        BadInputError: `reason` is one of
            `oversize` (longer than any frame), `truncated` (too short for any), `checksum` (damaged),
            `version` (another version of the contract), `malformed` (no frame by structure or type),
            `limit` (a value out of its bounds), `codec` (the body is not what its codec and size say).
        AccessError: the body is compressed, and the library for that is missing.
    """
    _verify(data)
    fields = _unpack(data, _READ, {})
    return _frame(fields, lambda: _unpack_body(fields[K_BODY], fields[K_CODEC], fields[K_BODY_BYTES]))


def decode_tags(data: bytes | bytearray, *, checked: bool = False) -> Tags:
    """Return the tags of the frame in `data`, everything but its body verified; `checked` says its checksum was.

    Raises:
        BadInputError: as `decode`, but for what only a look into the body tells.
    """
    _verify(data, checked=checked)
    fields, *span = read_usual(data) or _unpack_tags(data)

    def no_body() -> bytes:
        size_bytes, codec = fields[K_BODY_BYTES], fields[K_CODEC]
        if not 0 <= size_bytes <= limits.BODY_BYTES_MAX:
            raise BadInputError("limit", f"a body of {size_bytes} bytes, at most {limits.BODY_BYTES_MAX}")
        if codec not in (CODEC_NONE, CODEC_ZSTD) or (codec == CODEC_NONE and fields[K_BODY] != size_bytes):
            raise BadInputError("codec", f"{fields[K_BODY]} bytes of body with codec {codec}, {size_bytes} stated")
        return b""

    frame = _frame(fields, no_body)
    return Tags(frame.stream, frame.run, frame.number, frame.first, frame.next, *span)


def stamp(data: bytes | bytearray, tags: Tags, stream: Stream) -> Parts:
    """Return the frame in `data`, whose tags are `tags`, as one of `stream`; nothing else of it is changed or opened.

    It is in parts, the last of which is its checksum; most of it is where it was, because to move it is work.

    Raises:
        BadInputError: `reason` is `oversize` or `limit`: the result would be no frame.
    """
    head = bytes(data[: tags.stream_at]) + _packed(stream)
    rest = memoryview(data)[tags.stream_end : -CRC_TAIL_BYTES]
    if len(head) + len(rest) + CRC_TAIL_BYTES > limits.FRAME_BYTES_MAX:
        raise BadInputError("oversize", f"with its stream's name the frame is longer than {limits.FRAME_BYTES_MAX}")
    if len(rest) < WORTH_BYTES:
        crc = crc32(rest, crc32(head))
    else:
        replaced = crc32(memoryview(data)[: tags.stream_end])
        crc = checksum(data) ^ shifted(replaced ^ crc32(head), len(rest))
    return head, rest, bytes((_UINT32,)) + crc.to_bytes(_CRC_BYTES, "big")


# A relay has many frames of few streams.
@lru_cache(maxsize=1024)
def _packed(stream: Stream) -> bytes:
    _check_texts(*stream)
    packed: bytes = msgpack.packb(tuple(stream))
    return packed


def content(data: bytes | bytearray, tags: Tags) -> int:
    """Return a checksum of what the frame in `data` says, whosever stream it is said to be of."""
    end = min(tags.stream_end + _CONTENT_BYTES, len(data) - CRC_TAIL_BYTES)
    return crc32(memoryview(data)[tags.stream_end : end])


def _frame(fields: dict[int, Any], body: Callable[[], bytes]) -> Frame:
    try:
        frame = Frame(
            stream=fields[K_STREAM],
            run=fields[K_RUN],
            number=fields[K_NUMBER],
            first=fields[K_FIRST],
            next=fields[K_NEXT],
            count=fields[K_COUNT],
            losses=fields[K_LOSSES],
            ts_first_ns=fields[K_TS_FIRST],
            ts_last_ns=fields[K_TS_LAST],
            realtime_ns=fields[K_REALTIME],
            snapshot=fields.get(K_SNAPSHOT),
            encoding=fields[K_ENCODING],
            encoding_version=fields[K_ENCODING_VERSION],
            descriptor=fields.get(K_DESCRIPTOR),
            body=body(),
        )
    except KeyError as e:
        raise BadInputError("malformed", f"field {e} is missing") from None
    _check(frame)
    return frame


def decode_reach(data: bytes) -> tuple[Stream, int]:
    """Return the stream of the frame in `data` and the position behind it, without a look at its body.

    Raises:
        BadInputError: as `decode`, but for what only a look at the values and the body tells.
    """
    _verify(data)
    usual = read_usual(data)
    fields = usual.fields if usual is not None else _unpack(data, _READ, {})
    try:
        return fields[K_STREAM], fields[K_NEXT]
    except KeyError as e:
        raise BadInputError("malformed", f"field {e} is missing") from None


def checksum(data: bytes | bytearray | memoryview) -> int:
    """Return the CRC-32 in `data`, a frame that `decode` took: so it is that of all bytes before it."""
    return int.from_bytes(data[-_CRC_BYTES:], "big")


def _verify(data: bytes | bytearray, *, checked: bool = False) -> None:
    if len(data) > limits.FRAME_BYTES_MAX:
        raise BadInputError("oversize", f"{len(data)} bytes, at most {limits.FRAME_BYTES_MAX}")
    if len(data) <= CRC_TAIL_BYTES:
        raise BadInputError("truncated", f"{len(data)} bytes are no frame")
    crc_start = len(data) - CRC_TAIL_BYTES
    # The checksum first: nothing else of damaged bytes is worth a message.
    if data[crc_start] != _UINT32 or (not checked and crc32(memoryview(data)[:crc_start]) != checksum(data)):
        raise BadInputError("checksum", "the frame's CRC-32 does not match its bytes")


def _unpack_tags(data: bytes | bytearray) -> Usual:
    spans: _Spans = {}
    fields = _unpack(data, {**_READ, K_BODY: lambda reader: reader.binary_size(limits.FRAME_BYTES_MAX)}, spans)
    return Usual(fields, *spans.get(K_STREAM, (0, 0)))


def _unpack(data: bytes | bytearray, read: _Read, spans: _Spans) -> dict[int, Any]:
    reader = Reader(data, "malformed")
    entries = reader.map_header(limits.FRAME_FIELDS_MAX)
    if not entries or reader.integer() != K_VERSION:
        raise BadInputError("malformed", "a frame's first field is its version")
    # The version next: whatever follows may have another meaning in another one.
    version = reader.integer()
    if version != VERSION:
        raise BadInputError("version", f"frame version {version}, this reader knows {VERSION}")
    fields: dict[int, Any] = {K_VERSION: version}
    key = K_VERSION
    for _ in range(entries - 1):
        key, start = reader.integer(), reader.at
        if key in fields:
            raise BadInputError("malformed", f"field {key} is there twice")
        fields[key] = read.get(key, Reader.skip)(reader)
        spans[key] = start, reader.at
    # The last five bytes are one integer, so nothing can follow it.
    if key != K_CRC or start != len(data) - CRC_TAIL_BYTES:
        raise BadInputError("malformed", "a frame's last field is its checksum")
    return fields


def _read_stream(reader: Reader) -> Stream:
    _fixed(reader, len(Stream._fields), "a stream")
    return Stream(*[reader.text() for _ in Stream._fields])


def _read_losses(reader: Reader) -> list[Loss]:
    return [_read_loss(reader) for _ in range(reader.array_header(limits.FRAME_LOSSES_MAX))]


# The unit came later, so it is written only where it is not what it was before.
def _loss_fields(loss: Loss) -> tuple[str | int | None, ...]:
    return tuple(loss)[:-1] if loss.unit == LossUnit.POSITION else tuple(loss)


def _read_loss(reader: Reader) -> Loss:
    most = len(Loss._fields)
    found = reader.array_header(most)
    if found < most - 1:
        raise BadInputError("malformed", f"a loss has {most - 1} or {most} elements, not {found}")
    kind, first, count = reader.text(), reader.integer(), reader.optional_integer()
    reason, found_by = reader.text(), reader.text()
    return Loss(kind, first, count, reason, found_by, reader.text() if found == most else LossUnit.POSITION)


def _fixed(reader: Reader, length: int, what: str) -> None:
    found = reader.array_header(length)
    if found != length:
        raise BadInputError("malformed", f"{what} has {length} elements, not {found}")


def _read_body(reader: Reader) -> bytes:
    return reader.binary(limits.FRAME_BYTES_MAX)


def _read_descriptor(reader: Reader) -> bytes | None:
    return reader.optional_binary(limits.DESCRIPTOR_BYTES_MAX)


#: How each field is taken; the key of any other is one that a later producer added.
_READ: Final[_Read] = {
    K_STREAM: _read_stream,
    **dict.fromkeys((K_RUN, K_ENCODING), Reader.text),
    **dict.fromkeys((K_NUMBER, K_FIRST, K_NEXT, K_COUNT, K_TS_FIRST, K_TS_LAST, K_REALTIME), Reader.integer),
    **dict.fromkeys((K_ENCODING_VERSION, K_CODEC, K_BODY_BYTES, K_CRC), Reader.integer),
    K_LOSSES: _read_losses,
    K_SNAPSHOT: Reader.optional_text,
    K_DESCRIPTOR: _read_descriptor,
    K_BODY: _read_body,
}


def _unpack_body(body: bytes, codec: int, size_bytes: int) -> bytes:
    if not 0 <= size_bytes <= limits.BODY_BYTES_MAX:
        raise BadInputError("limit", f"a body of {size_bytes} bytes, at most {limits.BODY_BYTES_MAX}")
    if codec == CODEC_ZSTD:
        body = zstd.decompress(body, size_bytes)
    elif codec != CODEC_NONE:
        raise BadInputError("codec", f"unknown codec {codec}")
    if len(body) != size_bytes:
        raise BadInputError("codec", f"{len(body)} bytes of body, {size_bytes} stated")
    return body


def _check(frame: Frame) -> None:
    if not 0 <= frame.first <= frame.next <= limits.INT64_MAX:
        raise BadInputError("limit", f"positions [{frame.first}, {frame.next}) are no range")
    for name, value, low, high in (
        ("frame number", frame.number, 0, limits.INT64_MAX),
        ("encoding version", frame.encoding_version, 0, limits.INT64_MAX),
        ("ts_first_ns", frame.ts_first_ns, limits.INT64_MIN, limits.INT64_MAX),
        ("ts_last_ns", frame.ts_last_ns, limits.INT64_MIN, limits.INT64_MAX),
        ("realtime_ns", frame.realtime_ns, limits.INT64_MIN, limits.INT64_MAX),
        ("number of records", frame.count, 0, limits.FRAME_RECORDS_MAX),
        ("number of losses", len(frame.losses), 0, limits.FRAME_LOSSES_MAX),
        ("size of the body", len(frame.body), 0, limits.BODY_BYTES_MAX),
        ("size of the descriptor hash", len(frame.descriptor or b""), 0, limits.DESCRIPTOR_BYTES_MAX),
    ):
        if not low <= value <= high:
            raise BadInputError("limit", f"{name} {value} is not within {low} to {high}")
    if not frame.stream.machine or not frame.stream.boot_id or not frame.stream.surface:
        raise BadInputError("limit", "machine, boot_id and surface must not be empty")
    _check_texts(*frame.stream, frame.run, frame.encoding, frame.snapshot or "")
    for loss in frame.losses:
        count = loss.count or 0
        last = loss.first_position + count if loss.unit == LossUnit.POSITION else max(loss.first_position, count)
        if loss.first_position < 0 or count < 0 or last > limits.INT64_MAX:
            raise BadInputError("limit", f"a loss of {loss.count} at {loss.first_position} is no range of positions")
        _check_texts(loss.kind, loss.reason, loss.found_by, loss.unit)


def _check_texts(*texts: str) -> None:
    for text in texts:
        # A character has at most four bytes, so the usual text need not be encoded to be measured.
        if "\x00" in text or (len(text) > _SHORT_CHARS and len(text.encode()) > limits.TEXT_BYTES_MAX):
            raise BadInputError("limit", f"text {text[:20]!r}... is too long or holds a NUL")
