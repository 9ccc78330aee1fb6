"""From messages to commits: one partition's frames are entered in its books, buffered, decoded together and committed.

Order of a cut: decode all buffered frames, write the files, then the one commit that makes them visible. Whoever loses
the commit to another collector forgets what it buffered and goes on behind the winner.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import pyarrow as pa

from consumers.books import Books
from consumers.decode import registry
from consumers.decode.base import BadRecord, Decoder, FrameIn
from consumers.descriptors import Descriptors
from consumers.kinds import Kinds
from consumers.lake import rows
from consumers.lake.chain import Chain
from consumers.lake.retire import retired_before_ns
from consumers.lake.unify import concatenated
from consumers.lake.writer import Batch, CommitWriter
from consumers.stored import Suspect, differing
from consumers.transport.base import Message, Partition
from schemas import limits
from schemas.crashpoints import crash_point
from schemas.errors import BadInputError
from schemas.frame import Frame, checksum, decode
from schemas.loss import Loss, LossKind
from schemas.stream import Stream

log = logging.getLogger(__name__)
_RECENT_MAX: Final = 1024
#: Streams of one partition, because every checkpoint holds all of them, and of one machine in it, because a hostile one
#: can invent some. Those silent for a day make room for new ones; where there is none, these are buried.
STREAMS_MAX: Final = 1 << 18
STREAMS_OF_MACHINE_MAX: Final = STREAMS_MAX // 16
#: To look for them takes a while: each so many ns of the log's time.
_LOOK_NS: Final = 3_600_000_000_000
#: What a loss or a dead letter takes of memory until it is a row; on the wire a loss has some twenty bytes.
_ROW_BYTES: Final = 1 << 10
_FOUND_BY: Final = "collector"
# Every so many commits the books are closed of streams whose rows have all left the lake.
_FORGET_COMMITS: Final = 256


class Cut(NamedTuple):
    """When a partition's buffer is committed: at so many bytes, rows, or ns of age."""

    bytes_max: int
    rows_max: int
    age_ns: int


class Committed(NamedTuple):
    """What a commit held: rows by table, losses, reasons of dead letters, and positions that came again."""

    offsets: int
    rows: dict[str, int]
    losses: list[rows.LossRow]
    dead: list[str]
    duplicates: int


class PartitionCollector:
    """Collects one partition into `chain`; `on_commit` hears of each commit.

    Times are CLOCK_MONOTONIC, by the caller's hand.
    """

    def __init__(
        self,
        partition: Partition,
        chain: Chain,
        writer: CommitWriter,
        cut: Cut,
        on_commit: Callable[[Committed], None] = lambda _: None,
    ) -> None:
        self.partition = partition
        self._chain = chain
        self._writer = writer
        self._cut = cut
        self._on_commit = on_commit
        self._descriptors = Descriptors(writer.storage)
        # Checksums of recent frames, to know a re-sent frame without reading the lake.
        self._recent: OrderedDict[tuple[Stream, str, int], int] = OrderedDict()
        self._oldest_ns: int | None = None
        self._arrival_ns: int | None = None
        self.records = 0  # entered since the start, for people to look at
        self.reload()

    def reload(self) -> None:
        """Forget what is buffered and go to where the chain ends."""
        state = self._chain.load()
        self.position = self._committed = state.frontier
        self._books = Books.from_json(state.streams, state.notes)
        self._kinds = Kinds(state.kinds)
        self._full_until_ns: dict[str | None, int] = {}
        if self._chain.before is not None:
            self._books.reopen(self._chain.before.streams)
        #: Streams whose book, as committed, does not close.
        self.unbalanced = {stream for stream, book in self._books.streams.items() if not book.closes()}
        self._clear()

    @property
    def topic_id(self) -> str:
        """Return the identity of the topic that the chain is of."""
        return self._chain.topic_id

    @property
    def buffered(self) -> int:
        """Return how many offsets wait for a commit."""
        return self.position - self._committed

    @property
    def committed(self) -> int:
        """Return the next offset to commit."""
        return self._committed

    @property
    def oldest_arrival_ns(self) -> int | None:
        """Return the append time of the oldest message that waits for a commit; None when none does."""
        return self._arrival_ns

    @property
    def buffered_bytes(self) -> int:
        """Return the bytes of frame bodies that wait for a commit, and of losses and dead letters."""
        return self._bytes

    def add(self, messages: list[Message], now_ns: int) -> int:
        """Enter `messages`, which continue at `position`, up to the bytes of a cut; return how many were taken.

        An offset jump is loss in the log itself.
        """
        taken = 0
        for message in messages:
            taken += 1
            if message.offset < self.position:
                continue
            if message.offset > self.position:
                self._skipped(message.offset, message.ts_ns, LossKind.GAP, "offsets-missing")
            self.position = message.offset + 1
            if self._arrival_ns is None:
                self._arrival_ns = message.ts_ns
            self._add(message)
            if self._bytes >= self._cut.bytes_max:
                break
        if messages and self._oldest_ns is None:
            self._oldest_ns = now_ns
        crash_point("collector:added")
        return taken

    def overtaken(self, start: int, arrival_ns: int) -> None:
        """Enter that retention deleted what lies before offset `start`: committed like any data, so never forgotten."""
        log.error("%s: retention deleted offsets %d to %d unread", self.partition, self.position, start - 1)
        self._skipped(start, arrival_ns, LossKind.RETENTION, "offsets-deleted-unread")
        self.position = start

    def due(self, now_ns: int) -> bool:
        """Return whether the buffer is to be committed."""
        if self._oldest_ns is None:
            return self.buffered > 0
        full = self._bytes >= self._cut.bytes_max or self._rows >= self._cut.rows_max
        return full or now_ns - self._oldest_ns >= self._cut.age_ns

    def due_in_ms(self, now_ns: int) -> int | None:
        """Return how long the buffer may still wait, by its age; None when nothing waits."""
        if self._oldest_ns is None:
            return None
        return max(0, (self._oldest_ns + self._cut.age_ns - now_ns) // 1_000_000)

    def commit(self) -> bool:
        """Commit what is buffered; False when another collector had committed these offsets, and we follow it now.

        Raises:
            StorageError: the disk refuses; nothing is committed, `reload` before going on.
        """
        if not self.buffered:
            return True
        self._contradict()
        tables = self._decode()
        if self._chain.state.number % _FORGET_COMMITS == 0:
            self._books.forget(retired_before_ns(self._writer.storage))
        changed = self._books.take_changed()
        notes, kinds = self._books.partition_json(), self._kinds.take_new()
        batch = Batch(self._committed, self.position, tables, changed, notes, kinds)
        if not self._writer.commit(self._chain, batch):
            log.warning("%s: another collector committed offset %d; following it", self.partition, self._committed)
            self.reload()
            return False
        self._note_books(changed)
        counts = {name: table.num_rows for name, table in tables.items()}
        dead = [each.reason for each in self._dead]
        done = Committed(self.buffered, counts, self._losses, dead, self._duplicates)
        self._committed = self.position
        self._clear()
        self._on_commit(done)
        return True

    def _note_books(self, changed: Iterable[Stream]) -> None:
        for stream in changed:
            book = self._books.streams.get(stream)
            if book is None or book.closes():
                self.unbalanced.discard(stream)
            else:
                self.unbalanced.add(stream)

    def _clear(self) -> None:
        self._frames: list[FrameIn] = []
        self._suspects: list[Suspect] = []
        self._losses: list[rows.LossRow] = []
        self._dead: list[rows.DeadRow] = []
        self._bytes = self._rows = self._duplicates = 0
        self._oldest_ns = self._arrival_ns = None

    # Whole messages are missing and nobody knows whose: the stream positions that turn out to be missing point here.
    def _skipped(self, offset: int, arrival_ns: int, kind: LossKind, reason: str) -> None:
        lost = Loss(kind, self.position, offset - self.position, reason, _FOUND_BY)
        self._losses.append(rows.LossRow(None, lost, self.position, arrival_ns))
        self._books.retentions += 1

    def _add(self, message: Message) -> None:
        self._rows += 1
        try:
            frame = self._books.placed(self._known(decode(message.value), message.ts_ns))
        except BadInputError as e:
            self._books.unreadable += 1
            self._bury(message, e, None, None, message.value)
            return
        known_to = self._books.streams[frame.stream].next if frame.stream in self._books.streams else frame.first
        decision = self._books.offer(frame, message.ts_ns)
        self._duplicates += decision.store_from - frame.first
        self._losses += [rows.LossRow(frame.stream, loss, message.offset, message.ts_ns) for loss in decision.losses]
        self._rows += len(decision.losses)
        self._bytes += _ROW_BYTES * len(decision.losses)
        try:
            decoder = registry.decoder_of(frame)
            decoder.check(frame)
            self._suspect(message, frame, decoder, min(known_to, frame.next))
            if not decision.duplicate:
                self._keep(message, frame, decoder.trim(frame, decision.store_from))
        except BadInputError as e:
            self._books.dead(frame.stream, frame.next - decision.store_from)
            self._bury(message, e, frame.stream, decision.store_from, frame.body)

    def _known(self, frame: Frame, now_ns: int) -> Frame:
        if frame.stream not in self._books.streams:
            machine = frame.stream.machine
            if not self._has_room(machine, STREAMS_OF_MACHINE_MAX, now_ns):
                raise BadInputError("too-many-streams", f"its machine has {STREAMS_OF_MACHINE_MAX} streams already")
            if not self._has_room(None, STREAMS_MAX, now_ns):
                raise BadInputError("too-many-streams", f"this partition has {STREAMS_MAX} streams already")
        return frame

    def _has_room(self, machine: str | None, most: int, now_ns: int) -> bool:
        books = self._books

        def count() -> int:
            return len(books.streams) if machine is None else books.machines[machine]

        before = count()
        if before >= most and now_ns >= self._full_until_ns.get(machine, 0):
            books.make_room(most, now_ns, machine)
            if before - count() < most // 16:
                self._full_until_ns[machine] = now_ns + _LOOK_NS
            log.warning(
                "%s: %s has %d streams; of those silent for a day %d have no book from now on, so that new ones have",
                self.partition, "it" if machine is None else f"machine {machine}", before, before - count(),
            )  # fmt: skip
        return count() < most

    def _keep(self, message: Message, whole: Frame, frame: Frame) -> None:
        if frame is whole:  # of another one not all positions are what is stored
            self._recent[(frame.stream, frame.run, frame.number)] = checksum(message.value)
            if len(self._recent) > _RECENT_MAX:
                self._recent.popitem(last=False)
        self._books.stored(frame.stream, frame.next - frame.first, 0)
        self._descriptors.note(frame)
        self._frames.append(FrameIn(frame, message.ts_ns, self.partition, message.offset))
        self._bytes += len(frame.body)
        self._rows += frame.count
        self.records += frame.count

    # Positions that came before, up to `end`: looked at before the commit unless this very frame was just stored.
    def _suspect(self, message: Message, frame: Frame, decoder: Decoder, end: int) -> None:
        seen = self._recent.get((frame.stream, frame.run, frame.number))
        if frame.first >= end or seen == checksum(message.value):
            return
        head = decoder.head(frame, end)
        self._suspects.append(Suspect(FrameIn(head, message.ts_ns, self.partition, message.offset), decoder))
        self._bytes += len(head.body)

    # The same positions again: silent when the content is the stored one, an overwrite and a dead letter when not.
    def _contradict(self) -> None:
        known = (self._descriptors, self._kinds.has_room)
        for item, _ in differing(self._suspects, self._frames, self._writer.storage, *known):
            frame, where = item.frame, Message(item.offset, item.arrival_ns, b"")
            count = frame.next - frame.first
            loss = Loss(LossKind.OVERWRITE, frame.first, count, "content-differs", _FOUND_BY)
            self._losses.append(rows.LossRow(frame.stream, loss, item.offset, item.arrival_ns))
            self._books.contradicted(frame.stream, count)
            self._duplicates -= count
            error = BadInputError("content-differs", f"{count} positions are stored already with other content")
            self._bury(where, error, frame.stream, frame.first, frame.body)

    def _bury(
        self, message: Message, error: BadInputError, stream: Stream | None, position: int | None, data: bytes
    ) -> None:
        self._bytes += _ROW_BYTES
        head = data[: limits.DEAD_LETTER_BYTES_MAX]
        where = (message.offset, message.ts_ns)
        self._dead.append(rows.DeadRow(stream, position, error.reason, error.detail, len(data), head, *where))

    def _decode(self) -> dict[str, pa.Table]:
        tables: dict[str, list[pa.Table]] = {}
        for decoder, frames in _by_decoder(self._frames):
            decoded = decoder.decode_many(frames, self._descriptors, self._kinds.admit)
            for name, table in decoded.tables.items():
                tables.setdefault(name, []).append(table)
            for stream, count in decoded.rows.items():
                self._books.stored(stream, 0, count)
            for bad in decoded.bad:
                self._bury_record(bad)
        tables["losses"] = [rows.losses_table(self.partition, self._losses)]
        tables["dead_letters"] = [rows.dead_letters_table(self.partition, self._dead)]
        joined = {name: concatenated(parts) for name, parts in tables.items()}
        return {name: table for name, table in joined.items() if table.num_rows}

    # A record of a good frame that cannot be read: its position is dead, its neighbours are stored.
    def _bury_record(self, bad: BadRecord) -> None:
        self._books.stored(bad.stream, -bad.positions, 0)
        self._books.dead(bad.stream, bad.positions)
        where = Message(bad.offset, bad.arrival_ns, b"")
        self._bury(where, BadInputError(bad.reason, bad.detail), bad.stream, bad.position, bad.data)


# Frames of one decoder together, streams sorted, each stream's frames in log order: sorted rows for free.
def _by_decoder(frames: list[FrameIn]) -> list[tuple[Decoder, list[FrameIn]]]:
    groups: dict[tuple[str, int], dict[Stream, list[FrameIn]]] = {}
    for item in frames:
        key = (item.frame.encoding, item.frame.encoding_version)
        groups.setdefault(key, {}).setdefault(item.frame.stream, []).append(item)
    return [
        (registry.decoder_for(*key), [item for stream in sorted(streams) for item in streams[stream]])
        for key, streams in groups.items()
    ]
