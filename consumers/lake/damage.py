"""Files that are not what their commits say: each is told once, and holds up nothing but itself.

A manifest names those that a merge or `audit` has met, {damaged: [[key, what is wrong], ...]}, so that nobody
reads them again and again for nothing, and queries go on without them.
"""

import errno
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from consumers.lake import layout
from consumers.lake.chain import FileEntry, encode
from consumers.lake.parquet import file_sha256
from consumers.lake.snapshot import Snapshot, next_manifest, snapshot
from consumers.lake.storage import Storage
from schemas.errors import DamagedError, StorageError

log = logging.getLogger(__name__)
_GONE: Final = "it is gone"
_UNREADABLE: Final = "the disk cannot read it"
_CHANGED: Final = "it is not what its commit says"
_DAMAGED: Final = frozenset((_GONE, _UNREADABLE, _CHANGED))
_ATTEMPTS_MAX: Final = 3
# Of each lake the files that were left out of an answer, by key.
_left_out: WeakKeyDictionary[Storage, set[str]] = WeakKeyDictionary()


def damage(storage: Storage, entry: FileEntry) -> str | None:
    """Return what is wrong with the file of `entry`, None where it is what its commit says; reads all of it.

    Raises:
        StorageError: the disk refuses, which says nothing about the file.
    """
    try:
        found = file_sha256(Path(storage.local_path(entry.key)))
    except (FileNotFoundError, KeyError):
        return _GONE
    except OSError as e:
        if e.errno != errno.EIO:
            raise StorageError(f"{entry.key}: {e.strerror}") from e
        return _UNREADABLE
    return None if found == entry.sha256 else _CHANGED


def note(storage: Storage, suspects: Iterable[FileEntry], now_ns: int) -> None:
    """Name in a new manifest those of `suspects` that are damaged, and no more those that were; reads all of each.

    Raises:
        StorageError: the disk refuses.
    """
    looked_at = {entry.key: damage(storage, entry) for entry in suspects}
    for _ in range(_ATTEMPTS_MAX):
        taken = snapshot(storage)
        before = known(taken.manifest)
        damaged = {key: why for key, why in before.items() if why not in _DAMAGED}
        for entry in (entry for entries in taken.files.values() for entry in entries):
            if entry.key in before.keys() - damaged.keys() and entry.key not in looked_at:
                looked_at[entry.key] = damage(storage, entry)
            if why := looked_at.get(entry.key):
                damaged[entry.key] = why
        manifest = next_manifest(taken, [], [], now_ns, damaged)
        if damaged == before or storage.put_exclusive(layout.manifest_key(taken.number + 1), encode(manifest)):
            break


def readable(storage: Storage, taken: Snapshot) -> Snapshot:
    """Return `taken` without the files that its manifest names as damaged; each is told once of a lake."""
    # What no merge keeps as it was is what its commit says, and is read.
    damaged = {key: why for key, why in known(taken.manifest).items() if why in _DAMAGED}
    if not damaged:
        return taken
    told = _left_out.setdefault(storage, set())
    files = {}
    for table, entries in taken.files.items():
        for entry in entries:
            if entry.key in damaged and entry.key not in told:
                told.add(entry.key)
                log.error(
                    "without %d rows of %s, as %s is damaged: %s; bring it back from a copy, then `hypocenter compact`",
                    entry.rows, table, entry.key, damaged[entry.key],
                )  # fmt: skip
        if kept := [entry for entry in entries if entry.key not in damaged]:
            files[table] = kept
    return taken.some(files)


def exit_code(storage: Storage) -> int:
    """Return how a command that has answered from `storage` ends: 0, if no file was left out."""
    return DamagedError.exit_code if _left_out.get(storage) else 0


def known(manifest: dict[str, Any]) -> dict[str, str]:
    """Return by key what was wrong with each file that `manifest` names as damaged."""
    return dict(manifest.get("damaged", []))
