"""Files that are not what their commits say: each is told once, and holds up nothing but itself.

A manifest names those that a merge has met, {damaged: [[key, what is wrong], ...]}, so that nobody reads them again and
again for nothing.
"""

import errno
from pathlib import Path
from typing import Any

from consumers.lake.chain import FileEntry
from consumers.lake.parquet import file_sha256
from consumers.lake.storage import Storage
from schemas.errors import StorageError


def damage(storage: Storage, entry: FileEntry) -> str | None:
    """Return what is wrong with the file of `entry`, None where it is what its commit says; reads all of it.

    Raises:
        StorageError: the disk refuses, which says nothing about the file.
    """
    try:
        found = file_sha256(Path(storage.local_path(entry.key)))
    except (FileNotFoundError, KeyError):
        return "it is gone"
    except OSError as e:
        if e.errno != errno.EIO:
            raise StorageError(f"{entry.key}: {e.strerror}") from e
        return "the disk cannot read it"
    return None if found == entry.sha256 else "it is not what its commit says"


def known(manifest: dict[str, Any]) -> dict[str, str]:
    """Return by key what was wrong with each file that `manifest` names as damaged."""
    return dict(manifest.get("damaged", []))
