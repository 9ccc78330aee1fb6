"""Reads one partition of a log directory in order: only what `end` says is durable, in large batches.

Every offset between start and end is handed out exactly once, in order. Where bytes below the durable end are damaged,
the offset comes with the bytes that lie there (empty where even those are gone): no frame that can be decoded, unless
only the entry's prefix was hit, so it ends as a dead letter that names the offset, and the stream goes on behind it.
"""

import logging
from bisect import bisect_right
from pathlib import Path
from typing import Final

from schemas import log_dir, segment
from schemas.errors import BadInputError, HypocenterError
from schemas.segment import End, Entry
from schemas.segment_file import SegmentFile
from schemas.stream import Stream

log = logging.getLogger(__name__)
_READ_BYTES: Final = 1 << 20
# Offsets without bytes in one batch: a destroyed segment must not become one huge list.
_LOST_MAX: Final = 4096


class OvertakenError(HypocenterError):
    """Retention deleted the `position` asked for; reading can go on from `start`."""

    def __init__(self, folder: Path, position: int, start: int) -> None:
        super().__init__(f"{folder}: offset {position} is gone, the log starts at {start}")
        self.position, self.start = position, start


class LogCursor:
    """A position in partition `number` of `topic`, at first the oldest offset held; the partition may appear later.

    Raises:
        StorageError: from every method, when the disk refuses.
    """

    def __init__(self, directory: Path, topic: str, number: int) -> None:
        self._folder = log_dir.partition_dir(directory, topic, number)
        self._file: SegmentFile | None = None
        self._seen = 0
        self.seek(self.start_offset())

    def start_offset(self) -> int:
        """Return the oldest offset still held."""
        end = self.end_offset()
        bases = log_dir.segment_bases(self._folder)
        return min(bases[0], end) if bases else end

    def end_offset(self) -> int:
        """Return the offset that the next durable entry will get."""
        end = log_dir.read_end(self._folder)
        return end.offset if end else 0

    @property
    def position(self) -> int:
        """The offset that `read` hands out next."""
        return self._wanted

    @property
    def end(self) -> int:
        """The offset that the next durable entry would get, as the last `read` found; 0 before one."""
        return self._seen

    @property
    def segment_base(self) -> int | None:
        """The first offset of the segment that is being read; None while none is open."""
        return self._file.base if self._file is not None else None

    @property
    def behind(self) -> bool:
        """Whether the last `read` left durable entries behind; what came since it does not know."""
        return self._wanted < self._seen

    def seek(self, offset: int) -> None:
        """Go to `offset`; finding it costs one pass over its segment, at the next read."""
        self.close()
        self._wanted = offset

    def close(self) -> None:
        """Release the open segment; a later read opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def read(self, bytes_max: int = _READ_BYTES) -> list[Entry]:
        """Return the next durable entries, about `bytes_max` bytes but at least one; empty at the end.

        Raises:
            OvertakenError: the position is below the log's start; seek there and go on.
        """
        end = log_dir.read_end(self._folder)
        if end is None or end.offset < self._seen:
            self.close()  # another log lies here now
        self._seen = end.offset if end else 0
        while end is not None and self._wanted < end.offset:
            entries = self._advance(self._file or self._open(end), end, bytes_max)
            if entries and entries[-1][0] >= self._wanted:
                if entries[0][0] < self._wanted:
                    entries = entries[self._wanted - entries[0][0] :]
                self._wanted += len(entries)
                return entries
        return []

    def segment_positions(self) -> dict[Stream, int]:
        """Return every stream's next position at the start of the oldest segment; empty when its header is damaged."""
        while bases := log_dir.segment_bases(self._folder):
            try:
                file = SegmentFile(log_dir.segment_path(self._folder, bases[0]), bases[0])
            except FileNotFoundError:
                continue  # retention was faster
            try:
                return {stream: at.next for stream, at in file.header().streams.items()}
            except BadInputError as e:
                log.error("%s: %s; the streams' positions at its start are not known", file.path, e)  # noqa: TRY400
                return {}
            finally:
                file.close()
        return {}

    # The segment that holds the wanted position; reading it begins at its start.
    def _open(self, end: End) -> SegmentFile:
        while True:
            bases = log_dir.segment_bases(self._folder)
            start = bases[0] if bases else end.offset
            if self._wanted < start:
                raise OvertakenError(self._folder, self._wanted, start)
            base = bases[bisect_right(bases, self._wanted) - 1]
            try:
                file = SegmentFile(log_dir.segment_path(self._folder, base), base)
            except FileNotFoundError:
                continue  # retention was faster
            break
        self._file, self._next, self._at = file, base, 0
        self._lost_until, self._lost_bytes, self._append_ns = base, b"", 0
        try:
            header = file.header()
            self._at, self._append_ns = header.size_bytes, header.floor_ns
        except BadInputError as e:
            log.error("%s: %s; looking for its entries", file.path, e)  # noqa: TRY400
        return file

    # The entries that follow in `file`, empty at a step without any; `_next` is the offset that follows.
    def _advance(self, file: SegmentFile, end: End, bytes_max: int) -> list[Entry]:
        if self._next < self._lost_until:
            return self._lost()
        limit = end.position if file.base == end.base else file.size_bytes()
        batch = file.entries(self._at, self._next, limit, bytes_max)
        self._at = batch.at
        if batch.entries:
            self._next += len(batch.entries)
            self._append_ns = batch.entries[-1][1]
            return batch.entries
        bases = log_dir.segment_bases(self._folder)
        if file.base not in bases and (batch.damaged or not bases or self._next < bases[0]):
            # Retention went on behind us: what this deleted segment lacks cannot be told from what came after it.
            self.close()
            return []
        bound = min([base for base in bases if base > file.base] + [end.offset])
        if self._next < bound:
            self._salvage(file, bound, limit)
        else:
            self.close()
        return []

    # The bytes at `_at` are not the entry `_next`: find the next one below `bound`, and give up the offsets before it.
    def _salvage(self, file: SegmentFile, bound: int, limit: int) -> None:
        at, offset = file.resync(self._at, self._next, bound, limit)
        log.error(
            "%s, byte %d: damaged up to byte %d; %d offsets from %d on are handed out as the bytes that lie there",
            file.path,
            self._at,
            at,
            offset - self._next,
            self._next,
        )
        self._lost_bytes = file.read(self._at + segment.ENTRY_PREFIX_BYTES, at)
        self._lost_until, self._at = offset, at

    def _lost(self) -> list[Entry]:
        stop = min(self._lost_until, self._next + _LOST_MAX)
        entries = [(offset, self._append_ns, b"") for offset in range(self._next, stop)]
        entries[0] = (self._next, self._append_ns, self._lost_bytes)
        self._lost_bytes, self._next = b"", stop
        return entries
