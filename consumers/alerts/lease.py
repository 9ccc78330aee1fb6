"""Who tells of a partition's incidents: one alerter at a time, the others stand by.

Exactly once is the chain's business, and needs no lease. But of two that tell the same Alertmanager the slower one
would raise again what the other has ended. So an owner creates a term exclusively, and says in `beat.json` that it
lives; whoever sees that unchanged for the lease's length creates the next term, and who sees a later term steps back.
No clocks of two machines are compared. An owner on the same machine whose process is gone is replaced at once.

    LAKE/alerts/<log id>/<topic>/<partition>/term-<n:012d>.json    created exclusively
    LAKE/alerts/<log id>/<topic>/<partition>/beat.json             {term, beat, owner, released}
"""

import os
import uuid
from pathlib import Path
from typing import Any, Final, NamedTuple

from consumers.lake.chain import encode, parse
from consumers.lake.storage import Storage
from consumers.transport.base import Partition
from schemas.errors import StorageError

FOLDER: Final = "alerts/"
_BEAT: Final = "beat.json"
_TERM: Final = "term-"


class Owner(NamedTuple):
    """A process: `kernel` names boot and process-id namespace, `start` is its start in clock ticks since boot."""

    kernel: str
    pid: int
    start: int

    def gone(self, us: "Owner") -> bool:
        """Return whether it is known to have ended: it ran where `us` runs, and is not there any more."""
        return self.kernel == us.kernel and _start(self.pid) != self.start


def this_process() -> Owner:
    """Return ourselves."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Owner(f"{boot} {os.readlink('/proc/self/ns/pid')}", os.getpid(), _start(os.getpid()) or 0)  # noqa: PTH115


def _start(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    # A zombie holds its number and does nothing any more.
    return None if fields[0] in "ZX" else int(fields[19])


class Lease:
    """The lease of one partition. Times are CLOCK_MONOTONIC, ns.

    Raises:
        StorageError: from every method, when the disk refuses.
    """

    def __init__(self, storage: Storage, partition: Partition, us: Owner, lease_ns: int, log_id: str = "") -> None:
        self._storage = storage
        self._folder = f"{FOLDER}{f'{log_id}/' if log_id else ''}{partition.topic}/{partition.number}/"
        self._us = us
        self._lease_ns = lease_ns
        self._name = uuid.uuid4().hex
        self._term: int | None = None
        self._beat = 0
        self._observed: tuple[Any, int] | None = None

    def acquire(self, now_ns: int, *, at_once: bool = False) -> bool:
        """Become the owner if there is none that lives; `at_once` where somebody else has decided that it is us."""
        newest = max(self._terms(), default=0)
        if newest and not at_once and not self._vacant(newest, now_ns):
            return False
        value = {"owner": list(self._us), "name": self._name}
        if not self._storage.put_exclusive(self._key(newest + 1), encode(value)):
            return False
        self._term, self._observed = newest + 1, None
        self.renew()
        for old in self._terms():
            if old < newest:
                self._storage.delete(self._key(old))
        return True

    def held(self) -> bool:
        """Return whether we own it still."""
        return self._term is not None and max(self._terms(), default=0) == self._term

    def renew(self) -> bool:
        """Say that we live; False when we are not the owner any more."""
        if not self.held():
            self._term = None
            return False
        self._beat += 1
        self._say(released=False)
        return True

    def release(self) -> None:
        """Let the next one take over at once."""
        if self.held():
            self._say(released=True)
        self._term = None

    def _say(self, *, released: bool) -> None:
        value = {"term": self._term, "beat": self._beat, "owner": list(self._us), "released": released}
        self._storage.replace(self._folder + _BEAT, encode(value))

    def _vacant(self, newest: int, now_ns: int) -> bool:
        beat = self._read(self._folder + _BEAT)
        if beat is not None and beat.get("term") == newest and beat.get("released"):
            return True
        term = self._read(self._key(newest)) or {}
        try:
            if Owner(*term["owner"]).gone(self._us):
                return True
        except (KeyError, TypeError):
            pass  # a term of another version: its owner is known by its beats alone
        seen = (newest, beat and (beat.get("term"), beat.get("beat")))
        if self._observed is None or self._observed[0] != seen:
            self._observed = (seen, now_ns)
        return now_ns - self._observed[1] >= self._lease_ns

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            return parse(key, self._storage.read(key))
        except (KeyError, StorageError):
            return None  # not there, or torn: whoever lives says it again

    def _terms(self) -> list[int]:
        mark = self._folder + _TERM
        keys = [key for key in self._storage.list(self._folder) if key.startswith(mark)]
        return [int(key.removeprefix(mark).removesuffix(".json")) for key in keys]

    def _key(self, term: int) -> str:
        return f"{self._folder}{_TERM}{term:012d}.json"
