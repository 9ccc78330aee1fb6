"""One segment file, open for reading: its header, batches of entries, and the way on behind damaged bytes."""

import os
from pathlib import Path
from typing import Final, NamedTuple

from schemas import limits, segment
from schemas.errors import BadInputError, StorageError
from schemas.segment import Entry, Header

_WINDOW_BYTES: Final = 4 << 20


class Batch(NamedTuple):
    """Consecutive entries; the next one begins at byte `at`, unless the bytes there are `damaged`."""

    entries: list[Entry]
    at: int
    damaged: bool


class SegmentFile:
    """The segment at `path`, which begins with offset `base`. Reads go on when the file is deleted meanwhile.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: from every method, when the disk refuses.
    """

    def __init__(self, path: Path, base: int) -> None:
        self.path = path
        self.base = base
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as e:
            raise StorageError(f"{path}: {e.strerror}") from e

    def close(self) -> None:
        """Release the file."""
        os.close(self._fd)

    def size_bytes(self) -> int:
        """Return the file's length."""
        return os.fstat(self._fd).st_size

    def header(self) -> Header:
        """Return the segment's header.

        Raises:
            BadInputError: it is damaged, of another version, or of another segment.
        """
        prefix = self._pread(segment.HEADER_PREFIX_BYTES, 0)
        header = segment.decode_header(self._pread(segment.header_bytes(prefix), 0))
        if header.base != self.base:
            raise BadInputError("segment", f"the header is that of offset {header.base}")
        return header

    def entries(self, at: int, offset: int, limit: int, bytes_max: int) -> Batch:
        """Return about `bytes_max` of entries from byte `at`, where `offset` is due, none of them beyond `limit`."""
        assert bytes_max >= segment.ENTRY_PREFIX_BYTES
        found = segment.split(self._pread(min(bytes_max, limit - at), at), offset)
        if not found.entries and not found.damaged and at + found.needed_bytes <= limit:
            # One entry that is longer than the batch.
            found = segment.split(self._pread(found.needed_bytes, at), offset)
        at += found.consumed
        # What is cut off at the limit, and not by our batch's size, is no entry either.
        cut = not found.damaged and not found.entries and at < limit
        return Batch(found.entries, at, found.damaged or cut)

    def resync(self, at: int, low: int, high: int, limit: int) -> tuple[int, int]:
        """Return byte and offset of the first valid entry from `at` on whose offset lies in `[low, high)`.

        Returns `(limit, high)` when there is none below byte `limit`.
        """
        while low < high and at < limit:
            window = self._pread(min(_WINDOW_BYTES, limit - at), at)
            for found_at, size_bytes, offset in segment.candidates(window, low, high):
                start = at + found_at
                if start + size_bytes <= limit and segment.split(self._pread(size_bytes, start), offset).entries:
                    return start, offset
            if len(window) < _WINDOW_BYTES:
                break
            at += len(window) - segment.ENTRY_PREFIX_BYTES + 1
        return limit, high

    def read(self, at: int, stop: int) -> bytes:
        """Return the bytes `[at, stop)`, none where that is no range, at most as many as a frame can have."""
        return self._pread(max(0, min(stop - at, limits.FRAME_BYTES_MAX)), at)

    def _pread(self, size_bytes: int, at: int) -> bytes:
        try:
            return os.pread(self._fd, size_bytes, at)
        except OSError as e:
            raise StorageError(f"{self.path}, byte {at}: {e.strerror}") from e
