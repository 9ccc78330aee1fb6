"""Which VM a machine is, and on which host: what hosts and relays say in the lake, looked up beside the alerts."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

import duckdb

from consumers.alerts.payload import Whose
from consumers.lake.storage import Storage
from consumers.timeline.scope import TABLES, VMS
from consumers.views import connect
from schemas.errors import StorageError

log = logging.getLogger(__name__)
_EVERY_NS: Final = 60 * 10**9
_UUID_CHARS: Final = 36


class Hosts:
    """A table of machines that is read anew each minute, in a thread; a look into it never waits."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hosts")
        self._reading: Future[dict[str, frozenset[Whose]]] | None = None
        self._read_ns: int | None = None
        self._known: dict[str, Whose] = {}
        self._guests: dict[Whose, frozenset[str]] = {}

    def __call__(self, machine: str) -> Whose:
        """Return what is known of `machine`; empty names where nobody has said anything."""
        return self._known.get(machine, Whose())

    def guests(self, vm: str, host: str) -> frozenset[str]:
        """Return what the machine that runs in the VM `vm` of the machine `host` may be called."""
        return self._guests.get(Whose(vm, host), frozenset())

    def step(self, now_ns: int) -> None:
        """Read the table anew when it is time (CLOCK_MONOTONIC, ns)."""
        if self._reading is not None:
            if self._reading.done():
                self._take(self._reading)
                self._reading = None
        elif self._read_ns is None or now_ns - self._read_ns >= _EVERY_NS:
            self._read_ns = now_ns
            self._reading = self._pool.submit(read, self._storage)

    def wait(self, timeout_s: float) -> None:
        """Wait for what is being read, but not long: an alerter that begins should know whose its machines are."""
        if self._reading is not None:
            wait([self._reading], timeout_s)
            self.step(0)

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, reading: Future[dict[str, frozenset[Whose]]]) -> None:
        error = reading.exception()
        if error is None:
            found = reading.result()
            self._known = {machine: common(whose) for machine, whose in found.items()}
            guests: dict[Whose, set[str]] = {}
            for machine, whose in found.items():
                for each in whose:
                    guests.setdefault(each, set()).add(machine)
            self._guests = {whose: frozenset(machines) for whose, machines in guests.items()}
        else:
            log.warning("whose the machines are was not read: %s", error)


def read(storage: Storage) -> dict[str, frozenset[Whose]]:
    """Return what hosts call every machine that one of them names.

    Raises:
        StorageError: the lake cannot be read.
    """
    try:
        connection = connect(storage, sql=TABLES)
        try:
            rows = connection.execute(VMS).fetchall()
        finally:
            connection.close()
    except duckdb.Error as e:
        raise StorageError(f"the tables of VMs cannot be read: {e}") from None
    found: dict[str, set[Whose]] = {}
    for vm, uuid, guest, host in rows:
        names = {name for name in (guest, uuid) if name}
        # systemd takes the uuid of a VM for its machine id at the first boot (machine-id(5)).
        for name in names | {name.replace("-", "") for name in names if len(name) == _UUID_CHARS}:
            found.setdefault(name, set()).add(Whose(vm or "", host or ""))
    return {name: frozenset(whose) for name, whose in found.items()}


def common(found: frozenset[Whose]) -> Whose:
    """Return VM and host of one machine: one that moved is on several hosts' lists, and where it is now no guess."""
    vms, hosts = {each.vm for each in found}, {each.host for each in found}
    return Whose(vms.pop() if len(vms) == 1 else "", hosts.pop() if len(hosts) == 1 else "")
