"""How far a chain is, and of which streams it has books; read without becoming its writer."""

from typing import Any, NamedTuple

from consumers.lake import layout
from consumers.lake.chain import parse, read_state
from consumers.lake.storage import Storage
from schemas.errors import StorageError
from schemas.stream import Stream


class Tip(NamedTuple):
    """The end of one chain. `wall_ns` (CLOCK_REALTIME) and `writer` are the last commit's, None before the first.

    A `closed` one is followed by another generation of the same log, which went back. `seen_ns` is the newest append
    time of the streams that it has books of, 0 where it has none.
    """

    topic: str
    partition: int
    log_id: str
    topic_id: str
    frontier: int
    commits: int
    rows: int
    wall_ns: int | None
    writer: str | None
    closed: bool = False
    seen_ns: int = 0


def tips(storage: Storage) -> list[Tip]:
    """Return the tip of every chain, sorted by topic and partition; older generations of a topic come after the first.

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    return [_tip(storage, folder + layout.GENESIS) for folder in layout.chain_folders(storage)]


def all_streams(storage: Storage) -> list[Stream]:
    """Return every stream that the lake has a book of, in order; raises as `all_books`."""
    return sorted(all_books(storage))


def all_books(storage: Storage) -> dict[Stream, list[dict[str, Any]]]:
    """Return the books of every stream, one for each chain that has it, as JSON values (`books.StreamBook`).

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    found: dict[Stream, list[dict[str, Any]]] = {}
    for folder in layout.chain_folders(storage):
        key = folder + layout.GENESIS
        if not layout.has_books(folder):
            continue
        try:
            first = int(parse(key, storage.read(key))["first_offset"])
        except KeyError as e:
            raise StorageError(f"{folder}: damaged, {e} is missing") from None
        for stream, book in read_state(storage, folder, first)[0].streams.items():
            found.setdefault(stream, []).append(book)
    return found


def _tip(storage: Storage, genesis: str) -> Tip:
    folder = genesis.removesuffix(layout.GENESIS)
    try:
        pinned = parse(genesis, storage.read(genesis))
        state, _ = read_state(storage, folder, pinned["first_offset"])
        topic, number = folder.removeprefix(layout.COMMITS).rstrip("/").rsplit("/", 1)
        books = state.streams.values() if layout.has_books(folder) else ()
        last = None
        if state.number:
            key = layout.commit_key(folder, state.last_start)
            last = parse(key, storage.read(key))
        return Tip(
            topic=topic,
            partition=int(number.partition(".")[0]),
            log_id=pinned["log_id"],
            topic_id=pinned["topic_id"],
            frontier=state.frontier,
            commits=state.number,
            rows=sum(state.totals.values()),
            wall_ns=last["wall_ns"] if last else None,
            writer=last["writer"] if last else None,
            closed=state.closed,
            seen_ns=max((book.get("seen_ns", 0) for book in books), default=0),
        )
    except KeyError as e:
        raise StorageError(f"{folder}: damaged, {e} is missing") from None
