"""Retention: whole past hours leave the lake, oldest first; what they held stays in sums, so that books still close.

A manifest without their files takes them out of every query at once, and `expire` deletes them after its grace. What is
told once for long stays (`TableSpec.lasting`): descriptions of events, of VMs, and incidents.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, NamedTuple

from consumers.decode import registry
from consumers.lake import layout
from consumers.lake.chain import FileEntry, encode
from consumers.lake.counts import lost, stored_rows
from consumers.lake.damage import damage
from consumers.lake.snapshot import Snapshot, newest_manifest, next_manifest, snapshot
from consumers.lake.storage import Storage
from consumers.lake.tip import all_books
from schemas.crashpoints import crash_point
from schemas.errors import StorageError
from schemas.loss import LossUnit
from schemas.stream import Stream

log = logging.getLogger(__name__)
_ATTEMPTS_MAX: Final = 3


class Retention(NamedTuple):
    """How many hours the lake keeps, and how many bytes its live files may have; None is no limit."""

    hours: float | None = None
    size_bytes: int | None = None


UNLIMITED: Final = Retention()


class Uncounted(NamedTuple):
    """Rows of one table that left in damaged files: whose they were nobody can say, but all came before `until_ns`."""

    rows: int
    until_ns: int


class Sums(NamedTuple):
    """What of one stream has left the lake: rows, and positions and events that its rows of `losses` had counted.

    All of it had come before `until_ns` (CLOCK_REALTIME, ns).
    """

    rows: int = 0
    lost: int = 0
    lost_events: int = 0
    until_ns: int = 0

    def plus(self, other: "Sums") -> "Sums":
        """Return both together."""
        return Sums(
            self.rows + other.rows,
            self.lost + other.lost,
            self.lost_events + other.lost_events,
            max(self.until_ns, other.until_ns),
        )

    def within(self, books: Iterable[dict[str, Any]]) -> bool:
        """Tell whether a stream's books have it; those of a stream that was forgotten, and came again, do not."""
        return any(book.get("opened_ns", 0) < self.until_ns for book in books)


@dataclass(slots=True)
class Retired:
    """What has left the lake in all: hours before `before_ns` (0: none), rows by table, and sums by stream.

    `damaged` are those of the rows, by table, that are in no stream's sum.
    """

    before_ns: int = 0
    tables: Counter[str] = field(default_factory=Counter)
    streams: dict[Stream, Sums] = field(default_factory=dict)
    damaged: dict[str, Uncounted] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> "Retired":
        """Return what a manifest says of it."""
        value = manifest.get("retired", {})
        streams = {Stream(*names): Sums(*sums) for names, sums in value.get("streams", [])}
        damaged = {table: Uncounted(*told) for table, told in value.get("damaged", {}).items()}
        return cls(value.get("before_ns", 0), Counter(value.get("tables", {})), streams, damaged)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        streams = [[list(stream), list(sums)] for stream, sums in sorted(self.streams.items())]
        value = {"before_ns": self.before_ns, "tables": dict(sorted(self.tables.items())), "streams": streams}
        return value | {"damaged": self.damaged} if self.damaged else value

    def drop(self, books: dict[Stream, list[dict[str, Any]]]) -> None:
        """Drop the sums of streams whose books were closed for good: nobody compares them any more."""
        self.streams = {stream: sums for stream, sums in self.streams.items() if sums.within(books.get(stream, ()))}

    def add(self, stream: Stream, sums: Sums) -> None:
        """Add what of one stream leaves now."""
        self.streams[stream] = self.streams.get(stream, Sums()).plus(sums)


@dataclass(frozen=True, slots=True)
class RetireReport:
    """What `retire` did; `manifest` is 0 when nothing was old enough.

    `damaged` counts those of the files of which nobody can say whose rows they had, `staying` others that the disk
    refused to read.
    """

    manifest: int = 0
    before_ns: int = 0
    files: int = 0
    rows: int = 0
    size_bytes: int = 0
    damaged: int = 0
    staying: int = 0


def retired_before_ns(storage: Storage) -> int:
    """Return the time before which arrived what has left the lake (CLOCK_REALTIME, ns); 0 when nothing has.

    Raises:
        StorageError: the disk refuses, or the newest manifest is damaged.
    """
    return int(newest_manifest(storage).get("retired", {}).get("before_ns", 0))


def retire(storage: Storage, now_ns: int, retention: Retention) -> RetireReport:
    """Take hours out of the lake that ended more than `retention.hours` before `now_ns`, or make it too large.

    The hour of `now_ns` and what comes after it stay in any case.

    Raises:
        StorageError: the disk refuses; nothing is taken out.
    """
    for _ in range(_ATTEMPTS_MAX):
        taken = snapshot(storage)
        before = _before(taken, now_ns, retention)
        leaving = [entry for entry in _passing(taken) if layout.hour_of(entry.key) < before]
        if not leaving:
            return RetireReport()
        total = Retired.of(taken.manifest)
        total.drop(all_books(storage))
        gone, damaged, staying = _count(storage, leaving, total)
        if not gone:
            return RetireReport(staying=staying)
        total.before_ns = max(total.before_ns, before * layout.HOUR_NS)
        value = next_manifest(taken, [], gone, now_ns) | {"retired": total.to_json()}
        if storage.put_exclusive(layout.manifest_key(taken.number + 1), encode(value)):
            crash_point("retire:manifest")
            for entry, why in damaged:
                log.error("%s has left, %d rows of streams that nobody can name: %s", entry.key, entry.rows, why)
            rows, size_bytes = sum(entry.rows for entry in gone), sum(entry.size_bytes for entry in gone)
            return RetireReport(taken.number + 1, total.before_ns, len(gone), rows, size_bytes, len(damaged), staying)
    return RetireReport()


# The first hour that stays.
def _before(taken: Snapshot, now_ns: int, retention: Retention) -> int:
    before = 0
    if retention.hours is not None:
        before = (now_ns - int(retention.hours * layout.HOUR_NS)) // layout.HOUR_NS
    if retention.size_bytes is not None:
        left = sum(entry.size_bytes for entries in taken.files.values() for entry in entries) - retention.size_bytes
        for hour, size_bytes in sorted(_size_bytes(taken).items()):
            if left <= 0:
                break
            before, left = max(before, hour + 1), left - size_bytes
    return min(before, now_ns // layout.HOUR_NS)


def _size_bytes(taken: Snapshot) -> Counter[int]:
    found: Counter[int] = Counter()
    for entry in _passing(taken):
        found[layout.hour_of(entry.key)] += entry.size_bytes
    return found


def _passing(taken: Snapshot) -> Iterator[FileEntry]:
    lasting = {spec.name for spec in registry.tables() if spec.lasting}
    for table, entries in taken.files.items():
        if table not in lasting:
            yield from entries


# Enter what `leaving` holds into `total`, a table's hour at a time; of what is damaged only how many rows it had. What
# the disk refuses to read stays, and the rest does not.
def _count(
    storage: Storage, leaving: Iterable[FileEntry], total: Retired
) -> tuple[list[FileEntry], list[tuple[FileEntry, str]], int]:
    gone: list[FileEntry] = []
    damaged: list[tuple[FileEntry, str]] = []
    staying = 0
    for (table, hour), group in groupby(sorted(leaving, key=_table_and_hour), key=_table_and_hour):
        entries = list(group)
        try:
            wrong = [(entry, why) for entry in entries if (why := damage(storage, entry))]
            lacking = {entry.key for entry, _ in wrong}
            part = Snapshot({table: [entry for entry in entries if entry.key not in lacking]})
            rows, losses = stored_rows(storage, part), lost(storage, part)
        except StorageError as e:
            log.error("%d files of %s of hour %d stay: %s", len(entries), table, hour, e)  # noqa: TRY400
            staying += len(entries)
            continue
        until_ns = (hour + 1) * layout.HOUR_NS
        for stream, count in rows.items():
            total.add(stream, Sums(rows=count, until_ns=until_ns))
        for (stream, unit), count in losses.items():
            if unit in (LossUnit.POSITION, LossUnit.EVENT):
                sums = Sums(lost_events=count) if unit == LossUnit.EVENT else Sums(lost=count)
                total.add(stream, sums._replace(until_ns=until_ns))
        total.tables[table] += sum(entry.rows for entry in entries)
        if uncounted := sum(entry.rows for entry, _ in wrong):
            before = total.damaged.get(table, Uncounted(0, 0))
            total.damaged[table] = Uncounted(before.rows + uncounted, max(before.until_ns, until_ns))
        gone += entries
        damaged += wrong
    return gone, damaged, staying


def _table_and_hour(entry: FileEntry) -> tuple[str, int]:
    return entry.table.lower(), layout.hour_of(entry.key)
