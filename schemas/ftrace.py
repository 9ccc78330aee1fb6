"""The body encoding "ftrace", version 1: pages of a trace ring exactly as the kernel gave them, none decoded.

    u32   n        number of pages, little endian
    u32   size     bytes of each page, little endian: a power of two
    bytes          the pages, one after the other; nothing follows

A page is one sub-buffer of the kernel's ring as read(2) on `per_cpu/cpuN/trace_pipe_raw` gave it, header included, in
the byte order of its machine. Its position is its number in the stream, counted from 0: page i is `frame.first + i`.
Pages are not trimmed: what events leave free is zero, and a frame's compression makes 5 bytes of 4000 zeros.

The body encoding "ftrace-formats", version 1, says how to decode them: a msgpack map from text with the keys of
`Formats`. Its SHA-256 is what the frames of pages name as their descriptor.
Source: kernel/trace/ring_buffer.c (struct buffer_data_page), Documentation/trace/events.rst (format files).
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import msgpack

from schemas import limits
from schemas.errors import BadInputError
from schemas.msgpack_reader import Reader

PAGES_ENCODING: Final = "ftrace"
PAGES_VERSION: Final = 1
FORMATS_ENCODING: Final = "ftrace-formats"
FORMATS_VERSION: Final = 1
#: Bytes in front of the first page.
HEAD_BYTES: Final = 8
_HEADER_PAGE_BYTES_MAX: Final = 4096
_KEYS_MAX: Final = 64


class Pages(NamedTuple):
    """What a body of pages holds: `count` pages of `page_bytes` each, one after the other in `data`."""

    count: int  # type: ignore[assignment]  # shadows tuple.count
    page_bytes: int
    data: memoryview


@dataclass(slots=True)
class Formats:
    """All that decoding the pages of one ring takes.

    `header_page` is the text of `events/header_page`, `clock` the name of the ring's trace clock, `page_bytes` the size
    of its sub-buffers; `byteorder` (`little` or `big`) and `word_bytes` (4 or 8: a kernel `long`) are the kernel's;
    `events` maps each event, as `system:name`, to the text of its `format` file. `printk_formats` is that file's text:
    what the kernel's pointers to constant text point at.
    """

    header_page: str
    clock: str
    page_bytes: int
    byteorder: str
    word_bytes: int
    events: dict[str, str]
    printk_formats: str = ""


def head(count: int, page_bytes: int) -> bytes:
    """Return what stands in front of `count` pages of `page_bytes` each."""
    return count.to_bytes(4, "little") + page_bytes.to_bytes(4, "little")


def pack(pages: list[bytes], page_bytes: int) -> bytes:
    """Return the body that holds `pages`, each of `page_bytes`; the caller keeps to the limits of a frame."""
    assert all(len(page) == page_bytes for page in pages)
    return b"".join((head(len(pages), page_bytes), *pages))


def unpack(body: bytes) -> Pages:
    """Return the pages in `body`, a view without a copy.

    Raises:
        BadInputError: `reason` is `body`: the body is cut short, too long, or breaks a limit.
    """
    if len(body) < HEAD_BYTES:
        raise BadInputError("body", f"{len(body)} bytes hold no page count and size")
    count, page_bytes = (int.from_bytes(body[at : at + 4], "little") for at in (0, 4))
    if not page_size_ok(page_bytes):
        raise BadInputError("body", f"pages of {page_bytes} bytes: no size of a sub-buffer")
    if count * page_bytes != len(body) - HEAD_BYTES:
        raise BadInputError("body", f"{len(body) - HEAD_BYTES} bytes of pages, {count} of {page_bytes} stated")
    return Pages(count, page_bytes, memoryview(body)[HEAD_BYTES:])


def page_size_ok(page_bytes: int) -> bool:
    """Return whether a ring's sub-buffers can have this size."""
    in_bounds = limits.TRACE_PAGE_BYTES_LEAST <= page_bytes <= limits.TRACE_PAGE_BYTES_MAX
    return in_bounds and page_bytes & (page_bytes - 1) == 0


def pack_formats(formats: Formats) -> bytes:
    """Return the body that says `formats`: the same bytes for the same content, whatever the order of the events."""
    fields = asdict(formats)
    fields["events"] = dict(sorted(formats.events.items()))
    if not formats.printk_formats:
        del fields["printk_formats"]
    body: bytes = msgpack.packb(fields)
    return body


def descriptor(formats_body: bytes) -> bytes:
    """Return the 32 bytes by which frames of pages name the description in `formats_body`."""
    return hashlib.sha256(formats_body).digest()


def unpack_formats(body: bytes) -> Formats:
    """Return what `body` says.

    Raises:
        BadInputError: `reason` is `body`: no such map, a key is missing or there twice, or a limit is broken.
    """
    reader = Reader(body, "body")
    fields = {name: _READ.get(name, Reader.skip)(reader) for name in reader.keys(_KEYS_MAX)}
    reader.end()
    try:
        formats = Formats(**{name: fields[name] for name in _READ if name in fields or name not in _OPTIONAL})
    except KeyError as e:
        raise BadInputError("body", f"the description of events lacks {e}") from None
    if formats.byteorder not in ("little", "big") or formats.word_bytes not in (4, 8):
        raise BadInputError("body", f"no kernel: {formats.byteorder!r:.20} endian, words of {formats.word_bytes} bytes")
    if not page_size_ok(formats.page_bytes):
        raise BadInputError("body", f"pages of {formats.page_bytes} bytes: no size of a sub-buffer")
    return formats


def _read_events(reader: Reader) -> dict[str, str]:
    return {name: reader.text(limits.TRACE_FORMAT_BYTES_MAX) for name in reader.keys(limits.TRACE_EVENTS_MAX)}


def _read_header_page(reader: Reader) -> str:
    return reader.text(_HEADER_PAGE_BYTES_MAX)


def _read_texts(reader: Reader) -> str:
    return reader.text(limits.TRACE_FORMAT_BYTES_MAX)


def whole_lines(text: str) -> str:
    """Return as many lines of `printk_formats` as a description may have."""
    kept = text.encode()[: limits.TRACE_FORMAT_BYTES_MAX]
    if len(kept) == limits.TRACE_FORMAT_BYTES_MAX:
        kept = kept[: kept.rfind(b"\n") + 1]
    return kept.decode("utf-8", "ignore")


_OPTIONAL: Final = frozenset(("printk_formats",))
#: How the value of each key is taken; any other is one that a later producer added.
_READ: Final[dict[str, Callable[[Reader], Any]]] = {
    "header_page": _read_header_page,
    "clock": Reader.text,
    "page_bytes": Reader.integer,
    "byteorder": Reader.text,
    "word_bytes": Reader.integer,
    "events": _read_events,
    "printk_formats": _read_texts,
}
