"""Where the lake's objects lie: durable, atomic, created exclusively. A directory, and a twin in memory."""

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

from schemas.errors import StorageError

_SCRATCH: Final = "tmp"


class Storage(Protocol):
    """Objects by key; a key is a relative path with slashes. Every write is durable when it returns.

    Raises:
        StorageError: from every method, when the disk refuses.
    """

    def put_file(self, local: Path, key: str) -> None:
        """Move the file `local` (in `scratch()`) to `key`, which must not exist."""
        ...

    def put_exclusive(self, key: str, data: bytes) -> bool:
        """Create `key`; False when it exists."""
        ...

    def replace(self, key: str, data: bytes) -> None:
        """Create or replace `key`; for advisory objects only."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Return the keys under the folder `prefix` (ends with a slash), sorted."""
        ...

    def read(self, key: str) -> bytes:
        """Return the content of `key`; KeyError when there is none."""
        ...

    def exists(self, key: str) -> bool:
        """Return whether there is a `key`."""
        ...

    def size_bytes(self, key: str) -> int:
        """Return the length of `key`; KeyError when there is none."""
        ...

    def modified_ns(self, key: str) -> int:
        """Return when `key` was put there (CLOCK_REALTIME); KeyError when there is none."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key` if it is there."""
        ...

    def scratch(self) -> Path:
        """Return a directory for files to be put."""
        ...

    def local_path(self, key: str) -> str:
        """Return a path under which readers can open `key`."""
        ...


@contextlib.contextmanager
def _refusals(path: object) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise StorageError(f"{path}: {e.strerror or e}") from e


# A folder that cannot be read is not an empty one: what nothing in it names would pass for garbage.
def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


# A walk passes over them, while a path leads through them: what lies behind would be there, and then again not.
def _refuse_links(folder: str, names: Iterable[str]) -> None:
    for name in names:
        path = Path(folder) / name
        if path.is_symlink():
            raise StorageError(f"{path}: a symbolic link to a folder; those of a lake must be its own")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LocalStorage:
    """Objects as files under `root`, on one filesystem."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_file(self, local: Path, key: str) -> None:
        """See `Storage`."""
        target = self.root / key
        with _refusals(target):
            self._folder(target.parent)
            _fsync(local)
            os.link(local, target)
            local.unlink()
            _fsync(target.parent)

    def put_exclusive(self, key: str, data: bytes) -> bool:
        """See `Storage`."""
        target = self.root / key
        with _refusals(target):
            self._folder(target.parent)
            with self._written(data) as temporary:
                try:
                    os.link(temporary, target)
                except FileExistsError:
                    return False
                _fsync(target.parent)
        return True

    def replace(self, key: str, data: bytes) -> None:
        """See `Storage`."""
        target = self.root / key
        with _refusals(target):
            self._folder(target.parent)
            with self._written(data) as temporary:
                temporary.replace(target)
                _fsync(target.parent)

    def list(self, prefix: str) -> Iterator[str]:
        """See `Storage`."""
        base = self.root / prefix
        with _refusals(base):
            found = []
            for folder, folders, names in os.walk(base, onerror=_raise_unless_gone):
                _refuse_links(folder, folders)
                found += [os.path.relpath(os.path.join(folder, name), self.root) for name in names]  # noqa: PTH118
        yield from sorted(found)

    def read(self, key: str) -> bytes:
        """See `Storage`."""
        with _refusals(self.root / key):
            try:
                return (self.root / key).read_bytes()
            except FileNotFoundError:
                raise KeyError(key) from None

    def exists(self, key: str) -> bool:
        """See `Storage`."""
        try:
            self._stat(key)
        except KeyError:
            return False
        return True

    def size_bytes(self, key: str) -> int:
        """See `Storage`."""
        return self._stat(key).st_size

    def modified_ns(self, key: str) -> int:
        """See `Storage`."""
        return self._stat(key).st_mtime_ns

    def delete(self, key: str) -> None:
        """See `Storage`."""
        with _refusals(self.root / key):
            (self.root / key).unlink(missing_ok=True)

    def scratch(self) -> Path:
        """See `Storage`."""
        path = self.root / _SCRATCH
        with _refusals(path):
            path.mkdir(exist_ok=True)
        return path

    def local_path(self, key: str) -> str:
        """See `Storage`."""
        return str(self.root / key)

    def _stat(self, key: str) -> os.stat_result:
        with _refusals(self.root / key):
            try:
                return (self.root / key).stat()
            except FileNotFoundError:
                raise KeyError(key) from None

    # A new folder is durable only when the folder above it is synced too.
    def _folder(self, path: Path) -> None:
        missing = []
        while not path.exists():
            missing.append(path)
            path = path.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            _fsync(folder.parent)

    @contextlib.contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        temporary = self.scratch() / uuid.uuid4().hex
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


class MemoryStorage:
    """Objects in a dict; counts `reads`. `now_ns` is what the next object's time will be, the real time when None."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.reads = 0
        self.lists = 0
        self.now_ns: int | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="hypocenter-")

    def close(self) -> None:
        """Remove the scratch directory."""
        self._directory.cleanup()

    def put_file(self, local: Path, key: str) -> None:
        """See `Storage`."""
        if key in self.objects:
            raise StorageError(f"{key}: exists")
        self.objects[key] = (local.read_bytes(), self._now_ns())
        local.unlink()

    def put_exclusive(self, key: str, data: bytes) -> bool:
        """See `Storage`."""
        if key in self.objects:
            return False
        self.objects[key] = (data, self._now_ns())
        return True

    def replace(self, key: str, data: bytes) -> None:
        """See `Storage`."""
        self.objects[key] = (data, self._now_ns())

    def list(self, prefix: str) -> Iterator[str]:
        """See `Storage`."""
        self.lists += 1
        yield from sorted(key for key in self.objects if key.startswith(prefix))

    def read(self, key: str) -> bytes:
        """See `Storage`."""
        self.reads += 1
        return self.objects[key][0]

    def exists(self, key: str) -> bool:
        """See `Storage`."""
        return key in self.objects

    def size_bytes(self, key: str) -> int:
        """See `Storage`."""
        return len(self.objects[key][0])

    def modified_ns(self, key: str) -> int:
        """See `Storage`."""
        return self.objects[key][1]

    def delete(self, key: str) -> None:
        """See `Storage`."""
        self.objects.pop(key, None)

    def scratch(self) -> Path:
        """See `Storage`."""
        return Path(self._directory.name)

    def local_path(self, key: str) -> str:
        """See `Storage`."""
        path = self.scratch() / key.replace("/", "_")
        path.write_bytes(self.objects[key][0])
        return str(path)

    def _now_ns(self) -> int:
        return time.time_ns() if self.now_ns is None else self.now_ns
