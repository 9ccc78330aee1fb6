"""How far an agent read a ring, kept where a SIGKILL cannot take it: what was read and not yet in the log is gone then.

The kernel gives a page, or a record, once. What a killed agent had read and not made durable is therefore lost, and
only this file, mapped into memory, still says how much: the page cache outlives the process, and no ring outlives the
kernel.
"""

import contextlib
import mmap
import os
import struct
from pathlib import Path
from typing import Final

_MAGIC: Final = b"HYPPAGE1"
_BOOT_BYTES: Final = 56
_HEAD_BYTES: Final = len(_MAGIC) + _BOOT_BYTES
_SLOT: Final = struct.Struct("=qq")
SUFFIX: Final = ".pages"


class Journal:
    """In each slot (a CPU) a stream's next position: before a read the range it may end in, after it the one number."""

    def __init__(self, path: Path, memory: mmap.mmap) -> None:
        self._path = path
        self._memory = memory

    def note(self, slot: int, least: int, most: int) -> None:
        """Note that the next position is `least`, or any up to `most` should this process die now."""
        _SLOT.pack_into(self._memory, _HEAD_BYTES + slot * _SLOT.size, least, most)

    def noted(self, slot: int) -> tuple[int, int]:
        """Return what was noted last: (0, 0) where nothing was."""
        least, most = _SLOT.unpack_from(self._memory, _HEAD_BYTES + slot * _SLOT.size)
        return least, most

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)
        self._memory.close()


def create(folder: Path, ring: str, boot_id: str, slots: int) -> Journal:
    """Return a new journal for the ring named `ring`, with `slots` of them.

    Raises:
        OSError: the disk refuses.
    """
    folder.mkdir(mode=0o750, exist_ok=True)
    path = folder / (ring + SUFFIX)
    path.unlink(missing_ok=True)
    size_bytes = _HEAD_BYTES + slots * _SLOT.size
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        # A mapped page that the disk has no room for would be a SIGBUS at the first note.
        os.posix_fallocate(fd, 0, size_bytes)
        os.pwrite(fd, _MAGIC + _boot(boot_id), 0)
        return Journal(path, mmap.mmap(fd, size_bytes))
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def find(folder: Path, ring: str, boot_id: str, slots: int) -> Journal | None:
    """Return the journal that another process left of `ring`, None where there is none of this boot."""
    path = folder / (ring + SUFFIX)
    size_bytes = _HEAD_BYTES + slots * _SLOT.size
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.pread(fd, _HEAD_BYTES, 0) != _MAGIC + _boot(boot_id) or os.fstat(fd).st_size < size_bytes:
            return None
        return Journal(path, mmap.mmap(fd, size_bytes))
    finally:
        os.close(fd)


def others(folder: Path, rings: set[str]) -> list[str]:
    """Return the names of the rings, not among `rings`, that have a journal in `folder`: they are gone."""
    return sorted({path.name.removesuffix(SUFFIX) for path in folder.glob("*" + SUFFIX)} - rings)


def delete(folder: Path, ring: str) -> None:
    """Delete the journal of `ring`, if that can be."""
    with contextlib.suppress(OSError):
        (folder / (ring + SUFFIX)).unlink()


def _boot(boot_id: str) -> bytes:
    return boot_id.encode()[:_BOOT_BYTES].ljust(_BOOT_BYTES, b"\0")
