"""The books of one partition: which frames are new, what is missing before each, and the sums that must agree.

Pure: frames in, decisions out; no file, clock or log. A stream's book keeps `next - first = stored + dead + sum(lost)`.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, NamedTuple

from schemas import heartbeat, limits
from schemas.errors import BadInputError
from schemas.frame import Frame
from schemas.loss import Loss, LossKind, LossUnit
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, SURFACES

#: How many of a stream's runs are remembered to recognise frames that are sent again.
_RUNS_MAX: Final = 4
_FOUND_BY: Final = "collector"
_FORGOTTEN: Final = "forgotten."
_SILENT_NS: Final = 24 * 3_600_000_000_000
# Of a book, beside its end, what recognises frames that come again, and when it was opened.
_KNOWN: Final = ("runs", "opened_ns", "seen_ns", "cut_ns", "base", "bases")
_KINDS: Final = frozenset(LossKind)


@dataclass(slots=True)
class StreamBook:
    """The sums of one stream: positions, except `rows`, `frames` and `unknown_losses` (losses without a count).

    `lost_events` are those losses that count events in front of positions, all of which are there.

    `duplicates` came again with the content that is stored, `contradicted` with other content. The log got the first
    frame at `opened_ns` and the newest at `seen_ns` (CLOCK_REALTIME; 0 in books of earlier versions),
    which was cut at `cut_ns` (the producer's). `base` is what is added to positions of the newest run; `bases` by run,
    where it is not 0.
    """

    first: int
    next: int
    stored: int = 0
    duplicates: int = 0
    contradicted: int = 0
    dead: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    lost_events: int = 0
    unknown_losses: int = 0
    rows: int = 0
    frames: int = 0
    duplicate_frames: int = 0
    runs: dict[str, int] = field(default_factory=dict)
    retention_seen: int = 0
    unreadable_seen: int = 0
    opened_ns: int = 0
    seen_ns: int = 0
    cut_ns: int = 0
    base: int = 0
    bases: dict[str, int] = field(default_factory=dict)

    def closes(self) -> bool:
        """Return whether every position between `first` and `next` is stored, a dead letter, or a counted loss."""
        return self.next - self.first == self.stored + self.dead + sum(self.lost.values())


class Decision(NamedTuple):
    """What to do with one frame: store the positions from `store_from` on, and these losses; the rest came before."""

    store_from: int
    duplicate: bool
    losses: list[Loss]


class Books:
    """The streams of one partition, and what happened to the partition as a whole."""

    def __init__(self) -> None:
        self.streams: dict[Stream, StreamBook] = {}
        self.machines: Counter[str] = Counter()  # how many of them each machine has
        self.retentions = 0  # times that the log's retention overtook us
        self.unreadable = 0  # messages that did not even name their stream
        self.forgotten: Counter[str] = Counter()  # rows of streams that have no book any more, by surface
        self.changed: set[Stream] = set()

    def placed(self, frame: Frame) -> Frame:
        """Return `frame` at its positions in the book: those of a producer that numbers anew follow the known ones.

        That is one whose log is another: what the one before had held, and not sent, nobody can count.
        """
        book, surface = self.streams.get(frame.stream), SURFACES.get(frame.stream.surface)
        if book is None or surface is None or surface.kernel_numbers:
            return frame
        if frame.run in book.runs:
            return _moved(frame, book.bases.get(frame.run, 0))
        # By its own positions: losses may name some that came, where a shipper died before it noted that they had.
        if frame.first + book.base >= book.next or frame.realtime_ns <= book.cut_ns:
            return _moved(frame, book.base)
        book.base = book.next - _start(frame)
        reset = Loss(LossKind.RESET, book.next, None, "numbered-anew", _FOUND_BY)
        moved = _moved(frame, book.base)
        return replace(moved, losses=[reset, *moved.losses])

    def offer(self, frame: Frame, arrival_ns: int = 0) -> Decision:
        """Enter `frame`, which the log got at `arrival_ns`, and say what of it is new."""
        book = self.streams.get(frame.stream)
        if book is None:
            book = self._open(frame, arrival_ns)
        self.changed.add(frame.stream)
        book.seen_ns, book.cut_ns = max(book.seen_ns, arrival_ns), max(book.cut_ns, frame.realtime_ns)
        book.frames += 1
        if frame.number <= book.runs.get(frame.run, -1):
            book.duplicate_frames += 1
            book.duplicates += frame.next - frame.first
            return Decision(frame.next, duplicate=True, losses=[])
        self._remember_run(book, frame)
        losses = self._losses_before(book, frame)
        for loss in losses:
            if loss.count is None:
                book.unknown_losses += 1
            elif loss.count and loss.unit == LossUnit.POSITION:
                # The kind comes from the wire: a bounded set of sums whatever it says.
                kind = loss.kind if loss.kind in _KINDS else "other"
                book.lost[kind] = book.lost.get(kind, 0) + loss.count
            elif loss.unit == LossUnit.EVENT:
                book.lost_events += loss.count
        book.retention_seen, book.unreadable_seen = self.retentions, self.unreadable
        store_from = max(frame.first, min(book.next, frame.next))
        book.duplicates += store_from - frame.first
        book.next = max(book.next, frame.next)
        return Decision(store_from, duplicate=store_from == frame.next > frame.first, losses=losses)

    def stored(self, stream: Stream, positions: int, rows: int) -> None:
        """Enter `positions` of `stream` as stored in `rows` rows."""
        book = self.streams[stream]
        book.stored += positions
        book.rows += rows

    def dead(self, stream: Stream, positions: int) -> None:
        """Enter `positions` of `stream` as dead letters."""
        self.streams[stream].dead += positions

    def contradicted(self, stream: Stream, positions: int) -> None:
        """Enter that `positions` of the duplicates have other content than what is stored at their place."""
        book = self.streams[stream]
        book.duplicates -= positions
        book.contradicted += positions

    def forget(self, before_ns: int) -> None:
        """Close for good the books of streams that were last heard before `before_ns`, so that all their rows are gone.

        It takes a day's silence, by the newest frame of all: a reader that is far behind meets them again at once.
        """
        newest_ns = max((book.seen_ns for book in self.streams.values()), default=0)
        before_ns = min(before_ns, newest_ns - _SILENT_NS)
        for stream in [stream for stream, book in self.streams.items() if 0 < book.seen_ns < before_ns]:
            self._close(stream)

    def make_room(self, most: int, now_ns: int, machine: str | None = None) -> None:
        """Close books of streams of `machine`, or of all, that were silent for a day at `now_ns`, for good.

        Of `most` an eighth is free then, if so many were silent; those that were for longest go, though their rows are
        there. Of what is not committed none goes.
        """
        mine = {stream: book for stream, book in self.streams.items() if machine in (None, stream.machine)}
        silent = [stream for stream, book in mine.items() if 0 < book.seen_ns < now_ns - _SILENT_NS]
        silent = [stream for stream in silent if stream not in self.changed]
        silent.sort(key=lambda stream: mine[stream].seen_ns)
        for stream in silent[: len(mine) - most * 7 // 8]:
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        book = self.streams.pop(stream)
        self.machines[stream.machine] -= 1
        if not self.machines[stream.machine]:
            del self.machines[stream.machine]  # of machines that come and go no name is kept
        if book.rows:
            self.forgotten[stream.surface] += book.rows
        self.changed.add(stream)

    def take_changed(self) -> dict[Stream, dict[str, Any] | None]:
        """Return the books changed since the last call, as JSON values; None for those that were forgotten."""
        changed, self.changed = self.changed, set()
        return {stream: asdict(self.streams[stream]) if stream in self.streams else None for stream in changed}

    def partition_json(self) -> dict[str, int]:
        """Return what concerns the partition as a whole."""
        forgotten = {f"{_FORGOTTEN}{surface}": rows for surface, rows in sorted(self.forgotten.items())}
        return {"retentions": self.retentions, "unreadable": self.unreadable, **forgotten}

    def reopen(self, streams: dict[Stream, dict[str, Any]]) -> None:
        """Go on from where the books `streams` of another chain end, with sums of their own: known stays known."""
        for stream, values in streams.items():
            old = StreamBook(**values)
            known = {name: getattr(old, name) for name in _KNOWN}
            self.streams[stream] = StreamBook(old.next, old.next, **known)
        self.machines = Counter(stream.machine for stream in self.streams)
        self.changed.update(streams)

    @classmethod
    def from_json(cls, streams: dict[Stream, dict[str, Any]], partition: dict[str, int]) -> "Books":
        """Return the books as a commit holds them."""
        books = cls()
        books.streams = {stream: StreamBook(**values) for stream, values in streams.items()}
        books.machines = Counter(stream.machine for stream in streams)
        books.retentions = partition.get("retentions", 0)
        books.unreadable = partition.get("unreadable", 0)
        books.forgotten = forgotten_rows(partition)
        return books

    # A stream's first frame opens the book where its own losses say that the numbering began for us.
    def _open(self, frame: Frame, arrival_ns: int) -> StreamBook:
        first = _start(frame)
        seen = (self.retentions, self.unreadable)
        book = StreamBook(first, first, retention_seen=seen[0], unreadable_seen=seen[1], opened_ns=arrival_ns)
        self.streams[frame.stream] = book
        self.machines[frame.stream.machine] += 1
        return book

    def _remember_run(self, book: StreamBook, frame: Frame) -> None:
        if frame.run not in book.runs and book.base:
            book.bases[frame.run] = book.base
        book.runs.pop(frame.run, None)
        book.runs[frame.run] = frame.number
        while len(book.runs) > _RUNS_MAX:
            oldest = next(iter(book.runs))
            del book.runs[oldest]
            book.bases.pop(oldest, None)

    # Only what lies in [book.next, frame.first) is missing; each position of it is counted once.
    def _losses_before(self, book: StreamBook, frame: Frame) -> list[Loss]:
        found = [loss for loss in frame.losses if not _missing(loss)]
        at = book.next
        for loss in sorted(filter(_missing, frame.losses), key=lambda loss: loss.first_position):
            start = max(loss.first_position, at)
            end = min(loss.first_position + (loss.count or 0), frame.first)
            if start >= end:
                continue
            if start > at:
                found.append(self._unexplained(book, at, start))
            found.append(loss._replace(first_position=start, count=end - start))
            at = end
        if at < frame.first:
            found.append(self._unexplained(book, at, frame.first))
        return found

    def _unexplained(self, book: StreamBook, start: int, end: int) -> Loss:
        if book.retention_seen < self.retentions:
            return Loss(LossKind.RETENTION, start, end - start, "log-retention", _FOUND_BY)
        if book.unreadable_seen < self.unreadable:
            return Loss(LossKind.DEAD_LETTER, start, end - start, "unreadable-message", _FOUND_BY)
        return Loss(LossKind.GAP, start, end - start, "unexplained", _FOUND_BY)


def forgotten_rows(partition: dict[str, int]) -> Counter[str]:
    """Return the rows of streams without a book, by surface, as `Books.partition_json` says."""
    found = {name.removeprefix(_FORGOTTEN): rows for name, rows in partition.items() if name.startswith(_FORGOTTEN)}
    return Counter(found)


# The first position that a frame speaks of.
def _start(frame: Frame) -> int:
    return min([frame.first, *(loss.first_position for loss in frame.losses if _missing(loss))])


def _moved(frame: Frame, base: int) -> Frame:
    # Of a position that no number of 64 bits holds nothing is moved: it is no producer of ours.
    if not base or max([frame.next, *(loss.first_position for loss in frame.losses)]) + base > limits.INT64_MAX:
        return frame
    losses = [loss._replace(first_position=loss.first_position + base) for loss in frame.losses]
    body = _moved_beat(frame.body, base) if frame.encoding == HEARTBEAT_ENCODING else frame.body
    return replace(frame, first=frame.first + base, next=frame.next + base, losses=losses, body=body)


# A heartbeat says where its span began; one that cannot be read is found so by its decoder.
def _moved_beat(body: bytes, base: int) -> bytes:
    try:
        beat = heartbeat.unpack(body)
    except BadInputError:
        return body
    if beat is None:
        return body
    return heartbeat.pack(replace(beat, first_position=min(beat.first_position + base, limits.INT64_MAX)))


# Whether positions are missing, and how many: other units count what never had a position.
def _missing(loss: Loss) -> bool:
    return bool(loss.count) and loss.unit == LossUnit.POSITION
