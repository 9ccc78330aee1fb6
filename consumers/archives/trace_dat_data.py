"""Where trace.dat has the pages of each CPU, and how they are read: as they are, or in compressed chunks.

Compressed data of one CPU, numbers in the byte order of the file:

    u32       number of chunks; then for each
    u32       bytes of it here
    u32       bytes of it decompressed: whole pages
    bytes     itself

A section of the file that is compressed has the last three, once.
Source: trace-cmd.dat.v7(5).
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

import zstandard

from consumers.archives import trace, trace_texts
from consumers.archives.octets import Cursor, Octets
from consumers.archives.trace import Buffer, Piece, Ring
from consumers.archives.trace_dat_meta import Options
from consumers.decode.ftrace_format import PageHeader
from schemas import limits
from schemas.errors import BadInputError

#: The most that one chunk, or one section, may take decompressed.
CHUNK_BYTES_MAX: Final = 32 << 20
_TOP: Final = "top"
_COUNT_BYTES: Final = 4
_CPU_MAX: Final = 999_999
_NAME_BYTES_MAX: Final = 200
_CUT_OFF: Final = "archive-cut-off"
_UNREADABLE: Final = "chunk-unreadable"
#: Takes what is compressed and the size that it must have; a BadInputError says that it is something else.
Decompress = Callable[[bytes, int], bytes]


class Extent(NamedTuple):
    """Where the data of one CPU lie in the file, in bytes."""

    cpu: int
    at: int
    size_bytes: int


class Part(NamedTuple):
    """One buffer as the file describes it; `decompress` is None where its data are as the ring gave them."""

    name: str
    clock: str
    page_bytes: int
    extents: list[Extent]
    decompress: Decompress | None = None


def decompressor(name: str, what: str) -> Decompress | None:
    """Return what undoes the compression called `name`; None for `none`.

    Raises:
        BadInputError: `reason` is `compression`: nobody here knows it.
    """
    known: dict[str, Decompress | None] = {"none": None, "zstd": _zstd, "zlib": _zlib}
    if name not in known:
        raise BadInputError("compression", f"{what} is compressed by {name!r:.40}; zstd and zlib can be read")
    return known[name]


def buffers(parts: list[Part], octets: Octets, header: PageHeader, options: Options, what: str) -> list[Buffer]:
    """Return the rings of all `parts`, to be read from `octets`.

    Raises:
        BadInputError: `reason` is `format`: a size, name or CPU cannot be, or data of two CPUs overlap.
    """
    names = [part.name or _TOP for part in parts]
    for name in names:
        if "/" in name or not name.isprintable() or len(name.encode()) > _NAME_BYTES_MAX or names.count(name) > 1:
            raise BadInputError("format", f"{what} has a buffer {name!r:.60}: no name, or that of two")
    _check_extents([extent for part in parts for extent in part.extents], what)
    dropped = options.dropped()
    found = []
    for name, part in zip(names, parts, strict=True):
        trace.check_page_size(part.page_bytes, header, what)
        if len({extent.cpu for extent in part.extents}) < len(part.extents):
            raise BadInputError("format", f"{what} has data of one CPU twice in buffer {name!r}")
        rings = []
        for extent in part.extents:
            pieces = partial(_plain, octets, extent, part.page_bytes)
            if part.decompress is not None:
                pieces = partial(_chunks, octets, extent, part.page_bytes, part.decompress, header.big_endian)
            rings.append(Ring(extent.cpu, pieces, dropped.get((part.name, extent.cpu), {})))
        found.append(Buffer(name, trace_texts.clock(part.clock), part.page_bytes, rings))
    return found


def section(data: Cursor, decompress: Decompress | None) -> bytes:
    """Return what the compressed section at `data` holds.

    Raises:
        BadInputError: it is cut off, too long or damaged.
    """
    if decompress is None:
        raise BadInputError("compression", f"{data.what} has a compressed section, and names no compression")
    packed_bytes, size_bytes = data.number(4), data.number(4)
    data.need(packed_bytes)
    return decompress(data.octets_of(packed_bytes), _bounded(size_bytes))


# The same bytes for several CPUs would make much of little.
def _check_extents(extents: Iterable[Extent], what: str) -> None:
    end = 0
    for extent in sorted((each for each in extents if each.size_bytes), key=lambda each: each.at):
        start, end = end, extent.at + extent.size_bytes
        if extent.at < start or end > limits.INT64_MAX or extent.cpu > _CPU_MAX:
            where = f"{extent.size_bytes:,} bytes of CPU {extent.cpu} at byte {extent.at:,}"
            raise BadInputError("format", f"{what} has {where}: they overlap with others, or cannot be")


def _plain(octets: Octets, extent: Extent, page_bytes: int) -> Iterator[Piece]:
    step = max(trace.BODY_BYTES, page_bytes)
    left = extent.size_bytes
    while left and (data := octets.read(extent.at + extent.size_bytes - left, min(step, left))):
        left -= len(data)
        yield Piece(data, len(data))
    # The page that the cut goes through is a dead letter.
    lost = _pages(extent.size_bytes, page_bytes) - _pages(extent.size_bytes - left, page_bytes)
    if lost:
        yield Piece(b"", 0, lost, _CUT_OFF)


def _chunks(
    octets: Octets, extent: Extent, page_bytes: int, decompress: Decompress, big_endian: bool
) -> Iterator[Piece]:
    cursor = Cursor(octets, "data", extent.at, big_endian=big_endian)
    # Writers do not count the number of chunks among the bytes that they state.
    end = extent.at + _COUNT_BYTES + extent.size_bytes
    left, packed_bytes = 0, 0
    try:
        left = cursor.number(4) if extent.size_bytes else 0
        while left:
            packed_bytes, size_bytes = cursor.number(4), cursor.number(4)
            if cursor.at + packed_bytes > end:
                break
            left -= 1
            yield _chunk(cursor, packed_bytes, size_bytes, page_bytes, decompress)
    except BadInputError:
        left = max(left, 1)
    if left:
        yield Piece(b"", 0, None, _CUT_OFF)


def _chunk(cursor: Cursor, packed_bytes: int, size_bytes: int, page_bytes: int, decompress: Decompress) -> Piece:
    here = min(packed_bytes, max(cursor.octets.size_bytes - cursor.at, 0))
    packed = cursor.octets.read(cursor.at, here) if here <= CHUNK_BYTES_MAX else b""
    cursor.at += packed_bytes
    try:
        return Piece(decompress(packed, _bounded(size_bytes)), here)
    except BadInputError:
        reason = _UNREADABLE if here == packed_bytes else _CUT_OFF
        return Piece(b"", here, _pages(size_bytes, page_bytes), reason)


def _pages(size_bytes: int, page_bytes: int) -> int:
    return -(-size_bytes // page_bytes)


def _bounded(size_bytes: int) -> int:
    if size_bytes > CHUNK_BYTES_MAX:
        raise BadInputError("compression", f"{size_bytes:,} bytes in one piece, at most {CHUNK_BYTES_MAX:,}")
    return size_bytes


# A frame may state its own size, and memory would be taken for it.
def _zstd(data: bytes, size_bytes: int) -> bytes:
    try:
        stated = zstandard.get_frame_parameters(data).content_size
        if stated not in (size_bytes, zstandard.CONTENTSIZE_UNKNOWN):
            raise BadInputError("compression", f"{stated:,} bytes in a frame, {size_bytes:,} stated")
        found = zstandard.ZstdDecompressor().decompress(data, max_output_size=size_bytes)
    except zstandard.ZstdError as e:
        raise BadInputError("compression", f"zstd: {e}") from None
    return _sized(found, size_bytes)


def _zlib(data: bytes, size_bytes: int) -> bytes:
    try:
        found = zlib.decompressobj().decompress(data, size_bytes + 1)
    except zlib.error as e:
        raise BadInputError("compression", f"zlib: {e}") from None
    return _sized(found, size_bytes)


def _sized(data: bytes, size_bytes: int) -> bytes:
    if len(data) != size_bytes:
        raise BadInputError("compression", f"{len(data):,} bytes came out, {size_bytes:,} are stated")
    return data
