"""From messages to commits: one partition's frames are entered in its books, buffered, decoded together and committed.

Order of a cut: decode all buffered frames, write the files, then the one commit that makes them visible. Whoever loses the commit to another
collector forgets what it buffered and goes on behind the winner.
"""

import logging
import zlib
from collections import OrderedDict
from typing import Any, Final, NamedTuple

import pyarrow as pa

from consumers.books import Books
from consumers.decode import registry
from consumers.decode.base import BadRecord, FrameIn
from consumers.lake import rows
from consumers.lake.chain import Chain
from consumers.lake.writer import Batch, CommitWriter
from consumers.stored import same_as_stored
from consumers.transport.base import Message, Partition
from schemas import limits
from schemas.crashpoints import crash_point
from schemas.errors import BadInputError
from schemas.frame import Frame, decode
from schemas.loss import Loss, LossKind
from schemas.stream import Stream

log = logging.getLogger(__name__)
_RECENT_MAX: Final = 1024


class Cut(NamedTuple):
    """When a partition's buffer is committed: at so many bytes, rows, or ns of age."""

    bytes_max: int
    rows_max: int
    age_ns: int


class PartitionCollector:
    """Collects one partition into `chain`. `now_ns` is CLOCK_MONOTONIC, by the caller's hand."""

    def __init__(self, partition: Partition, chain: Chain, writer: CommitWriter, cut: Cut) -> None:
        self.partition = partition
        self._chain = chain
        self._writer = writer
        self._cut = cut
        # Checksums of recent frames, to know a re-sent frame without reading the lake.
        self._recent: OrderedDict[tuple[Stream, str, int], int] = OrderedDict()
        self.reload()

    def reload(self) -> None:
        """Forget what is buffered and go to where the chain ends."""
        state = self._chain.load()
        self.position = self._committed = state.frontier
        self._books = Books.from_json(state.streams, state.notes)
        self._frames: list[tuple[int, FrameIn]] = []
        self._losses: list[rows.LossRow] = []
        self._dead: list[rows.DeadRow] = []
        self._bytes = self._rows = 0
        self._oldest_ns: int | None = None

    @property
    def buffered(self) -> int:
        """Return how many offsets wait for a commit."""
        return self.position - self._committed

    def add(self, messages: list[Message], now_ns: int) -> None:
        """Enter `messages`, which continue at `position`; an offset jump is loss in the log itself."""
        for message in messages:
            if message.offset < self.position:
                continue
            if message.offset > self.position:
                self._books.retentions += 1
            self.position = message.offset + 1
            self._add(message)
        if messages and self._oldest_ns is None:
            self._oldest_ns = now_ns
        crash_point("collector:added")

    def overtaken(self, start: int, arrival_ns: int) -> None:
        """Enter that the log's retention deleted everything before `start`; committed like any data, so never forgotten."""
        lost = Loss(LossKind.RETENTION, self.position, start - self.position, "offsets-deleted-unread", "collector")
        self._losses.append(rows.LossRow(None, lost, self.position, arrival_ns))
        self._books.retentions += 1
        log.error("%s: retention deleted offsets %d to %d before they were read", self.partition, self.position, start - 1)
        self.position = start

    def due(self, now_ns: int) -> bool:
        """Return whether the buffer is to be committed."""
        if self._oldest_ns is None:
            return self.buffered > 0
        full = self._bytes >= self._cut.bytes_max or self._rows >= self._cut.rows_max
        return full or now_ns - self._oldest_ns >= self._cut.age_ns

    def commit(self) -> bool:
        """Commit what is buffered; False when another collector had committed these offsets, and we follow it now."""
        if not self.buffered:
            return True
        tables = self._decode()
        batch = Batch(self._committed, self.position, tables, self._books.take_changed(), self._books.partition_json())
        if not self._writer.commit(self._chain, batch):
            log.warning("%s: offset %d was committed by another collector; following it", self.partition, self._committed)
            self.reload()
            return False
        self._committed = self.position
        self._frames, self._losses, self._dead = [], [], []
        self._bytes = self._rows = 0
        self._oldest_ns = None
        return True

    def _add(self, message: Message) -> None:
        try:
            frame = decode(message.value)
        except BadInputError as e:
            self._books.unreadable += 1
            self._bury(message, e, None, None, message.value)
            return
        known = self._recent.get((frame.stream, frame.run, frame.number)) == zlib.crc32(frame.body)
        before = self._books.streams[frame.stream].next if frame.stream in self._books.streams else frame.first
        decision = self._books.offer(frame)
        self._losses += [rows.LossRow(frame.stream, loss, message.offset, message.ts_ns) for loss in decision.losses]
        try:
            decoder = registry.decoder_for(frame.encoding, frame.encoding_version)
            overlap_end = min(before, frame.next)
            if frame.first < overlap_end and not known:
                self._compare(message, frame, decoder, overlap_end)
            if decision.duplicate:
                return
            if decision.store_from > frame.first:
                frame = decoder.trim(frame, decision.store_from)
        except BadInputError as e:
            self._books.dead(frame.stream, frame.next - decision.store_from)
            self._bury(message, e, frame.stream, decision.store_from, frame.body)
            return
        self._remember(frame)
        self._books.stored(frame.stream, frame.next - frame.first, frame.count)
        self._frames.append((message.offset, FrameIn(frame, message.ts_ns, self.partition, message.offset)))
        self._bytes += len(frame.body)
        self._rows += frame.count

    # The same positions again: silent when the content is the stored one, an overwrite and a dead letter when not.
    def _compare(self, message: Message, frame: Frame, decoder: Any, end: int) -> None:
        head = decoder.head(frame, end)
        if same_as_stored(head, decoder, [frame_in for _, frame_in in self._frames], self._writer.storage):
            return
        loss = Loss(LossKind.OVERWRITE, head.first, head.next - head.first, "content-differs", "collector")
        self._losses.append(rows.LossRow(frame.stream, loss, message.offset, message.ts_ns))
        self._bury(message, BadInputError("content-differs", "positions already stored with other content"), frame.stream, head.first, head.body)

    def _remember(self, frame: Frame) -> None:
        self._recent[(frame.stream, frame.run, frame.number)] = zlib.crc32(frame.body)
        if len(self._recent) > _RECENT_MAX:
            self._recent.popitem(last=False)

    def _bury(self, message: Message, error: BadInputError, stream: Stream | None, position: int | None, data: bytes) -> None:
        head = data[: limits.DEAD_LETTER_BYTES_MAX]
        self._dead.append(
            rows.DeadRow(stream, position, error.reason, error.detail, len(data), head, message.offset, message.ts_ns)
        )

    def _decode(self) -> dict[str, pa.Table]:
        tables: dict[str, list[pa.Table]] = {}
        for decoder, frames in _by_decoder([frame_in for _, frame_in in self._frames]):
            decoded = decoder.decode_many(frames)
            for name, table in decoded.tables.items():
                tables.setdefault(name, []).append(table)
            for bad in decoded.bad:
                self._bury_record(bad)
        tables["losses"] = [rows.losses_table(self.partition, self._losses)]
        tables["dead_letters"] = [rows.dead_letters_table(self.partition, self._dead)]
        joined = {name: pa.concat_tables(parts, promote_options="none") for name, parts in tables.items()}
        return {name: table for name, table in joined.items() if table.num_rows}

    # A record of a good frame that cannot be read: its position is dead, its neighbours are stored.
    def _bury_record(self, bad: BadRecord) -> None:
        self._books.stored(bad.stream, -1, -1)
        self._books.dead(bad.stream, 1)
        head = bad.data[: limits.DEAD_LETTER_BYTES_MAX]
        self._dead.append(
            rows.DeadRow(bad.stream, bad.position, bad.reason, bad.detail, len(bad.data), head, bad.offset, bad.arrival_ns)
        )


# Frames of one decoder together, streams in order of first sight, each stream's frames in log order: sorted rows for free.
def _by_decoder(frames: list[FrameIn]) -> list[tuple[Any, list[FrameIn]]]:
    groups: dict[tuple[str, int], dict[Stream, list[FrameIn]]] = {}
    for frame_in in frames:
        key = (frame_in.frame.encoding, frame_in.frame.encoding_version)
        groups.setdefault(key, {}).setdefault(frame_in.frame.stream, []).append(frame_in)
    return [
        (registry.decoder_for(*key), [item for stream in sorted(streams) for item in streams[stream]])
        for key, streams in groups.items()
    ]
