"""Do the books close, does every chain hold together, is every file there with the rows that commits name?"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from consumers.books import forgotten_rows
from consumers.decode import registry
from consumers.lake import layout
from consumers.lake.chain import ChainState, FileEntry, checkpoint_keys, from_checkpoint, parse
from consumers.lake.counts import Counted, lost, stored_positions
from consumers.lake.damage import known
from consumers.lake.parquet import file_sha256
from consumers.lake.retire import Retired, Sums, Uncounted
from consumers.lake.rings import mismatches
from consumers.lake.snapshot import Snapshot, manifest_number, snapshot
from consumers.lake.storage import Storage
from schemas.errors import StorageError
from schemas.loss import LossUnit
from schemas.stream import Stream

_TRIES: Final = 5


@dataclass(slots=True)
class Book:
    """One stream in one chain: positions between `first` and `next`, and what became of them."""

    name: str
    chain: str
    first: int
    next: int
    stored: int
    duplicates: int
    contradicted: int
    dead: int
    lost: dict[str, int]
    lost_events: int
    unknown_losses: int
    rows: int

    @property
    def emitted(self) -> int:
        """Return how many positions came or are known to be missing, those that came again counted again."""
        return self.next - self.first + self.duplicates + self.contradicted

    @property
    def dead_letters(self) -> int:
        """Return how many positions lie in the dead letters: unreadable, or with other content than what is stored."""
        return self.dead + self.contradicted

    @property
    def closes(self) -> bool:
        """Return whether every position is stored, a dead letter, or a counted loss."""
        return self.next - self.first == self.stored + self.dead + sum(self.lost.values())


@dataclass(slots=True)
class AuditReport:
    """The books, what is wrong with the lake, and by table the rows that are there and those that were `retired`.

    `retired_damaged` are those of the latter that left in damaged files: whose they were nobody can say. `suspects` are
    the files with a problem.
    """

    books: list[Book] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    retired: dict[str, int] = field(default_factory=dict)
    retired_damaged: dict[str, int] = field(default_factory=dict)
    retired_before_ns: int = 0
    files: int = 0
    suspects: list[FileEntry] = field(default_factory=list)

    @property
    def closes(self) -> bool:
        """Return whether every book closes and nothing is wrong."""
        return not self.problems and all(book.closes for book in self.books)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        books = [
            {**asdict(book), "emitted": book.emitted, "dead_letters": book.dead_letters, "closes": book.closes}
            for book in self.books
        ]
        return {
            "closes": self.closes,
            "books": books,
            "problems": self.problems,
            "rows": self.rows,
            "retired": self.retired,
            "retired_damaged": self.retired_damaged,
            "retired_before_ns": self.retired_before_ns or None,
            "files": self.files,
        }


def audit(storage: Storage, *, deep: bool = False) -> AuditReport:
    """Verify the lake; `deep` also reads every file, compares its SHA-256, and counts every stream's positions.

    Of trace rings it then compares the rows with what the kernel counted as read. Whoever writes may go on meanwhile.

    Raises:
        StorageError: the disk refuses.
    """
    for _ in range(_TRIES):
        # Listed before the snapshot: what a housekeeper deletes while it is read is no damage.
        listed, number, report = set(storage.list(layout.COMMITS)), manifest_number(storage), AuditReport()
        _audit(storage, report, deep=deep)
        if report.closes or (manifest_number(storage) == number and listed <= set(storage.list(layout.COMMITS))):
            break
    return report


def _audit(storage: Storage, report: AuditReport, *, deep: bool) -> None:
    try:
        taken = snapshot(storage)
    except (StorageError, KeyError, TypeError) as e:
        report.problems.append(f"no snapshot: {e}")
        return
    retired = Retired.of(taken.manifest)
    report.retired, report.retired_before_ns = dict(sorted(retired.tables.items())), retired.before_ns
    report.retired_damaged = {table: told.rows for table, told in sorted(retired.damaged.items())}
    totals: Counter[str] = Counter()
    forgotten: Counter[str] = Counter()
    streams: dict[Stream, list[dict[str, Any]]] = {}
    manifest_frontiers = taken.manifest.get("frontiers", {})
    for folder, frontier in sorted(taken.chains.items()):
        try:
            state = _chain(storage, folder, frontier, manifest_frontiers.get(folder), report)
        except (StorageError, KeyError, TypeError, AttributeError) as e:
            report.problems.append(f"{folder}: {type(e).__name__}: {e}")
            continue
        if state.frontier != frontier:
            report.problems.append(f"{folder}: the commits end at {state.frontier}, the files at {frontier}")
        for table, rows in state.totals.items():  # as a snapshot names tables
            totals[table.lower()] += rows
        if not layout.has_books(folder):
            continue
        _add_books(folder, state, report)
        forgotten += forgotten_rows(state.notes)
        for stream, book in state.streams.items():
            streams.setdefault(stream, []).append(book)
    _files(storage, taken, report, deep=deep)
    _sums(report, totals, streams, forgotten)
    try:
        _streams(storage, taken, report, streams, retired, forgotten, deep=deep)
        if deep:
            found = mismatches(storage, taken, streams, retired.before_ns)
            report.problems += [f"{_name(stream)}: {what}" for stream, what in found]
    except StorageError as e:
        report.problems.append(str(e))


# Up to the snapshot's `frontier`: what was committed since names files that the snapshot has not.
def _chain(
    storage: Storage, folder: str, frontier: int, manifest_frontier: int | None, report: AuditReport
) -> ChainState:
    genesis = folder + layout.GENESIS
    first = int(parse(genesis, storage.read(genesis))["first_offset"])
    keys = _commits(storage, folder, frontier, report)
    checkpoints = _checkpoints(storage, folder, frontier)
    oldest = int(keys[0][len(folder) :].removesuffix(".json")) if keys else first
    newest = max(checkpoints, default=None)
    state = ChainState(first)
    if oldest != first:
        # Older commits have expired; that is only right behind a checkpoint and a manifest.
        if newest is None or manifest_frontier is None or oldest > min(newest, manifest_frontier):
            report.problems.append(f"{folder}: commits before offset {oldest} are missing")
        state = checkpoints.get(oldest, ChainState(oldest))
    for key in keys:
        data = storage.read(key)
        commit = parse(key, data)
        if commit["start"] != state.frontier or layout.commit_key(folder, commit["start"]) != key:
            report.problems.append(f"{key}: starts at {commit['start']}, the commit before it ends at {state.frontier}")
        elif state.prev_sha != commit["prev_sha256"] and (state.prev_sha or oldest == first):
            report.problems.append(f"{key}: the commit before it was changed")
        state.apply(commit, data)
        if state.frontier in checkpoints:
            _checkpoint(folder, state, checkpoints[state.frontier], report, whole=oldest == first)
    if not keys and newest is not None:
        return checkpoints[newest]
    return state


def _commits(storage: Storage, folder: str, frontier: int, report: AuditReport) -> list[str]:
    keys = [key for key in storage.list(folder) if key[len(folder) :].removesuffix(".json").isdigit()]
    end = layout.commit_key(folder, frontier)
    since = [key for key in keys if key >= end]
    if since and since[0] != end:
        start = int(since[0][len(folder) :].removesuffix(".json"))
        report.problems.append(f"{folder}: commits before offset {start} are missing")
    return keys[: len(keys) - len(since)]


def _checkpoints(storage: Storage, folder: str, frontier: int) -> dict[int, ChainState]:
    found = (from_checkpoint(parse(key, storage.read(key))) for key in checkpoint_keys(storage, folder))
    return {state.frontier: state for state in found if state.frontier <= frontier}


# With the `whole` history at hand a checkpoint must say the same; else it says what the expired commits had said.
def _checkpoint(folder: str, state: ChainState, saved: ChainState, report: AuditReport, *, whole: bool) -> None:
    if saved.prev_sha != state.prev_sha:
        report.problems.append(
            f"{folder}: the checkpoint at {state.frontier} follows another commit than the one there"
        )
    if whole and saved.streams != state.streams:
        report.problems.append(f"{folder}: the checkpoint at {state.frontier} holds other books than its commits")
    state.streams = {**saved.streams, **state.streams}


def _add_books(folder: str, state: ChainState, report: AuditReport) -> None:
    chain = folder.removeprefix(layout.COMMITS).rstrip("/")
    for stream, book in sorted(state.streams.items()):
        report.books.append(
            Book(
                name=_name(stream),
                chain=chain,
                first=book["first"],
                next=book["next"],
                stored=book["stored"],
                duplicates=book["duplicates"],
                contradicted=book["contradicted"],
                dead=book["dead"],
                lost=book["lost"],
                lost_events=book["lost_events"],
                unknown_losses=book["unknown_losses"],
                rows=book["rows"],
            )
        )


def _files(storage: Storage, taken: Snapshot, report: AuditReport, *, deep: bool) -> None:
    named = Counter(entry.key for entries in taken.files.values() for entry in entries)
    report.problems += [f"{key}: named {times} times" for key, times in named.items() if times > 1]
    damaged = known(taken.manifest)
    for table, entries in taken.files.items():
        report.rows[table] = sum(entry.rows for entry in entries)
        report.files += len(entries)
        for entry in entries:
            problem = _file(storage, entry, deep=deep or entry.key in damaged)
            if problem:
                report.problems.append(f"{entry.key}: {problem}")
                report.suspects.append(entry)


def _file(storage: Storage, entry: FileEntry, *, deep: bool) -> str | None:
    try:
        size_bytes = storage.size_bytes(entry.key)
    except KeyError:
        return "missing"
    if size_bytes != entry.size_bytes:
        return f"{size_bytes} bytes, its commit says {entry.size_bytes}"
    path = storage.local_path(entry.key)
    try:
        if deep and file_sha256(Path(path)) != entry.sha256:
            return "its SHA-256 is not the one in its commit"
        rows = pq.read_metadata(path).num_rows
        if rows != entry.rows:
            return f"{rows} rows, its commit says {entry.rows}"
    except (OSError, pa.ArrowException, UnicodeDecodeError) as e:
        return f"cannot be read: {e}"
    return None


# Rows by three ways: the chains' running totals, the files that are live or were, and the books that are open or were.
def _sums(
    report: AuditReport,
    totals: Counter[str],
    streams: dict[Stream, list[dict[str, Any]]],
    forgotten: Counter[str],
) -> None:
    for table in sorted({*totals, *report.rows, *report.retired}):
        live, retired = report.rows.get(table, 0), report.retired.get(table, 0)
        if live + retired != totals[table]:
            gone = f", {retired} retired" if retired else ""
            report.problems.append(f"table {table}: {live} rows live{gone}, {totals[table]} committed")
    for surface, decoder in registry.record_decoders().items():
        booked = sum(book["rows"] for stream, books in streams.items() if stream.surface == surface for book in books)
        booked += forgotten[surface]
        committed = sum(rows for table, rows in totals.items() if decoder.owns(table))
        if booked != committed:
            report.problems.append(f"surface {surface}: {committed} rows committed, {booked} in the books")


# The books against the rows: what the table of losses says, and with `deep` how many positions are really there.
def _streams(
    storage: Storage,
    taken: Snapshot,
    report: AuditReport,
    streams: dict[Stream, list[dict[str, Any]]],
    retired: Retired,
    forgotten: Counter[str],
    *,
    deep: bool,
) -> None:
    sums = lost(storage, taken)
    for stream, books in streams.items():
        booked = sum(sum(book["lost"].values()) + book["contradicted"] for book in books)
        events = sum(book["lost_events"] for book in books)
        gone = _gone(stream, books, retired)
        for unit, count, before in ((LossUnit.POSITION, booked, gone.lost), (LossUnit.EVENT, events, gone.lost_events)):
            found = sums.get((stream, unit), 0) + before
            known = forgotten[stream.surface] if found > count else _left(books, retired.damaged, "losses")
            if found != count and not known:
                report.problems.append(f"{_name(stream)}: {count} {unit}s lost in the books, {found} in its rows")
    if deep:
        _positions(stored_positions(storage, taken), report, streams, retired, forgotten)


# Where rows left uncounted, streams of that time may have fewer, those of a surface not more fewer than had left so.
# Where a stream came again after its book was closed, though its rows are there, it may have more.
def _positions(
    counted: dict[Stream, Counted],
    report: AuditReport,
    streams: dict[Stream, list[dict[str, Any]]],
    retired: Retired,
    forgotten: Counter[str],
) -> None:
    for surface, decoder in registry.record_decoders().items():
        uncounted = {table: told for table, told in retired.damaged.items() if decoder.owns(table)}
        fewer_max, more_max = sum(told.rows for told in uncounted.values()), forgotten[surface]
        fewer: list[tuple[int, str]] = []
        more: list[tuple[int, str]] = []
        for stream, books in ((stream, books) for stream, books in streams.items() if stream.surface == surface):
            rows, positions = counted.get(stream, (0, 0))
            booked = sum(book["rows"] for book in books)
            there = rows + _gone(stream, books, retired).rows
            told = f"{_name(stream)}: {there} rows, {booked} in the books"
            if there > booked:
                more.append((there - booked, told))
            elif there < booked and _left(books, uncounted, *uncounted):
                fewer.append((booked - there, told))
            elif there < booked:
                report.problems.append(told)
            # Through two logs the same record comes twice, and each chain knows its own.
            if len(books) == 1 and decoder.ONE_ROW_EACH and positions != rows:
                report.problems.append(f"{_name(stream)}: {rows} rows at only {positions} positions")
        for those, most in ((fewer, fewer_max), (more, more_max)):
            if sum(rows for rows, _ in those) > most:
                report.problems += [told for _, told in those]


def _gone(stream: Stream, books: list[dict[str, Any]], retired: Retired) -> Sums:
    gone = retired.streams.get(stream, Sums())
    return gone if gone.within(books) else Sums()


def _left(books: list[dict[str, Any]], damaged: dict[str, Uncounted], *tables: str) -> bool:
    until_ns = max((damaged[table].until_ns for table in tables if table in damaged), default=0)
    return any(book.get("opened_ns", 0) < until_ns for book in books)


def _name(stream: Stream) -> str:
    return "/".join(part for part in stream if part)
