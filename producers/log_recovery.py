"""What a partition's files hold when a writer opens them, whatever moment the last one died at.

Below the published `end` nothing is ever cut: damage stays where it is, for readers to hand out (`schemas.log_cursor`).
Behind it, everything valid is kept, because `end` on disk may be older than what was made durable; the first byte that
is not valid begins the torn tail, which is cut. An offset once published is not used again, even when its bytes are
gone.
"""

import logging
import os
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from producers.durable import PART, refusals, sync_path
from schemas import frame as frames
from schemas import limits, log_dir, segment
from schemas.errors import BadInputError
from schemas.segment import End, StreamPosition
from schemas.segment_file import SegmentFile
from schemas.stream import Stream

log = logging.getLogger(__name__)
_READ_BYTES: Final = 1 << 20


class Recovered(NamedTuple):
    """Where writing goes on: `offset`, at byte `position` of segment `base`; position 0: a segment yet to be created.

    `append_ns` is the newest append time; `streams` are ordered by when each was last written.
    """

    base: int
    position: int
    offset: int
    append_ns: int
    streams: dict[Stream, StreamPosition]
    torn_bytes: int


def recover(folder: Path) -> Recovered:
    """Return the state of the partition in `folder`, which may be new; a torn tail is cut, all that is left is durable.

    Raises:
        StorageError: the disk refuses.
    """
    with refusals(folder):
        for part in folder.glob(f"*{PART}"):
            part.unlink()
        end = _published(folder)
        bases = log_dir.segment_bases(folder)
        published = end.offset if end else 0
        if not bases:
            return Recovered(published, 0, published, 0, {}, 0)
        walk = _Walk(folder, bases)
        torn_bytes = walk.newest(end)
        if walk.offset < published or walk.short:
            log.error("%s: the segment of offset %d lacks published bytes; beginning another", folder, bases[-1])
            return Recovered(published, 0, published, walk.append_ns, walk.streams, torn_bytes)
        return Recovered(bases[-1], walk.at, walk.offset, walk.append_ns, walk.streams, torn_bytes)


def _published(folder: Path) -> End | None:
    try:
        return segment.decode_end((folder / log_dir.END).read_bytes())
    except FileNotFoundError:
        return None
    except BadInputError as e:
        log.warning("%s: %s; going by the segments alone", folder / log_dir.END, e)
        return None


class _Walk:
    """Goes through segments' entries and notes where each stream stands."""

    def __init__(self, folder: Path, bases: list[int]) -> None:
        self._folder, self._bases = folder, bases
        self.at = self.offset = self.append_ns = 0
        self.streams: dict[Stream, StreamPosition] = {}
        self.short = False  # the newest segment ends before its published end

    # Returns the bytes that were cut.
    def newest(self, end: End | None) -> int:
        # From the newest segment whose header says where the streams stood: nearly always the newest of all.
        first = next((i for i in reversed(range(len(self._bases))) if self._header_is_good(self._bases[i])), 0)
        for base, after in pairwise(self._bases[first:]):
            with closing(self._open(base)) as file:
                self._start(file)
                self._go(file, file.size_bytes(), file.size_bytes(), after)
        with closing(self._open(self._bases[-1])) as file:
            durable, high = (end.position, end.offset) if end and end.base == file.base else (0, file.base)
            size_bytes = file.size_bytes()
            self.short = size_bytes < durable
            if not self._start(file) and not durable:
                # Nothing of it was published, but all may be there behind its header.
                self.at, self.offset = file.resync(0, file.base, limits.INT64_MAX, size_bytes)
                if self.at == size_bytes:
                    self.at, self.offset = 0, file.base
            self._go(file, size_bytes, durable, high)
        torn_bytes = max(0, size_bytes - self.at)
        if torn_bytes:
            log.warning("%s, byte %d: a torn tail of %d bytes is cut", file.path, self.at, torn_bytes)
            os.truncate(file.path, self.at)
        sync_path(file.path)
        sync_path(self._folder)
        return torn_bytes

    def _open(self, base: int) -> SegmentFile:
        return SegmentFile(log_dir.segment_path(self._folder, base), base)

    def _header_is_good(self, base: int) -> bool:
        with closing(self._open(base)) as file:
            try:
                file.header()
            except BadInputError as e:
                log.error("%s: %s; looking for its entries", file.path, e)  # noqa: TRY400
                return False
        return True

    # False when the header is damaged; the streams are then those that stood at the end of the segment before.
    def _start(self, file: SegmentFile) -> bool:
        try:
            header = file.header()
        except BadInputError:
            self.at, self.offset = 0, file.base
            return False
        self.at, self.offset, self.append_ns, self.streams = (
            header.size_bytes,
            file.base,
            header.floor_ns,
            header.streams,
        )
        return True

    # To `limit`, or to the first byte from `durable` on that is not valid. Below, damage gives up offsets below `high`.
    def _go(self, file: SegmentFile, limit: int, durable: int, high: int) -> None:
        while True:
            batch = file.entries(self.at, self.offset, limit, _READ_BYTES)
            for entry in batch.entries:
                self._note(*entry)
            self.at = batch.at
            if batch.entries:
                continue
            if not batch.damaged or self.at >= durable:
                return
            at, offset = file.resync(self.at, self.offset, high, min(durable, limit))
            log.error("%s, byte %d: damaged up to byte %d, offset %d", file.path, self.at, at, offset)
            self.at, self.offset = at, offset

    def _note(self, offset: int, append_ns: int, payload: bytes) -> None:
        self.offset, self.append_ns = offset + 1, append_ns
        try:
            # Its body may be somebody else's, or compressed by a library that is not here.
            tags = frames.decode_tags(payload)
        except BadInputError:
            return  # its readers bury it
        self.streams.pop(tags.stream, None)
        self.streams[tags.stream] = StreamPosition(tags.next, tags.number)
