"""Merge the small files of past hours into large sorted ones; delete what nothing names any more."""

import logging
import uuid
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from consumers.lake import layout
from consumers.lake.chain import FileEntry, encode
from consumers.lake.damage import damage, known
from consumers.lake.merge import merge_files
from consumers.lake.snapshot import Snapshot, next_manifest, snapshot
from consumers.lake.storage import Storage
from consumers.lake.unify import Source, union_sql
from schemas.crashpoints import crash_point
from schemas.errors import DamagedError, StorageError

log = logging.getLogger(__name__)
_NS_PER_MS: Final = 1_000_000
_ATTEMPTS_MAX: Final = 3
# A commit writes fast, not densely. Of so many bytes a file is worth to be written anew though it is alone.
_ALONE_BYTES_LEAST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What `compact` did; `manifest` is 0 when nothing was merged or found damaged. `damaged` counts files left out."""

    manifest: int = 0
    files_in: int = 0
    files_out: int = 0
    rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    races_lost: int = 0
    damaged: int = 0


@dataclass(slots=True)
class ExpireReport:
    """How many objects `expire` deleted, by sort."""

    replaced: int = 0
    orphans: int = 0
    scratch: int = 0
    commits: int = 0
    checkpoints: int = 0
    manifests: int = 0


def compact(
    storage: Storage,
    now_ns: int,
    *,
    lateness_ms: int = 600_000,
    rows_max: int = 4_000_000,
    again: bool = False,
) -> CompactReport:
    """Merge files of hours that ended `lateness_ms` before `now_ns`, at most `rows_max` rows each.

    Hours that begin so long after it are merged as well: a log whose clock was once ahead fills one of them for years.
    A large one that a commit wrote is written anew also where it is alone, or has more rows than half of that.
    A file that is damaged stays as it is, and so do files that no merge keeps as they were. Both are named in the log
    and in the manifest, and left alone from then on, unless `again` says to look at them once more.

    Raises:
        StorageError: the disk refuses; nothing is replaced.
    """
    sealed, ahead = ((now_ns + sign * lateness_ms * _NS_PER_MS) // layout.HOUR_NS for sign in (-1, 1))
    growing = range(sealed, ahead + 1)
    for lost in range(_ATTEMPTS_MAX):
        taken = snapshot(storage)
        before = known(taken.manifest)
        damaged = _still(storage, taken, before) if again else dict(before)
        merges = _plan(taken, growing, rows_max, damaged)
        number, attempt, merged = taken.number + 1, uuid.uuid4().hex, []
        try:
            for k, (table, hour, entries) in enumerate(merges):
                key = layout.compact_key(table, hour, number, k, attempt)
                wrong = {entry.key: why for entry in entries if (why := damage(storage, entry))}
                whole = [entry for entry in entries if entry.key not in wrong]
                try:
                    if _is_worth(whole):
                        merged.append((_merge(storage, key, table, whole), whole))
                except DamagedError as e:
                    wrong |= {entry.key: str(e) for entry in whole}
                damaged |= wrong
                crash_point("compact:file")
            crash_point("compact:files")
            if not merged and damaged == before:
                return CompactReport(races_lost=lost, damaged=len(damaged))
            added, replaced = [entry for entry, _ in merged], [entry for _, entries in merged for entry in entries]
            _verify_there(storage, added)
            manifest = next_manifest(taken, added, replaced, now_ns, damaged)
            won = storage.put_exclusive(layout.manifest_key(number), encode(manifest))
        except StorageError:
            # The manifest may stand in spite of the error; what nothing names is an orphan for `expire`.
            if not storage.exists(layout.manifest_key(number)):
                _drop(storage, [entry for entry, _ in merged])
            raise
        if won:
            crash_point("compact:manifest")
            _tell(taken, damaged.keys() - before.keys(), damaged)
            return CompactReport(
                number,
                len(replaced),
                len(added),
                sum(entry.rows for entry in added),
                sum(entry.size_bytes for entry in replaced),
                sum(entry.size_bytes for entry in added),
                lost,
                len(damaged),
            )
        _drop(storage, added)
    return CompactReport(races_lost=_ATTEMPTS_MAX)


def expire(storage: Storage, now_ns: int, grace_ms: int = 3_600_000) -> ExpireReport:
    """Delete what was replaced, orphaned or covered by a checkpoint longer than `grace_ms` ago.

    Of a lake in which nothing was ever committed nothing is deleted.

    Raises:
        StorageError: the disk refuses.
    """
    # Listed first: what comes after it may be named by what comes after the snapshot, however long both take.
    data, scratch = list(storage.list(layout.DATA)), list(storage.list("tmp/"))
    taken, report = snapshot(storage), ExpireReport()
    # Where nothing was ever committed nothing says what of it is garbage: it may be what is left of a lake.
    if not taken.number and not taken.chains:
        return report
    before_ns = now_ns - grace_ms * _NS_PER_MS
    live = {entry.key for entries in taken.files.values() for entry in entries}
    replaced = dict(taken.manifest.get("replaced", []))
    for key in data:
        if key in live or _since_ns(storage, key, replaced) > before_ns:
            continue
        storage.delete(key)
        crash_point("expire:deleted")
        if key in replaced:
            report.replaced += 1
        else:
            report.orphans += 1
    manifests = list(storage.list(layout.MANIFESTS))[:-1]
    report.manifests = _delete_old(storage, manifests, before_ns)
    report.scratch = _delete_old(storage, scratch, before_ns)
    for folder, frontier in taken.manifest.get("frontiers", {}).items():
        _expire_chain(storage, folder, frontier, before_ns, report)
    return report


# Older checkpoints go first and commits oldest first: a writer far behind misses its predecessor and cannot commit.
def _expire_chain(storage: Storage, folder: str, frontier: int, before_ns: int, report: ExpireReport) -> None:
    keys = list(storage.list(folder))
    checkpoints = [key for key in keys if key.startswith(f"{folder}ckpt-")]
    if not checkpoints:
        return
    covered = min(frontier, int(checkpoints[-1].removeprefix(f"{folder}ckpt-").removesuffix(".json")))
    report.checkpoints += _delete_old(storage, checkpoints[:-1], before_ns, stop=True)
    if any(storage.exists(key) for key in checkpoints[:-1]):
        return
    starts = [key for key in keys if key[len(folder) :].removesuffix(".json").isdigit()]
    # The last covered commit stays while its end may be after `covered`: only those with a covered successor go.
    done = [key for key, after in pairwise(starts) if _start(folder, after) <= covered]
    report.commits += _delete_old(storage, done, before_ns, stop=True)


def _start(folder: str, key: str) -> int:
    return int(key.removeprefix(folder).removesuffix(".json"))


def _delete_old(storage: Storage, keys: list[str], before_ns: int, *, stop: bool = False) -> int:
    deleted = 0
    for key in keys:
        if _since_ns(storage, key, {}) > before_ns:
            if stop:
                break
            continue
        storage.delete(key)
        crash_point("expire:deleted")
        deleted += 1
    return deleted


def _since_ns(storage: Storage, key: str, replaced: dict[str, int]) -> int:
    if key in replaced:
        return replaced[key]
    try:
        return storage.modified_ns(key)
    except KeyError:
        return 0


def _plan(
    taken: Snapshot, growing: range, rows_max: int, damaged: Container[str]
) -> list[tuple[str, int, list[FileEntry]]]:
    hours: dict[tuple[str, int], list[FileEntry]] = {}
    merges: list[tuple[str, int, list[FileEntry]]] = []
    for table, entries in taken.files.items():
        for entry in entries:
            hour = layout.hour_of(entry.key)
            if hour in growing or entry.key in damaged:
                continue
            if entry.rows > rows_max // 2:
                merges.append((table, hour, [entry]))
            else:
                hours.setdefault((table, hour), []).append(entry)
    for (table, hour), entries in sorted(hours.items()):
        group: list[FileEntry] = []
        rows = 0
        for entry in sorted(entries, key=lambda entry: entry.key):
            if group and rows + entry.rows > rows_max:
                merges.append((table, hour, group))
                group, rows = [], 0
            group.append(entry)
            rows += entry.rows
        merges.append((table, hour, group))
    return [merge for merge in merges if _is_worth(merge[2])]


def _is_worth(entries: list[FileEntry]) -> bool:
    return len(entries) > 1 or any(
        entry.size_bytes >= _ALONE_BYTES_LEAST and not layout.is_compacted(entry.key) for entry in entries
    )


# Of what was damaged what still is; files that no merge kept as they were are tried once more.
def _still(storage: Storage, taken: Snapshot, before: Container[str]) -> dict[str, str]:
    entries = [entry for entries in taken.files.values() for entry in entries if entry.key in before]
    return {entry.key: why for entry in entries if (why := damage(storage, entry))}


def _tell(taken: Snapshot, found: Iterable[str], damaged: dict[str, str]) -> None:
    rows = {entry.key: entry.rows for entries in taken.files.values() for entry in entries}
    for key in sorted(found):
        log.error(
            "%s, with %d rows, stays as it is, and is not merged: %s; `hypocenter compact` looks at it again",
            key, rows[key], damaged[key],
        )  # fmt: skip


# Of files that are what their commits say: nothing that a disk has changed is to become a row for good.
def _merge(storage: Storage, key: str, name: str, entries: list[FileEntry]) -> FileEntry:
    local = storage.scratch() / Path(key).name
    sources = [storage.local_path(entry.key) for entry in entries]
    try:
        stats = merge_files(sources, name, local)
        before, after = _digest(sources), _digest([str(local)])
        expected = sum(entry.rows for entry in entries)
        if before != after or after[0] != expected:
            raise DamagedError(f"{key}: not compacted, rows or digest differ: {expected} rows named, {before}, {after}")
        storage.put_file(local, key)
    except (OSError, duckdb.IOException) as e:
        raise StorageError(f"{key}: cannot be compacted: {e}") from e
    except (pa.ArrowException, duckdb.Error) as e:
        raise DamagedError(f"{key}: cannot be compacted: {e}") from e
    finally:
        local.unlink(missing_ok=True)
    return FileEntry(name, key, *stats)


# To whoever expires meanwhile they are orphans, and a long run may outlast the grace that these have.
def _verify_there(storage: Storage, added: list[FileEntry]) -> None:
    for entry in added:
        if not storage.exists(entry.key):
            raise StorageError(f"{entry.key}: vanished before its manifest was written; nothing is replaced")


# Independent of order: (rows, sum of the rows' hashes).
def _digest(paths: list[str]) -> tuple[Any, ...]:
    connection = duckdb.connect()
    try:
        connection.execute("set threads to 1")
        sql = f"select count(*), sum(hash(t)::hugeint) from (from {union_sql([Source(path) for path in paths])}) t"  # noqa: S608
        found = connection.execute(sql).fetchone()
    finally:
        connection.close()
    assert found is not None
    return tuple(found)


def _drop(storage: Storage, added: list[FileEntry]) -> None:
    for entry in added:
        storage.delete(entry.key)
