"""What loss accounting needs of ring pages: the header of each, nothing behind it.

Source: kernel/trace/ring_buffer.c (ring_buffer_read_page, struct buffer_data_page); `events/header_page` gives the
offsets. Bit 31 of `commit` says that events were lost in front of the page, bit 30 that their number is stored, as a
kernel `long`, right behind the data: only where that had room. RB_MISSED_EVENTS is a negative int, so on 64 bits the
upper half is all ones.
"""

import re
import sys
from typing import Final, Literal, NamedTuple

_FIELD: Final = re.compile(r"field:[^;]*\b(\w+);\s*offset:(\d+);\s*size:(\d+);")
_CODES: Final[dict[int, Literal["I", "Q"]]] = {4: "I", 8: "Q"}
_MISSED: Final = 1 << 31
_STORED: Final = 1 << 30
_SIZE_MASK: Final = (1 << 27) - 1
_TIME_BYTES: Final = 8


class Geometry(NamedTuple):
    """Sizes and offsets in bytes; `commit_bytes` is also the size of a kernel `long`."""

    page_bytes: int
    commit_offset: int
    commit_bytes: int
    data_offset: int


class Heads(NamedTuple):
    """The headers of some pages: the times of the first and the last, on the ring's clock, and what was lost.

    `lost` has one (index of the page, number of events right before it) for each page that says so; None where the
    kernel could not store the number.
    """

    ts_first_ns: int
    ts_last_ns: int
    lost: list[tuple[int, int | None]]


def geometry(header_page: str) -> Geometry:
    """Return the layout that the text of `events/header_page` describes.

    Raises:
        ValueError: it describes none that this knows.
    """
    fields = {name: (int(offset), int(size)) for name, offset, size in _FIELD.findall(header_page)}
    try:
        (time_offset, time_bytes), (commit_offset, commit_bytes) = fields["timestamp"], fields["commit"]
        data_offset, data_bytes = fields["data"]
    except KeyError as e:
        raise ValueError(f"events/header_page has no field {e}") from None
    found = Geometry(data_offset + data_bytes, commit_offset, commit_bytes, data_offset)
    aligned = commit_bytes in _CODES and commit_offset % commit_bytes == 0 and found.page_bytes % _TIME_BYTES == 0
    if (time_offset, time_bytes) != (0, _TIME_BYTES) or not aligned:
        raise ValueError(f"events/header_page has an unknown layout: {fields}")
    return found


def read_heads(pages: memoryview, layout: Geometry) -> Heads:
    """Return what the headers of `pages` say: at least one page, of this machine's byte order, one behind the other.

    `pages` is a contiguous view of bytes whose start is aligned to 8.
    """
    page_bytes, word_bytes = layout.page_bytes, layout.commit_bytes
    words = pages.cast(_CODES[word_bytes])
    commits: list[int] = words[layout.commit_offset // word_bytes :: page_bytes // word_bytes].tolist()
    lost: list[tuple[int, int | None]] = []
    for index, commit in enumerate(commits):
        if commit & _MISSED:
            lost.append((index, _stored(pages, index * page_bytes, commit, layout)))
    first, last = pages[:_TIME_BYTES], pages[-page_bytes : len(pages) - page_bytes + _TIME_BYTES]
    return Heads(int.from_bytes(first, sys.byteorder), int.from_bytes(last, sys.byteorder), lost)


def _stored(pages: memoryview, start: int, commit: int, layout: Geometry) -> int | None:
    at = layout.data_offset + (commit & _SIZE_MASK)
    if not commit & _STORED or at + layout.commit_bytes > layout.page_bytes:
        return None
    return int.from_bytes(pages[start + at : start + at + layout.commit_bytes], sys.byteorder)
