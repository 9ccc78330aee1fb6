"""How far a chain is: what `status` shows of it, read without becoming its writer."""

from typing import NamedTuple

from consumers.lake import layout
from consumers.lake.chain import parse, read_state
from consumers.lake.storage import Storage
from schemas.errors import StorageError


class Tip(NamedTuple):
    """The end of one chain. `wall_ns` (CLOCK_REALTIME) and `writer` are the last commit's, None before the first."""

    topic: str
    partition: int
    log_id: str
    topic_id: str
    frontier: int
    commits: int
    rows: int
    wall_ns: int | None
    writer: str | None


def tips(storage: Storage) -> list[Tip]:
    """Return the tip of every chain, sorted by topic and partition; older generations of a topic come after the first.

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    keys = [key for key in storage.list(layout.COMMITS) if key.endswith(layout.GENESIS)]
    return [_tip(storage, key) for key in keys]


def _tip(storage: Storage, genesis: str) -> Tip:
    folder = genesis.removesuffix(layout.GENESIS)
    try:
        pinned = parse(genesis, storage.read(genesis))
        state, _ = read_state(storage, folder, pinned["first_offset"])
        topic, number = folder.removeprefix(layout.COMMITS).rstrip("/").rsplit("/", 1)
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
        )
    except KeyError as e:
        raise StorageError(f"{folder}: damaged, {e} is missing") from None
