r"""The append format of the log, sans-IO: segment headers, entries, and the record of what is durable. Big-endian.

    header    magic 8s "HYPOSEG\n" | version u32 | body length u32 | base offset u64 | floor i64 | body | CRC-32 u32
              body: msgpack list of [machine, boot_id, layer, surface, instance, clock, next position, frame number],
              one per stream, as they were before the segment's first entry; the CRC covers all before it
    entry     payload length u32 | CRC-32 u32 | offset u64 | append time i64 | payload; the CRC covers all after itself
    end       magic 8s "HYPOEND\n" | offset u64 | base of the newest segment u64 | byte position in it u64 | CRC-32 u32

Offsets in a segment are consecutive from its base. Times are CLOCK_REALTIME in ns; the floor is the newest append time
before the segment, so it also says when the segment before was closed.

What is invalid lies either behind the durable end: a torn tail, which nobody was shown and a writer cuts. Or below it:
damage. Damaged bytes are not skipped: a reader hands them out as the payload of the offset that they held (see
`schemas.log_cursor`), so that they end as dead letters, and goes on at the next valid entry, which `candidates` finds.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgpack

from schemas import limits
from schemas.crc import crc32, shifted
from schemas.errors import BadInputError
from schemas.frame import Parts
from schemas.stream import Stream

VERSION: Final = 1
_MAGIC: Final = b"HYPOSEG\n"
_END_MAGIC: Final = b"HYPOEND\n"
_HEADER: Final = struct.Struct(">8sIIQq")
_ENTRY: Final = struct.Struct(">IIQq")
_ENTRY_COVERED: Final = struct.Struct(">Qq")
_END: Final = struct.Struct(">8sQQQ")
_CRC: Final = struct.Struct(">I")
_COVERED_FROM: Final = _ENTRY.size - _ENTRY_COVERED.size

#: Bytes in front of a header's body, enough for `header_bytes`; bytes in front of an entry's payload.
HEADER_PREFIX_BYTES: Final = _HEADER.size
ENTRY_PREFIX_BYTES: Final = _ENTRY.size
END_BYTES: Final = _END.size + _CRC.size
#: Most streams that a header can carry; a writer forgets those that were silent for longest.
STREAMS_MAX: Final = 8192
_BODY_BYTES_MAX: Final = 16 << 20

#: Offset, append time in ns, payload. A plain tuple: millions of them are made.
Entry = tuple[int, int, bytes]


class StreamPosition(NamedTuple):
    """Where a stream stands: its next position, and the number of its last frame."""

    next: int
    number: int


class Header(NamedTuple):
    """The start of a segment; `size_bytes` is where its first entry begins."""

    base: int
    floor_ns: int
    streams: dict[Stream, StreamPosition]
    size_bytes: int


class End(NamedTuple):
    """What is durable: every offset below `offset`; the newest segment is `base`, valid up to byte `position`."""

    offset: int
    base: int
    position: int


class Split(NamedTuple):
    """Entries found, and where they stop.

    `damaged` says that the bytes at `consumed` are not the entry that belongs there; else they are the beginning of one
    that takes `needed_bytes`.
    """

    entries: list[Entry]
    consumed: int
    damaged: bool
    needed_bytes: int


def encode_header(base: int, floor_ns: int, streams: Mapping[Stream, StreamPosition]) -> bytes:
    """Return the header of a segment whose first entry has the offset `base`."""
    assert len(streams) <= STREAMS_MAX
    body: bytes = msgpack.packb([[*stream, *at] for stream, at in streams.items()])
    data = _HEADER.pack(_MAGIC, VERSION, len(body), base, floor_ns) + body
    return data + _CRC.pack(crc32(data))


def header_bytes(prefix: bytes) -> int:
    """Return the length of the header that begins with `prefix` (HEADER_PREFIX_BYTES long).

    Raises:
        BadInputError: `reason` is `segment`: no header of this version, or one beyond the limit.
    """
    if len(prefix) < _HEADER.size:
        raise BadInputError("segment", f"{len(prefix)} bytes are no segment header")
    magic, version, body_bytes, _, _ = _HEADER.unpack_from(prefix)
    if magic != _MAGIC:
        raise BadInputError("segment", f"{magic!r} is not the magic of a segment")
    if version != VERSION:
        raise BadInputError("segment", f"segment version {version}, this reader knows {VERSION}")
    if body_bytes > _BODY_BYTES_MAX:
        raise BadInputError("segment", f"a header body of {body_bytes} bytes, at most {_BODY_BYTES_MAX}")
    return _HEADER.size + int(body_bytes) + _CRC.size


def decode_header(data: bytes) -> Header:
    """Return the header in `data`, which is exactly `header_bytes` long.

    Raises:
        BadInputError: `reason` is `segment`: cut short, damaged, or beyond a limit.
    """
    size_bytes = header_bytes(data)
    body = data[_HEADER.size : size_bytes - _CRC.size]
    if len(data) != size_bytes or _CRC.unpack_from(data, size_bytes - _CRC.size)[0] != crc32(data[: -_CRC.size]):
        raise BadInputError("segment", "the header's CRC-32 does not match its bytes")
    _, _, _, base, floor_ns = _HEADER.unpack_from(data)
    try:
        rows = msgpack.unpackb(body, max_array_len=STREAMS_MAX, max_str_len=limits.TEXT_BYTES_MAX, max_map_len=0)
        streams = dict(map(_stream_row, rows))
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as e:
        raise BadInputError("segment", f"the header's streams: {type(e).__name__} {e}") from None
    return Header(base, floor_ns, streams, size_bytes)


def encode_entry(offset: int, append_ns: int, payload: bytes) -> bytes:
    """Return the entry that holds `payload`, 1 to FRAME_BYTES_MAX bytes."""
    return encode_prefix(offset, append_ns, (payload,)) + payload


def encode_prefix(offset: int, append_ns: int, parts: Parts, payload_crc: int | None = None) -> bytes:
    """Return what an entry has in front of the payload that is in `parts`, whose CRC-32 may be known."""
    size_bytes = sum(map(len, parts))
    assert 0 < size_bytes <= limits.FRAME_BYTES_MAX
    crc = crc32(_ENTRY_COVERED.pack(offset, append_ns))
    if payload_crc is not None:
        crc = shifted(crc, size_bytes) ^ payload_crc
    else:
        for part in parts:
            crc = crc32(part, crc)
    return _ENTRY.pack(size_bytes, crc, offset, append_ns)


def split(data: bytes, offset: int) -> Split:
    """Return the entries at the start of `data`, the first of which has `offset`; stops where one is cut or invalid."""
    entries: list[Entry] = []
    unpack_from, keep = _ENTRY.unpack_from, entries.append
    view, at, size_bytes = memoryview(data), 0, len(data)
    while size_bytes - at >= ENTRY_PREFIX_BYTES:
        length, crc, found, append_ns = unpack_from(data, at)
        if found != offset or not 0 < length <= limits.FRAME_BYTES_MAX:
            return Split(entries, at, damaged=True, needed_bytes=0)
        stop = at + ENTRY_PREFIX_BYTES + length
        if stop > size_bytes:
            return Split(entries, at, damaged=False, needed_bytes=stop - at)
        if crc32(view[at + _COVERED_FROM : stop]) != crc:
            return Split(entries, at, damaged=True, needed_bytes=0)
        keep((offset, append_ns, data[at + ENTRY_PREFIX_BYTES : stop]))
        at, offset = stop, offset + 1
    return Split(entries, at, damaged=False, needed_bytes=ENTRY_PREFIX_BYTES)


def candidates(data: bytes, low: int, high: int) -> Iterator[tuple[int, int, int]]:
    """Yield (position, entry bytes, offset) wherever `data` looks like an entry with an offset in `[low, high)`.

    Only the prefix is looked at, the checksum is the caller's to verify.
    """
    first, last = low.to_bytes(8, "big"), (high - 1).to_bytes(8, "big")
    common = next((i for i in range(8) if first[i] != last[i]), 8)
    # A lookahead, because a false start must not hide a true one that begins inside it.
    pattern = rb"(?=\x00[\x00-\x%02x].{6}%s)" % (limits.FRAME_BYTES_MAX >> 16, re.escape(first[:common]))
    for match in re.finditer(pattern, data, re.DOTALL):
        at = match.start()
        if at + ENTRY_PREFIX_BYTES > len(data):
            return
        length, _, offset, _ = _ENTRY.unpack_from(data, at)
        if low <= offset < high and 0 < length <= limits.FRAME_BYTES_MAX:
            yield at, ENTRY_PREFIX_BYTES + length, offset


def encode_end(end: End) -> bytes:
    """Return the record that says `end`: END_BYTES, which fit one sector."""
    data = _END.pack(_END_MAGIC, *end)
    return data + _CRC.pack(crc32(data))


def decode_end(data: bytes) -> End:
    """Return what the record in `data` says.

    Raises:
        BadInputError: `reason` is `end`: it is damaged, or was read while being written.
    """
    if len(data) != END_BYTES or _CRC.unpack_from(data, _END.size)[0] != crc32(data[: _END.size]):
        raise BadInputError("end", f"{len(data)} bytes whose CRC-32 does not match")
    magic, offset, base, position = _END.unpack_from(data)
    if magic != _END_MAGIC or not base <= offset <= limits.INT64_MAX or position > limits.INT64_MAX:
        raise BadInputError("end", f"{magic!r}, offset {offset}, base {base}, byte {position}")
    return End(offset, base, position)


def _stream_row(row: Any) -> tuple[Stream, StreamPosition]:
    *texts, position, number = row
    if not all(isinstance(text, str) for text in texts) or not all(
        type(n) is int and n >= 0 for n in (position, number)
    ):
        raise ValueError(f"{row!r:.80} is no stream's row")
    return Stream(*texts), StreamPosition(position, number)
