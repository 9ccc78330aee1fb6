"""Names of the lake's objects, and the mark that makes a directory a lake."""

import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from consumers.lake.storage import LocalStorage, Storage
from schemas.errors import StorageError, UsageError

LAKE: Final = "lake.json"
FORMAT: Final = 1
COMMITS: Final = "commits/"
DATA: Final = "data/"
MANIFESTS: Final = "manifests/"
#: Begins the name of an alerter's chain over a topic, which is beside the collector's and has no books of streams.
ALERTS: Final = "alerts."
GENESIS: Final = "genesis.json"
LATEST: Final = "latest.json"
_COMPACTED: Final = re.compile(r"compact-[0-9]{12}-[0-9]+-[0-9a-f]{8}\.parquet")
HOUR_NS: Final = 3_600_000_000_000


def open_lake(path: Path, *, create: bool) -> LocalStorage:
    """Return the lake in the directory `path`, made if `create` says so and nothing is there.

    Raises:
        UsageError: there is none, or the directory holds something else, or a newer format.
        StorageError: the disk refuses.
    """
    storage = LocalStorage(path)
    if not (path / LAKE).exists():
        filled = path.exists() and (not path.is_dir() or any(item.name != "tmp" for item in path.iterdir()))
        # Looked at again: somebody may have made it meanwhile.
        if filled and not (path / LAKE).exists():
            raise UsageError(f"{path} is not a lake: it is not empty and has no {LAKE}")
        if not create:
            raise UsageError(f"{path} is not a lake: it has no {LAKE}; a collector makes one when it starts")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise StorageError(f"{path}: {e.strerror}") from e
        storage.put_exclusive(LAKE, json.dumps({"format": FORMAT, "id": str(uuid.uuid4())}).encode())
    try:
        mark = json.loads(storage.read(LAKE))
        found = mark["format"]
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{path} is not a lake: its {LAKE} cannot be read") from None
    if found != FORMAT:
        raise UsageError(f"{path} has lake format {found}, this program knows {FORMAT}")
    return storage


def chain_dir(topic: str, partition: int, generation: int) -> str:
    """Return the folder of one chain; generation 0 has no suffix."""
    return f"{COMMITS}{topic}/{partition}{f'.{generation}' if generation else ''}/"


def chain_folders(storage: Storage) -> list[str]:
    """Return the folder of every chain, in order.

    Raises:
        StorageError: the disk refuses, or a chain has lost its genesis: all that it holds would be in no query.
    """
    keys = list(storage.list(COMMITS))
    found = dict.fromkeys(key.removesuffix(GENESIS) for key in keys if key.endswith(f"/{GENESIS}"))
    for folder in dict.fromkeys(f"{key.rpartition('/')[0]}/" for key in keys):
        # Of one that is just made a listing may have the commit alone.
        if folder not in found and not storage.exists(folder + GENESIS):
            raise StorageError(f"{folder}: damaged, its {GENESIS} is missing")
        found[folder] = None
    return list(found)


def has_books(folder: str) -> bool:
    """Return whether the streams of the chain in `folder` are books; those of an alerter's are its machines' states."""
    return not folder.startswith(COMMITS + ALERTS)


def commit_key(folder: str, start: int) -> str:
    """Return the key of the commit that starts at offset `start`."""
    return f"{folder}{start:020d}.json"


def checkpoint_key(folder: str, end: int) -> str:
    """Return the key of the checkpoint taken at offset `end`."""
    return f"{folder}ckpt-{end:020d}.json"


def manifest_key(number: int) -> str:
    """Return the key of manifest `number`."""
    return f"{MANIFESTS}{number:012d}.json"


def manifest_number(key: str) -> int:
    """Return the number of the manifest `key`."""
    return int(key.removeprefix(MANIFESTS).removesuffix(".json"))


def hour_dir(table: str, hour: int) -> str:
    """Return the folder of `table` for `hour`, counted in hours since 1970 UTC."""
    date = _date(hour // 24)
    return f"{DATA}{table}/date={date}/hour={hour % 24:02d}/"


def data_key(table: str, hour: int, topic: str, partition: int, start: int, end: int, k: int, attempt: str) -> str:
    """Return the key of the `k`-th file of a commit."""
    return f"{hour_dir(table, hour)}{topic}-{partition}-{start:020d}-{end:020d}-{k}-{attempt[:8]}.parquet"


def compact_key(table: str, hour: int, number: int, k: int, attempt: str) -> str:
    """Return the key of the `k`-th file that manifest `number` adds."""
    return f"{hour_dir(table, hour)}compact-{number:012d}-{k}-{attempt[:8]}.parquet"


def is_compacted(key: str) -> bool:
    """Return whether the data file `key` was added by a manifest, not by a commit."""
    return _COMPACTED.fullmatch(key.rpartition("/")[2]) is not None


def hour_of(key: str) -> int:
    """Return the hour since 1970 UTC whose folder holds the data file `key`."""
    _, _, date, hour, _ = key.split("/")
    day = datetime.strptime(date, "date=%Y-%m-%d").replace(tzinfo=UTC)
    return int(day.timestamp()) // 3600 + int(hour.removeprefix("hour="))


def hour_text(hour: int) -> str:
    """Return for people when `hour`, counted as by `hour_of`, begins."""
    return f"{_date(hour // 24)} {hour % 24:02d}:00 UTC"


def _date(day: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).strftime("%Y-%m-%d")
