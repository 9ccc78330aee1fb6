"""The frame: one batch of one stream's raw bytes plus its tags; one Kafka message.

Wire form: schemas/WIRE.md, pinned by tests/schemas/golden/. A msgpack map with small integer keys whose last entry is
the CRC-32 (ISO-HDLC, as in zlib) of every byte before that checksum's own five bytes.
"""

import zlib
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack
import zstandard

from schemas import limits
from schemas.errors import BadInputError
from schemas.loss import Loss
from schemas.stream import Stream

VERSION: Final = 1
# Keys. New fields get the next number, with a default on decode; no field changes type; CRC stays physically last.
K_VERSION, K_STREAM, K_RUN, K_NUMBER, K_FIRST, K_NEXT, K_COUNT = range(7)
K_LOSSES, K_TS_FIRST, K_TS_LAST, K_REALTIME, K_SNAPSHOT = range(7, 12)
K_ENCODING, K_ENCODING_VERSION, K_DESCRIPTOR, K_CODEC, K_BODY_BYTES, K_BODY = range(12, 18)
K_CRC: Final = 127
CODEC_NONE, CODEC_ZSTD = 0, 1
# A body shorter than this is not worth a compressor's call.
_COMPRESS_FROM_BYTES: Final = 512
_CRC_TAIL_BYTES: Final = 5  # 0xce and four bytes, big endian
_compressor = zstandard.ZstdCompressor(level=1, write_content_size=True)


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
        packed = _compressor.compress(body)
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
        K_LOSSES: [tuple(loss) for loss in frame.losses],
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
    head = data[:-_CRC_TAIL_BYTES]
    return head + b"\xce" + zlib.crc32(head).to_bytes(4, "big")


def decode(data: bytes) -> Frame:
    """Return the frame in `data`, every limit and the checksum verified.

    Raises:
        BadInputError: `reason` is one of `oversize`, `truncated`, `checksum`, `version`, `malformed`, `limit`, `codec`.
    """
    fields = _unpack(data)
    version = fields.get(K_VERSION)
    if version != VERSION:
        raise BadInputError("version", f"frame version {version!r}, this reader knows {VERSION}")
    try:
        frame = Frame(
            stream=Stream(*_texts(fields[K_STREAM], len(Stream._fields))),
            run=_text(fields[K_RUN]),
            number=_int(fields[K_NUMBER]),
            first=_int(fields[K_FIRST]),
            next=_int(fields[K_NEXT]),
            count=_int(fields[K_COUNT]),
            losses=[_loss(entry) for entry in _list(fields[K_LOSSES], limits.FRAME_LOSSES_MAX)],
            ts_first_ns=_int(fields[K_TS_FIRST]),
            ts_last_ns=_int(fields[K_TS_LAST]),
            realtime_ns=_int(fields[K_REALTIME]),
            snapshot=_optional_text(fields.get(K_SNAPSHOT)),
            encoding=_text(fields[K_ENCODING]),
            encoding_version=_int(fields[K_ENCODING_VERSION]),
            descriptor=_optional_bytes(fields.get(K_DESCRIPTOR)),
            body=_body(fields),
        )
    except KeyError as e:
        raise BadInputError("malformed", f"field {e} is missing") from None
    _check(frame)
    return frame


def _unpack(data: bytes) -> dict[Any, Any]:
    if len(data) > limits.FRAME_BYTES_MAX:
        raise BadInputError("oversize", f"{len(data)} bytes, at most {limits.FRAME_BYTES_MAX}")
    if len(data) <= _CRC_TAIL_BYTES:
        raise BadInputError("truncated", f"{len(data)} bytes are no frame")
    head, tail = data[:-_CRC_TAIL_BYTES], data[-_CRC_TAIL_BYTES:]
    # The checksum first: nothing else of damaged bytes is worth a message.
    if tail[0] != 0xCE or zlib.crc32(head) != int.from_bytes(tail[1:], "big"):
        raise BadInputError("checksum", "the frame's CRC-32 does not match its bytes")
    try:
        fields = msgpack.unpackb(
            data,
            strict_map_key=False,
            max_bin_len=limits.FRAME_BYTES_MAX,
            max_str_len=limits.TEXT_BYTES_MAX,
            max_array_len=limits.FRAME_LOSSES_MAX,
            max_map_len=64,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as e:
        raise BadInputError("malformed", f"no msgpack map: {type(e).__name__} {e}") from None
    if not isinstance(fields, dict):
        raise BadInputError("malformed", f"a frame is a map, this is {type(fields).__name__}")
    return fields


def _body(fields: dict[Any, Any]) -> bytes:
    body, codec, size_bytes = fields[K_BODY], fields[K_CODEC], _int(fields[K_BODY_BYTES])
    if not isinstance(body, bytes):
        raise BadInputError("malformed", "the body is no bin")
    if size_bytes > limits.BODY_BYTES_MAX:
        raise BadInputError("limit", f"a body of {size_bytes} bytes, at most {limits.BODY_BYTES_MAX}")
    if codec == CODEC_ZSTD:
        try:
            if zstandard.frame_content_size(body) != size_bytes:
                raise BadInputError("codec", "the stated body size is not the compressed frame's")
            body = zstandard.ZstdDecompressor().decompress(body, max_output_size=limits.BODY_BYTES_MAX)
        except zstandard.ZstdError as e:
            raise BadInputError("codec", f"zstd: {e}") from None
    elif codec != CODEC_NONE:
        raise BadInputError("codec", f"unknown codec {codec!r}")
    if len(body) != size_bytes:
        raise BadInputError("codec", f"{len(body)} bytes of body, {size_bytes} stated")
    return body


def _check(frame: Frame) -> None:
    if not 0 <= frame.first <= frame.next <= limits.INT64_MAX:
        raise BadInputError("limit", f"positions [{frame.first}, {frame.next}) are no range")
    if not 0 <= frame.count <= limits.FRAME_RECORDS_MAX:
        raise BadInputError("limit", f"{frame.count} records, at most {limits.FRAME_RECORDS_MAX}")
    if frame.number < 0 or len(frame.body) > limits.BODY_BYTES_MAX or len(frame.losses) > limits.FRAME_LOSSES_MAX:
        raise BadInputError("limit", "frame number, body or losses out of bounds")
    for text in (*frame.stream, frame.run, frame.encoding):
        if len(text.encode()) > limits.TEXT_BYTES_MAX or "\x00" in text:
            raise BadInputError("limit", f"text field {text[:20]!r}... is too long or holds a NUL")
    if not frame.stream.machine or not frame.stream.boot_id or not frame.stream.surface:
        raise BadInputError("malformed", "machine, boot_id and surface must not be empty")


def _int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -limits.INT64_MAX - 1 <= value <= limits.INT64_MAX:
        raise BadInputError("malformed", f"{value!r:.40} is no 64-bit integer")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadInputError("malformed", f"{value!r:.40} is no text")
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _optional_bytes(value: object) -> bytes | None:
    if value is not None and (not isinstance(value, bytes) or len(value) > limits.TEXT_BYTES_MAX):
        raise BadInputError("malformed", "the descriptor hash is no short bin")
    return value


def _list(value: object, length_max: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > length_max:
        raise BadInputError("malformed", f"{value!r:.40} is no list of at most {length_max}")
    return value


def _texts(value: object, length: int) -> list[str]:
    values = _list(value, length)
    if len(values) != length:
        raise BadInputError("malformed", f"{length} texts expected, {len(values)} found")
    return [_text(item) for item in values]


def _loss(value: object) -> Loss:
    entry = _list(value, len(Loss._fields))
    if len(entry) != len(Loss._fields):
        raise BadInputError("malformed", f"a loss has {len(Loss._fields)} fields, not {len(entry)}")
    kind, first, count, reason, found_by = entry
    loss = Loss(_text(kind), _int(first), None if count is None else _int(count), _text(reason), _text(found_by))
    if loss.first_position < 0 or (loss.count is not None and loss.count < 0):
        raise BadInputError("limit", "a loss has no negative position or count")
    return loss
