"""What the lake holds now: the newest manifest's files and those of the commits after its frontiers."""

from dataclasses import dataclass, field
from typing import Any

from consumers.lake import layout
from consumers.lake.chain import FileEntry, parse
from consumers.lake.storage import Storage
from schemas.errors import StorageError


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


def snapshot(storage: Storage) -> Snapshot:
    """Return the committed files of this moment.

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    taken = Snapshot()
    manifests = list(storage.list(layout.MANIFESTS))
    if manifests:
        taken.manifest = parse(manifests[-1], _read(storage, manifests[-1]))
        taken.number = taken.manifest["n"]
        taken.chains = dict(taken.manifest["frontiers"])
        taken.add(taken.manifest["files"])
    for key in [key for key in storage.list(layout.COMMITS) if key.endswith(layout.GENESIS)]:
        folder = key.removesuffix(layout.GENESIS)
        if folder not in taken.chains:
            taken.chains[folder] = int(parse(key, _read(storage, key))["first_offset"])
        _follow(storage, folder, taken)
    return taken


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
