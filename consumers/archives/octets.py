"""Bytes of a file or of memory, read piece by piece: every length is compared with what is there before it is used."""

import os
import weakref
from pathlib import Path
from typing import Final, Protocol

from schemas.errors import BadInputError, UsageError

_TEXT_STEP_BYTES: Final = 256


class Octets(Protocol):
    """Bytes that can be read at any place; `size_bytes` of them."""

    size_bytes: int

    def read(self, at: int, count: int) -> bytes:
        """Return `count` bytes from `at` on, fewer where they end."""
        ...


class FileOctets:
    """The bytes of a file, which stays open while this is there; `size_bytes` is how long it was at first.

    Raises:
        UsageError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._fd)
            self.size_bytes = os.fstat(self._fd).st_size
            self.read(0, 1)
        except OSError as e:
            raise UsageError(f"{path}: {e.strerror}") from None

    def read(self, at: int, count: int) -> bytes:
        """Return `count` bytes from `at` on, fewer where the file ends."""
        end = min(at + count, self.size_bytes)
        parts = []
        while at < end and (part := os.pread(self._fd, end - at, at)):
            parts.append(part)
            at += len(part)
        return b"".join(parts)


class MemoryOctets:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)

    def read(self, at: int, count: int) -> bytes:
        """Return `count` bytes from `at` on, fewer where they end."""
        return self._data[at : at + count]


class Cursor:
    """Reads numbers and texts of `octets` one after the other; `what` begins the sentence of every error.

    `at` is the place of the next byte, and may be set.
    """

    def __init__(self, octets: Octets, what: str, at: int = 0, *, big_endian: bool = False) -> None:
        self.octets = octets
        self.what = what
        self.at = at
        self.big_endian = big_endian

    def number(self, size_bytes: int) -> int:
        """Return the unsigned number of `size_bytes` that comes next.

        Raises:
            BadInputError: `reason` is `cut-off`.
        """
        return int.from_bytes(self.octets_of(size_bytes), "big" if self.big_endian else "little")

    def octets_of(self, count: int) -> bytes:
        """Return the next `count` bytes.

        Raises:
            BadInputError: `reason` is `cut-off`.
        """
        self.need(count)
        found = self.octets.read(self.at, count)
        self.at += count
        return found

    def need(self, count: int) -> None:
        """Verify that `count` bytes come next.

        Raises:
            BadInputError: `reason` is `cut-off`.
        """
        if not 0 <= self.at <= self.octets.size_bytes - count:
            what = (
                f"{self.what} has {self.octets.size_bytes:,} bytes, and {count:,} are stated from byte {self.at:,} on"
            )
            raise BadInputError("cut-off", what)

    def skip(self, count: int) -> None:
        """Leave out the next `count` bytes.

        Raises:
            BadInputError: `reason` is `cut-off`.
        """
        self.need(count)
        self.at += count

    def text(self, bytes_max: int) -> str:
        """Return the text up to the next NUL, which is passed over.

        Raises:
            BadInputError: `reason` is `cut-off`: there is none in what is left; `format`: nor in `bytes_max`.
        """
        self.need(0)
        found = b""
        while b"\0" not in found and len(found) <= bytes_max:
            more = self.octets.read(self.at + len(found), _TEXT_STEP_BYTES)
            if not more:
                self.need(self.octets.size_bytes - self.at + 1)
            found += more
        found, _, _ = found.partition(b"\0")
        if len(found) > bytes_max:
            raise BadInputError("format", f"{self.what} has no text of at most {bytes_max} bytes at {self.at:,}")
        self.at += len(found) + 1
        return found.decode("utf-8", "replace")
