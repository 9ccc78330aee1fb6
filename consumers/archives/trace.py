"""Saved trace rings to frames, as the agent would have made them: a description of events, then each CPU's pages.

What an archive has of a ring comes in pieces of any length. Pages are whole; what remains of one is a dead letter at
its position. Events that the kernel overwrote are losses in front of the page that says so.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from consumers.archives.base import Progress, Tags
from consumers.decode import ftrace_pages
from consumers.decode.ftrace_format import PageHeader, parse_header
from schemas import ftrace, limits
from schemas.errors import BadInputError
from schemas.frame import Frame
from schemas.loss import Loss, LossKind, LossUnit
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION

SURFACE: Final = "ftrace"
#: What a clock is called that the archive does not name.
UNKNOWN_CLOCK: Final = "unknown"
#: About as many bytes of pages fill one body.
BODY_BYTES: Final = 256 << 10
_FOUND_BY: Final = "import"
_ID: Final = re.compile(r"^ID:[ \t]*(\d{1,5})[ \t]*$", re.MULTILINE)


class Piece(NamedTuple):
    """Some bytes of a ring, whole pages and perhaps a part of one; behind them `lost_pages` are missing for `reason`.

    `lost_pages` None: nobody knows how many. The piece took `archive_bytes` of the archive.
    """

    data: bytes
    archive_bytes: int
    lost_pages: int | None = 0
    reason: str = ""


class Ring(NamedTuple):
    """What an archive has of one CPU's ring; `pieces` reads it from its start.

    `dropped` are events that the kernel counted and never wrote, by reason.
    """

    cpu: int
    pieces: Callable[[], Iterator[Piece]]
    dropped: dict[str, int]


class Buffer(NamedTuple):
    """The rings of one tracing instance, recorded by one clock in sub-buffers of `page_bytes`."""

    name: str
    clock: str
    page_bytes: int
    rings: list[Ring]


@dataclass(slots=True)
class SavedTrace:
    """All that an archive of trace rings says.

    `events` has the text of each `format` file by `system:name`, `printk_formats` that file's.
    """

    header_page: str
    header: PageHeader
    events: dict[str, str]
    buffers: list[Buffer]
    archive_bytes: int
    printk_formats: str = ""


def read_header(text: str, what: str, *, big_endian: bool = False) -> PageHeader:
    """Return what the text of `events/header_page` says.

    Raises:
        BadInputError: `reason` is `format`; the sentence begins with `what`.
    """
    try:
        return parse_header(text, big_endian=big_endian)
    except BadInputError as e:
        raise BadInputError(e.reason, f"{what}: {e.detail}") from None


def check_page_size(page_bytes: int, header: PageHeader, what: str) -> None:
    """Verify that sub-buffers can have this size under this header.

    Raises:
        BadInputError: `reason` is `format`; the sentence begins with `what`.
    """
    if not ftrace.page_size_ok(page_bytes) or not ftrace_pages.fits(header, page_bytes):
        raise BadInputError("format", f"{what} states pages of {page_bytes:,} bytes: no size of a sub-buffer")


def frames(saved: SavedTrace, tags: Tags, now_ns: int, progress: Progress) -> Iterator[Frame]:
    """Yield the frames of all buffers, in order.

    Raises:
        BadInputError: `reason` is `format`: more events occur than one description can hold.
    """
    events = _described(saved)
    done_bytes = 0
    for buffer in saved.buffers:
        stream = Stream(tags.machine, tags.boot_id, tags.layer, SURFACE, buffer.name, buffer.clock)
        body = ftrace.pack_formats(_formats(saved, buffer, events))
        yield Frame(
            stream, tags.run, 0, 0, 1, 1, ftrace.FORMATS_ENCODING, ftrace.FORMATS_VERSION, body, realtime_ns=now_ns
        )
        for ring in buffer.rings:
            mine = stream._replace(instance=f"{buffer.name}/cpu{ring.cpu}")
            made = _RingFrames(mine, tags.run, buffer.page_bytes, saved.header, ftrace.descriptor(body), now_ns)
            for piece in ring.pieces():
                yield from made.feed(piece)
                done_bytes += piece.archive_bytes
                progress(done_bytes, saved.archive_bytes)
            yield from made.close(ring.dropped)
    progress(saved.archive_bytes, saved.archive_bytes)  # also where the file is shorter than it says


class _RingFrames:
    """Frames of one ring; pages are held until they fill a body."""

    def __init__(
        self, stream: Stream, run: str, page_bytes: int, header: PageHeader, descriptor: bytes, now_ns: int
    ) -> None:
        self._stream = stream
        self._run = run
        self._page_bytes = page_bytes
        self._header = header
        self._descriptor = descriptor
        self._now_ns = now_ns
        self._body_bytes = max(1, BODY_BYTES // page_bytes) * page_bytes
        self._held = bytearray()
        self._losses: list[Loss] = []
        self._position = self._number = 0

    def feed(self, piece: Piece) -> Iterator[Frame]:
        """Take what comes next and yield what is full."""
        whole_bytes = len(piece.data) // self._page_bytes * self._page_bytes
        self._held += memoryview(piece.data)[:whole_bytes]
        while len(self._held) >= self._body_bytes:
            yield self._pages(self._body_bytes)
        rest = piece.data[whole_bytes:]
        if rest or piece.lost_pages != 0:
            yield from self._flush()
        if rest:
            # One position whose body is no page: the collector buries it with its bytes.
            yield self._frame(1, 1, ftrace.head(1, self._page_bytes) + rest)
        if piece.lost_pages != 0:
            self._lose(piece.lost_pages, piece.reason)

    def close(self, dropped: dict[str, int]) -> Iterator[Frame]:
        """Yield what is left, and losses behind the last page."""
        yield from self._flush()
        for reason, count in dropped.items():
            if count:
                self._losses.append(
                    Loss(LossKind.DROP, self._position, count, reason, _FOUND_BY, LossUnit.EVENT),
                )
        if self._losses:
            yield self._frame(0, 0, b"", HEARTBEAT_ENCODING, HEARTBEAT_VERSION)

    def _flush(self) -> Iterator[Frame]:
        if self._held:
            yield self._pages(len(self._held))

    def _pages(self, size_bytes: int) -> Frame:
        data = bytes(memoryview(self._held)[:size_bytes])
        del self._held[:size_bytes]
        heads = ftrace_pages.read_heads(data, self._header, self._page_bytes)
        for index, count in heads.lost:
            where = self._position + index
            self._losses.append(
                Loss(LossKind.OVERWRITE, where, count, "ring-overrun", _FOUND_BY, LossUnit.EVENT),
            )
        count = size_bytes // self._page_bytes
        frame = self._frame(count, count, ftrace.head(count, self._page_bytes) + data)
        frame.ts_first_ns, frame.ts_last_ns = heads.ts_first_ns, heads.ts_last_ns
        return frame

    def _frame(
        self,
        positions: int,
        count: int,
        body: bytes,
        encoding: str = ftrace.PAGES_ENCODING,
        version: int = ftrace.PAGES_VERSION,
    ) -> Frame:
        first, number = self._position, self._number
        self._position, self._number = first + positions, number + 1
        losses, self._losses = self._losses, []
        where = (self._stream, self._run, number, first, self._position, count)
        descriptor = self._descriptor if count else None
        return Frame(*where, encoding, version, body, losses, realtime_ns=self._now_ns, descriptor=descriptor)

    def _lose(self, count: int | None, reason: str) -> None:
        last = self._losses[-1] if self._losses else None
        if last is not None and last.count and count and last.first_position + last.count == self._position:
            self._losses[-1] = last._replace(count=last.count + count)
        else:
            self._losses.append(Loss(LossKind.GAP, self._position, count, reason, _FOUND_BY))
        self._position += count or 0


def _formats(saved: SavedTrace, buffer: Buffer, events: dict[str, str]) -> ftrace.Formats:
    return ftrace.Formats(
        header_page=saved.header_page,
        clock=buffer.clock,
        page_bytes=buffer.page_bytes,
        byteorder="big" if saved.header.big_endian else "little",
        word_bytes=saved.header.commit_bytes,
        events=events,
        printk_formats=ftrace.whole_lines(saved.printk_formats),
    )


# All that the archive describes, where that fits: so its tables are called the same whatever occurs. Else what occurs.
def _described(saved: SavedTrace) -> dict[str, str]:
    if _fits(saved, saved.events):
        return saved.events
    ids = _ids(saved)
    chosen = {name: text for name, text in saved.events.items() if _id(text) in ids}
    if not _fits(saved, chosen):
        what = f"{len(chosen):,} kinds of events occur, and their formats are more than one description can hold"
        raise BadInputError("format", what)
    return chosen


def _fits(saved: SavedTrace, events: dict[str, str]) -> bool:
    packed = (ftrace.pack_formats(_formats(saved, buffer, events)) for buffer in saved.buffers)
    return len(events) <= limits.TRACE_EVENTS_MAX and all(len(body) <= limits.BODY_BYTES_MAX for body in packed)


def _id(text: str) -> int:
    match = _ID.search(text)
    return int(match[1]) if match else -1


def _ids(saved: SavedTrace) -> set[int]:
    found: set[int] = set()
    space = ftrace_pages.Space()
    for buffer in saved.buffers:
        for data in _whole_pages(buffer):
            found.update(
                np.flatnonzero(ftrace_pages.walk(data, saved.header, buffer.page_bytes, space).counts).tolist()
            )
    return found


def _whole_pages(buffer: Buffer) -> Iterable[bytes]:
    for ring in buffer.rings:
        for piece in ring.pieces():
            yield piece.data[: len(piece.data) // buffer.page_bytes * buffer.page_bytes]
