"""Files that a command writes for whoever asked for them: whole or not at all."""

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from schemas.errors import StorageError, UsageError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write, which is synced and becomes `path` at the end; after an error `path` is as it was.

    A symbolic link is followed.

    Raises:
        UsageError: there is no such directory, or `path` is there and no regular file: that is never replaced.
        StorageError: the disk refuses.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: is {'a directory' if path.is_dir() else 'no regular file'}, and not replaced")
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:200]}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("xb") as out:
            if target.exists():  # who may read it stays the same
                os.fchmod(out.fileno(), stat.S_IMODE(target.stat().st_mode))
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(target)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise UsageError(f"{path}: {e.strerror}") from None
    except OSError as e:
        raise StorageError(f"{path}: {e.strerror or e}") from e
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
