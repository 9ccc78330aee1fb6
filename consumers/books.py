"""The books of one partition: which frames are new, what is missing before each, and the sums that must agree.

Pure: frames in, decisions out; no file, clock or log. A stream's book keeps `next - first = stored + dead + sum(lost)`.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

from schemas.frame import Frame
from schemas.loss import Loss, LossKind, LossUnit
from schemas.stream import Stream

#: How many of a stream's runs are remembered to recognise frames that are sent again.
_RUNS_MAX: Final = 4
_FOUND_BY: Final = "collector"
_KINDS: Final = frozenset(LossKind)


@dataclass(slots=True)
class StreamBook:
    """The sums of one stream: positions, except `rows`, `frames` and `unknown_losses` (losses without a count).

    `lost_events` are those losses that count events in front of positions, all of which are there.

    `duplicates` came again with the content that is stored, `contradicted` with other content.
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
        self.retentions = 0  # times that the log's retention overtook us
        self.unreadable = 0  # messages that did not even name their stream
        self.changed: set[Stream] = set()

    def offer(self, frame: Frame) -> Decision:
        """Enter `frame` and say what of it is new."""
        book = self.streams.get(frame.stream)
        if book is None:
            book = self._open(frame)
        self.changed.add(frame.stream)
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

    def take_changed(self) -> dict[Stream, dict[str, Any]]:
        """Return the books changed since the last call, as JSON values."""
        changed, self.changed = self.changed, set()
        return {stream: asdict(self.streams[stream]) for stream in changed}

    def partition_json(self) -> dict[str, int]:
        """Return what concerns the partition as a whole."""
        return {"retentions": self.retentions, "unreadable": self.unreadable}

    @classmethod
    def from_json(cls, streams: dict[Stream, dict[str, Any]], partition: dict[str, int]) -> "Books":
        """Return the books as a commit holds them."""
        books = cls()
        books.streams = {stream: StreamBook(**values) for stream, values in streams.items()}
        books.retentions = partition.get("retentions", 0)
        books.unreadable = partition.get("unreadable", 0)
        return books

    # A stream's first frame opens the book where its own losses say that the numbering began for us.
    def _open(self, frame: Frame) -> StreamBook:
        starts = [loss.first_position for loss in frame.losses if _missing(loss)]
        first = min([frame.first, *starts])
        book = StreamBook(first, first, retention_seen=self.retentions, unreadable_seen=self.unreadable)
        self.streams[frame.stream] = book
        return book

    def _remember_run(self, book: StreamBook, frame: Frame) -> None:
        book.runs.pop(frame.run, None)
        book.runs[frame.run] = frame.number
        while len(book.runs) > _RUNS_MAX:
            del book.runs[next(iter(book.runs))]

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


# Whether positions are missing, and how many: other units count what never had a position.
def _missing(loss: Loss) -> bool:
    return bool(loss.count) and loss.unit == LossUnit.POSITION
