"""Files and folders that a power cut cannot take back: see fsync(2) and rename(2) for what each step makes durable."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from schemas.errors import StorageError

PART: Final = ".part"
# As many as one call takes: IOV_MAX of writev(2).
_PARTS_MAX: Final = 1024
# Kernel logs are not for everybody.
_FILE_MODE: Final = 0o640
_DIR_MODE: Final = 0o750


@contextlib.contextmanager
def refusals(path: object) -> Iterator[None]:
    """Turn an OSError into the StorageError that names `path`."""
    try:
        yield
    except OSError as e:
        raise StorageError(f"{path}: {e.strerror or e}") from e


def sync_path(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """Create `path` and what is missing above it."""
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=_DIR_MODE)
            sync_path(folder.parent)


def write_file(path: Path, data: bytes) -> None:
    """Create or replace `path`: after a power cut it holds the old content or all of `data`."""
    part = path.with_name(path.name + PART)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
    try:
        write_at(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    part.replace(path)
    sync_path(path.parent)


def write_all_at(fd: int, parts: Sequence[bytes | memoryview], position: int) -> None:
    """Write all of `parts`, one behind the other, at byte `position`."""
    for at in range(0, len(parts), _PARTS_MAX):
        some = parts[at : at + _PARTS_MAX]
        size_bytes = sum(map(len, some))
        written = os.pwritev(fd, some, position)
        if written < size_bytes:
            write_at(fd, b"".join(some)[written:], position + written)
        position += size_bytes


def write_at(fd: int, data: bytes, position: int) -> None:
    """Write all of `data` at byte `position`; one write(2) may take only a part of it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, position)
        view, position = view[written:], position + written
