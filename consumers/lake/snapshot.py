"""What the lake holds now: the newest manifest's files and those of the commits after its frontiers.

A manifest is JSON: {v, n, wall_ns, frontiers: {chain folder: next offset}, files, replaced: [[key, wall_ns], ...],
damaged: [[key, what is wrong], ...], retired}; the last is `retire.Retired`, where hours have left the lake.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from consumers.lake import layout
from consumers.lake.chain import FileEntry, parse
from consumers.lake.storage import Storage
from schemas.errors import StorageError

_VERSION: Final = 1
_TRIES: Final = 10
# What `expire` has deleted since would be carried on for ever; a day is longer than any reader.
_REPLACED_NS: Final = 24 * layout.HOUR_NS


@dataclass(slots=True)
class Snapshot:
    """`files` by table; `chains` maps each chain's folder to its next offset; `manifest` is what it started from."""

    files: dict[str, list[FileEntry]] = field(default_factory=dict)
    chains: dict[str, int] = field(default_factory=dict)
    number: int = 0
    manifest: dict[str, Any] = field(default_factory=dict)

    def add(self, values: list[dict[str, Any]]) -> None:
        """Add files as JSON names them; tables whose names differ only in case are one, as they are to SQL."""
        for value in values:
            self.files.setdefault(value["table"].lower(), []).append(FileEntry(**value))

    def of(self, tables: Iterable[str]) -> "Snapshot":
        """Return the same of `tables` alone."""
        return self.some({table: self.files[table] for table in tables if table in self.files})

    def some(self, files: dict[str, list[FileEntry]]) -> "Snapshot":
        """Return the same of `files` alone."""
        return Snapshot(files, self.chains, self.number, self.manifest)


def snapshot(storage: Storage) -> Snapshot:
    """Return the committed files of this moment.

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    for _ in range(_TRIES):
        taken = _taken(storage)
        # Commits go only under a newer manifest: whoever has an older one may take the first that is gone for the end.
        if manifest_number(storage) == taken.number:
            return taken
    raise StorageError(f"{layout.MANIFESTS}: a new one each time that the lake was read, {_TRIES} times; try again")


def manifest_number(storage: Storage) -> int:
    """Return the number of the newest manifest, 0 where there is none.

    Raises:
        StorageError: the disk refuses.
    """
    keys = list(storage.list(layout.MANIFESTS))
    return layout.manifest_number(keys[-1]) if keys else 0


def _taken(storage: Storage) -> Snapshot:
    taken = Snapshot(manifest=newest_manifest(storage))
    if taken.manifest:
        taken.number = taken.manifest["n"]
        taken.chains = dict(taken.manifest["frontiers"])
        taken.add(taken.manifest["files"])
    for folder in layout.chain_folders(storage):
        if folder not in taken.chains:
            key = folder + layout.GENESIS
            taken.chains[folder] = int(parse(key, _read(storage, key))["first_offset"])
        _follow(storage, folder, taken)
    return taken


def newest_manifest(storage: Storage) -> dict[str, Any]:
    """Return the newest manifest; empty where there is none.

    Raises:
        StorageError: the disk refuses, or it is damaged.
    """
    number = manifest_number(storage)
    key = layout.manifest_key(number)
    return parse(key, _read(storage, key)) if number else {}


def next_manifest(
    taken: Snapshot,
    added: list[FileEntry],
    gone: Iterable[FileEntry],
    now_ns: int,
    damaged: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the manifest that follows `taken`: with the files `added`, without those that are `gone`.

    `damaged` is what is wrong with files, by key; None: what was.
    """
    keys = {entry.key for entry in gone}
    live = [entry for entries in taken.files.values() for entry in entries if entry.key not in keys]
    kept = [item for item in taken.manifest.get("replaced", []) if item[1] > now_ns - _REPLACED_NS]
    value = {
        "v": _VERSION,
        "n": taken.number + 1,
        "wall_ns": now_ns,
        "frontiers": taken.chains,
        "files": [entry._asdict() for entry in [*live, *added]],
        "replaced": [*kept, *([key, now_ns] for key in sorted(keys))],
    }
    known = dict(taken.manifest.get("damaged", [])) if damaged is None else damaged
    if found := sorted((key, why) for key, why in known.items() if key not in keys):
        value["damaged"] = found
    if "retired" in taken.manifest:
        value["retired"] = taken.manifest["retired"]
    return value


def _follow(storage: Storage, folder: str, taken: Snapshot) -> None:
    while True:
        key = layout.commit_key(folder, taken.chains[folder])
        try:
            commit = parse(key, storage.read(key))
        except KeyError:
            return
        taken.add(commit["files"])
        taken.chains[folder] = commit["end"]


def _read(storage: Storage, key: str) -> bytes:
    try:
        return storage.read(key)
    except KeyError:
        raise StorageError(f"{key}: vanished while the lake was read; try again") from None
