"""Raw ring-buffer pages to columns of events: where each event's payload is, when it was, what was lost before it.

A page, as `trace_pipe_raw` gives it, is a time (u64), a `commit` word of the machine's `long`, and records. The
commit's low 27 bits are the size of the records; bit 31 says that events were lost before the page's first one, and
bit 30 that their count stands behind the records, as a `long`. A record is a 32-bit word (5 bits of type, 27 of time
since the record before), and what its type says:

==========  ==========================================================================================
1 to 28     an event of 4 times that many bytes
0           an event; its size, the length word included, comes first
29          an event that was discarded; a length word, and the time passes unless the delta is 1
30          no event: 32 more bits of time since the record before
31          no event: an absolute time of 59 bits
==========  ==========================================================================================

The loop is in `ftrace_loops`, which says why it is compiled. What it must give is written down once more, slowly and
plainly, in the tests.

Source: kernel/trace/ring_buffer.c, include/linux/ring_buffer.h, Documentation/trace/ring-buffer-design.rst.
"""

import sys
from enum import IntEnum
from importlib import import_module
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from consumers.decode import slice_columns
from consumers.decode.ftrace_format import PageHeader
from consumers.decode.slices import Bytes, Ints
from schemas import limits

Int32s = npt.NDArray[np.int32]
#: The shortest record, padding included, is a word and four bytes.
_RECORD_BYTES_MIN: Final = 8
_SIZE_MASK: Final = (1 << 27) - 1
_MISSED: Final = 1 << 31
_STORED: Final = 1 << 30
_COLUMN_TYPES: Final = (np.int32, np.int32, np.int64, np.uint16, np.int64, np.int32)
_BIG_HERE: Final = sys.byteorder == "big"
#: An event's id has 16 bits.
IDS: Final = 1 << 16
# More is not kept for the next time: only the fields of a hostile format overlap so often.
_PASSING_WORDS_MAX: Final = 4 << 20
_BY_PAGE_TYPES: Final = (np.int32, np.int64, np.uint8, np.int32)


class Fault(IntEnum):
    """Why the reading of a page ended early; what came before is kept.

    `COMMIT`: more records are stated than a page holds. `ZEROED`: the rest is zeros, seen after sudden power loss and
    on some devices. `LENGTH`: a length that no record can have. `BEYOND`: a record reaches past the last one.
    `PADDING`: what fills the end of a page, in front of more records. `TRUNCATED`: not a whole page (the walk itself
    never gives it).
    """

    NONE = 0
    COMMIT = 1
    ZEROED = 2
    LENGTH = 3
    BEYOND = 4
    PADDING = 5
    TRUNCATED = 6


class Walked(NamedTuple):
    """Events of many pages in order, and what each page says.

    By event: `page` (index), `position` (its number among the page's events), `ts` (in the ring's clock, ns unless
    that counts otherwise), `event_id`, and `start` and `length` of the payload, bytes in the whole buffer. By page:
    `events`, `lost` before the page's first event (0 none, -1 a number that the kernel did not keep), `fault`, and
    `fault_at`, the byte in the page at which reading ended. By id, of which there are `IDS`:
    `counts` of whole events, which have `least_bytes`.
    """

    page: Int32s
    position: Int32s
    ts: Ints
    event_id: npt.NDArray[np.uint16]
    start: Ints
    length: Int32s
    events: Int32s
    lost: Ints
    fault: Bytes
    fault_at: Int32s
    counts: Ints
    least_bytes: Int32s


class Heads(NamedTuple):
    """The headers of some pages: the times of the first and the last, and what was lost.

    `lost` has one (index of the page, number of events right before it) for each page that says so; None where the
    kernel did not keep the number.
    """

    ts_first_ns: int
    ts_last_ns: int
    lost: list[tuple[int, int | None]]


class Space:
    """Memory that is used again and again: fresh pages of the system's cost more than the walk itself."""

    def __init__(self) -> None:
        self._octets = np.empty(0, np.uint8)
        self._columns: tuple[Any, ...] = tuple(np.empty(0, type_) for type_ in _COLUMN_TYPES)
        self._passing = np.empty(0, np.uint64)
        self._others = np.empty(0, np.int64)

    def joined(self, parts: list[Any]) -> Bytes:
        """Return the bytes of `parts` one behind the other, valid until the next call."""
        size = sum(len(part) for part in parts)
        if size > len(self._octets):
            self._octets = np.empty(size, np.uint8)
        at = 0
        for part in parts:
            self._octets[at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
        return self._octets[:size]

    def columns(self, rows: int) -> tuple[Any, ...]:
        """Return a column of at least `rows` for each of a `Walked`, valid until the next call."""
        if rows > len(self._columns[0]):
            self._columns = tuple(np.empty(rows, type_) for type_ in _COLUMN_TYPES)
        return self._columns

    def passing(self, words: int) -> npt.NDArray[np.uint64]:
        """Return at least that many words of eight bytes, valid until the next call; a great many are not kept."""
        if words > _PASSING_WORDS_MAX:
            return np.empty(words, np.uint64)
        if words > len(self._passing):
            self._passing = np.empty(words, np.uint64)
        return self._passing

    def others(self, rows: int) -> Ints:
        """Return at least that many numbers, valid until the next call."""
        if rows > len(self._others):
            self._others = np.empty(rows, np.int64)
        return self._others


def fits(header: PageHeader, page_bytes: int) -> bool:
    """Return whether pages of `page_bytes` can be as `header` says, with room for a record."""
    apart = 8 <= header.commit_offset <= header.data_offset - header.commit_bytes and header.commit_bytes in (4, 8)
    return apart and header.data_offset + _RECORD_BYTES_MIN <= page_bytes <= limits.TRACE_PAGE_BYTES_MAX


def read_heads(data: Any, header: PageHeader, page_bytes: int) -> Heads:
    """Return what the headers of the pages in `data` say: at least one page, all whole."""
    pages = np.frombuffer(data, np.uint8).reshape(-1, page_bytes)
    order, word_bytes = ">" if header.big_endian else "<", header.commit_bytes
    stamps = np.ascontiguousarray(pages[:, :8]).view(f"{order}i8")[:, 0]
    commits = np.ascontiguousarray(pages[:, header.commit_offset :][:, :word_bytes]).view(f"{order}u{word_bytes}")[:, 0]
    lost: list[tuple[int, int | None]] = []
    for index in np.flatnonzero(commits & commits.dtype.type(_MISSED)).tolist():
        commit = int(commits[index])
        at = header.data_offset + (commit & _SIZE_MASK)
        stored = pages[index, at : at + word_bytes].tobytes() if commit & _STORED else b""
        count = (
            int(np.frombuffer(stored, f"{order}{'i8' if word_bytes == 8 else 'u4'}")[0])
            if len(stored) == word_bytes
            else 0
        )
        lost.append((index, count if count > 0 else None))
    return Heads(int(stamps[0]), int(stamps[-1]), lost)


def walk(
    data: Any, header: PageHeader, page_bytes: int, space: Space | None = None, least_bytes: Int32s | None = None
) -> Walked:
    """Return the events in `data`, a buffer of whole pages of `page_bytes` each.

    With a `space` its columns are valid until the next walk in it. Whole is an event of as many bytes as `least_bytes`,
    by id, says; without, each is.

    No byte outside a page is read for it, whatever it holds; a page that is wrong gives what is right before the
    fault, and the next goes on.
    """
    octets = np.frombuffer(data, np.uint8)
    assert fits(header, page_bytes)
    pages, rest = divmod(len(octets), page_bytes)
    assert rest == 0, "whole pages"
    most = pages * ((page_bytes - header.data_offset) // _RECORD_BYTES_MIN)
    big = header.big_endian
    layout = (page_bytes, header.data_offset, header.commit_offset, header.commit_bytes, big, big != _BIG_HERE)
    columns = (space or Space()).columns(most)
    by_page: tuple[Any, ...] = tuple(np.empty(pages, type_) for type_ in _BY_PAGE_TYPES)
    fours = slice_columns.from_each_byte(octets, np.uint32)
    counts: Any = np.zeros(IDS, np.int64)
    least: Any = np.zeros(IDS, np.int32) if least_bytes is None else least_bytes
    # Not imported above: the compiler takes half a second and 60 MiB, which a command that reads no pages need not.
    loops = import_module("consumers.decode.ftrace_loops")
    found = loops.walk(fours, pages, layout, columns, by_page, least, counts)
    return Walked(*(column[:found] for column in columns), *(*by_page, counts, least))
