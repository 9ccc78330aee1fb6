"""The commits of one partition: each created exclusively under its start offset, so two owners can never both win.

A commit is JSON: {v, n, topic, partition, start, end, prev_sha256, attempt, writer, wall_ns, files, streams, totals,
notes, kinds}.
`streams` holds the streams that changed, [six names, state] each, the state null where it is over; a checkpoint holds
all that are not. `kinds` holds those of rows that are new, a checkpoint all. A commit with `closed` ends its chain: the
log went back, and is followed in the next generation.
"""

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from consumers.lake import layout
from consumers.lake.storage import Storage
from schemas.crashpoints import crash_point
from schemas.errors import StorageError
from schemas.stream import Stream

log = logging.getLogger(__name__)
VERSION: Final = 1
CHECKPOINT_COMMITS: Final = 256
_GENERATIONS_MAX: Final = 10_000


class FileEntry(NamedTuple):
    """One data file as a commit or a manifest names it; commits of earlier versions say no `columns` (`columns_id`).

    Nor `machines`: how many it is of, under no name, and of columns that stand beside each other (`unify`) each.
    """

    table: str
    key: str
    rows: int
    size_bytes: int
    sha256: str
    min_ts_ns: int | None = None
    max_ts_ns: int | None = None
    columns: str | None = None
    machines: Mapping[str, int] = {}


#: By stream its state, or None: it has none any more.
Changes = Mapping[Stream, dict[str, Any] | None]


class Commit(NamedTuple):
    """What one commit adds; `streams` has the states that changed, None for one that is over; `kinds` what is new."""

    start: int
    end: int
    files: list[FileEntry]
    streams: Changes
    notes: dict[str, int]
    attempt: str
    writer: str
    wall_ns: int
    kinds: Mapping[str, str] = {}


@dataclass(slots=True)
class ChainState:
    """Where a chain ends: next offset, hash and number of the last commit, states of all streams, rows by table.

    `kinds` maps each kind of rows to the machine that brought it (`consumers.kinds`).
    """

    frontier: int
    prev_sha: str = ""
    number: int = 0
    last_start: int = -1
    streams: dict[Stream, dict[str, Any]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    closed: bool = False

    def apply(self, commit: dict[str, Any], data: bytes) -> None:
        """Advance by one commit, whose bytes are `data`."""
        self.frontier = commit["end"]
        self.prev_sha = hashlib.sha256(data).hexdigest()
        self.number = commit["n"]
        self.last_start = commit["start"]
        for stream, state in decode_streams(commit["streams"]).items():
            if state is None:
                self.streams.pop(stream, None)
            else:
                self.streams[stream] = state
        self.totals = dict(commit["totals"])
        self.notes = dict(commit["notes"])
        self.kinds.update(commit.get("kinds", {}))
        self.closed = bool(commit.get("closed"))


def encode_streams(streams: Changes) -> list[Any]:
    """Return `streams` as JSON values."""
    return [[list(stream), streams[stream]] for stream in sorted(streams)]


def decode_streams(values: list[Any]) -> dict[Stream, Any]:
    """Return what `encode_streams` took."""
    return {Stream(*names): state for names, state in values}


def encode(value: dict[str, Any]) -> bytes:
    """Return `value` as the bytes of an object."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def parse(key: str, data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`.

    Raises:
        StorageError: it is none.
    """
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise StorageError(f"{key}: damaged, it is not a JSON object")
    return value


def from_checkpoint(value: dict[str, Any]) -> ChainState:
    """Return the state that a checkpoint holds."""
    streams = decode_streams(value["streams"])
    totals, notes = dict(value["totals"]), dict(value["notes"])
    kinds = dict(value.get("kinds", {}))
    return ChainState(value["end"], value["sha256"], value["n"], value["last_start"], streams, totals, notes, kinds)


def read_state(storage: Storage, folder: str, first: int) -> tuple[ChainState, int]:
    """Return where the chain in `folder` ends, and the number of the commit that its newest checkpoint covers.

    Reads the newest checkpoint and the commits after it, however long the history.

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    state = _checkpoint(storage, folder) or ChainState(first)
    covered = state.number
    while True:
        key = layout.commit_key(folder, state.frontier)
        try:
            data = storage.read(key)
        except KeyError:
            return state, covered
        state.apply(parse(key, data), data)


def checkpoint_keys(storage: Storage, folder: str) -> list[str]:
    """Return the keys of the chain's checkpoints, oldest first."""
    return [key for key in storage.list(folder) if key.startswith(f"{folder}ckpt-")]


def _checkpoint(storage: Storage, folder: str) -> ChainState | None:
    try:
        hint = parse(folder + layout.LATEST, storage.read(folder + layout.LATEST))
        key = layout.checkpoint_key(folder, int(hint["end"]))
        return from_checkpoint(parse(key, storage.read(key)))
    except KeyError:
        found = checkpoint_keys(storage, folder)
    if not found:
        return None
    return from_checkpoint(parse(found[-1], storage.read(found[-1])))


class Chain:
    """One partition's chain, pinned by `log_id` and `topic_id`: others under the same name open a new generation.

    So does a log that went back: `before` is then where the closed chain ends, until the first commit of this one.
    """

    def __init__(
        self, storage: Storage, topic: str, partition: int, *, log_id: str, topic_id: str, first_offset: int
    ) -> None:
        self.topic, self.partition, self.topic_id = topic, partition, topic_id
        self._storage = storage
        self._identity = {"log_id": log_id, "topic_id": topic_id}
        self._genesis = {**self._identity, "first_offset": first_offset}
        self.before: ChainState | None = None
        self._open(0)
        self.state = ChainState(self._first)
        self._checkpoint_number = 0

    def load(self) -> ChainState:
        """Find the chain's end, as `read_state` does; of a closed one that of the generation that follows."""
        while True:
            self.state, self._checkpoint_number = read_state(self._storage, self.folder, self._first)
            if not self.state.closed:
                break
            self.before = self.state
            self._open(self._generation + 1)
        if self.state.number:
            self.before = None
        return replace(self.state, streams=dict(self.state.streams))

    def commit(self, commit: Commit) -> bool:
        """Create `commit` at the chain's end; False when another writer has been there, then `load` again.

        Raises:
            StorageError: the disk refuses; nothing is committed.
        """
        state = self.state
        assert commit.start == state.frontier < commit.end
        if not self._predecessor_exists() or not all(self._storage.exists(entry.key) for entry in commit.files):
            return False
        value = self._value(commit)
        data = encode(value)
        key = layout.commit_key(self.folder, commit.start)
        try:
            won = self._storage.put_exclusive(key, data) or self._is_mine(key, commit.attempt)
        except StorageError:
            # Refused half way: whether it counts is for the disk to say.
            if not self._is_mine(key, commit.attempt):
                raise
            won = True
        if not won:
            return False
        crash_point("chain:created")
        state.apply(value, data)
        if state.number - self._checkpoint_number >= CHECKPOINT_COMMITS:
            self._write_checkpoint()
        return True

    def close(self, writer: str, wall_ns: int) -> None:
        """End this generation for good, and go on in the next one: the log begins anew at offsets that it had before.

        It is a commit like others, so of two writers at its frontier one is too late, whoever that is.

        Raises:
            StorageError: the disk refuses; closing again goes on.
        """
        generation = self._generation
        while self._generation == generation:
            at = self.state.frontier
            last = Commit(at, at + 1, [], {}, self.state.notes, uuid.uuid4().hex, writer, wall_ns)
            value = {**self._value(last), "closed": True}
            self._storage.put_exclusive(layout.commit_key(self.folder, at), encode(value))
            self.load()

    def has(self, start: int, attempt: str) -> bool:
        """Return whether the commit at `start` is the one of `attempt`."""
        return self._is_mine(layout.commit_key(self.folder, start), attempt)

    def _open(self, least: int) -> None:
        for generation in range(least, _GENERATIONS_MAX):
            folder = layout.chain_dir(self.topic, self.partition, generation)
            key = folder + layout.GENESIS
            self._storage.put_exclusive(key, encode(self._genesis))
            found = parse(key, self._storage.read(key))
            if all(found.get(name) == value for name, value in self._identity.items()):
                self._generation, self.folder, self._first = generation, folder, int(found["first_offset"])
                return
        raise StorageError(
            f"{layout.chain_dir(self.topic, self.partition, 0)}: more than {_GENERATIONS_MAX} generations"
        )

    # Expiry deletes checkpoints first and commits oldest first, so whoever is behind it misses its predecessor.
    def _predecessor_exists(self) -> bool:
        if self.state.number == 0:
            return not checkpoint_keys(self._storage, self.folder)
        if self._storage.exists(layout.checkpoint_key(self.folder, self.state.frontier)):
            return True
        return self._storage.exists(layout.commit_key(self.folder, self.state.last_start))

    def _is_mine(self, key: str, attempt: str) -> bool:
        try:
            return bool(parse(key, self._storage.read(key)).get("attempt") == attempt)
        except KeyError:
            return False

    def _value(self, commit: Commit) -> dict[str, Any]:
        totals = dict(self.state.totals)
        for entry in commit.files:
            totals[entry.table] = totals.get(entry.table, 0) + entry.rows
        return {
            "v": VERSION,
            "n": self.state.number + 1,
            "topic": self.topic,
            "partition": self.partition,
            "start": commit.start,
            "end": commit.end,
            "prev_sha256": self.state.prev_sha,
            "attempt": commit.attempt,
            "writer": commit.writer,
            "wall_ns": commit.wall_ns,
            "files": [entry._asdict() for entry in commit.files],
            "streams": encode_streams(commit.streams),
            "totals": totals,
            "notes": commit.notes,
            "kinds": dict(commit.kinds),
        }

    # The commit before it stands, whatever becomes of it: what is refused is tried again behind the next one.
    def _write_checkpoint(self) -> None:
        state = self.state
        value = {
            "v": VERSION,
            "n": state.number,
            "end": state.frontier,
            "last_start": state.last_start,
            "sha256": state.prev_sha,
            "streams": encode_streams(state.streams),
            "totals": state.totals,
            "notes": state.notes,
            "kinds": state.kinds,
        }
        try:
            self._storage.put_exclusive(layout.checkpoint_key(self.folder, state.frontier), encode(value))
            crash_point("chain:checkpoint")
            self._storage.replace(self.folder + layout.LATEST, encode({"end": state.frontier}))
        except StorageError as e:
            log.warning("no checkpoint yet, the next commit tries again: %s", e)
            return
        self._checkpoint_number = state.number
