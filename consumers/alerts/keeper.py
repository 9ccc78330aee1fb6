"""Renews the leases of our partitions in a thread of its own, so that a disk that hangs delays no page."""

import logging
import threading
from collections.abc import Callable, Iterable

from consumers.alerts.lease import Lease
from consumers.transport.base import Partition
from schemas.errors import StorageError

log = logging.getLogger(__name__)


class LeaseKeeper:
    """Keeps the leases that it is given, until each is let go or found lost."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._leases: dict[Partition, Lease] = {}
        self._lost: set[Partition] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    def keep(self, partition: Partition, lease: Lease) -> None:
        """Renew `lease`, which we own, from now on."""
        with self._lock:
            self._leases[partition] = lease
            self._lost.discard(partition)

    def let_go(self, partition: Partition) -> None:
        """Release the lease of `partition` if we own it, so that the next one need not wait."""
        with self._lock:
            lease = self._leases.pop(partition, None)
        self._try(lambda: lease.release() if lease else None)

    def lost(self) -> set[Partition]:
        """Return the partitions that somebody else has taken over since the last call."""
        with self._lock:
            found, self._lost = self._lost, set()
        return found

    def confirm(self) -> Iterable[Partition]:
        """Look now; return those of our partitions that somebody else owns. A disk that refuses takes none away."""
        with self._lock:
            leases = dict(self._leases)
        for partition, lease in leases.items():
            held: list[bool] = []
            self._try(lambda lease=lease, held=held: held.append(lease.held()))  # type: ignore[misc]
            if held == [False]:
                self._lose(partition, lease)
                yield partition

    def close(self) -> None:
        """Stop renewing, and release what is ours."""
        self._stop.set()
        self._thread.join()
        for partition in list(self._leases):
            self.let_go(partition)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            with self._lock:
                leases = dict(self._leases)
            for partition, lease in leases.items():
                self._renew(partition, lease)

    def _renew(self, partition: Partition, lease: Lease) -> None:
        held: list[bool] = []
        self._try(lambda: held.append(lease.renew()))
        if held == [False]:
            self._lose(partition, lease)

    def _lose(self, partition: Partition, lease: Lease) -> None:
        with self._lock:
            if self._leases.get(partition) is lease:
                del self._leases[partition]
                self._lost.add(partition)

    # Nobody can take over by a disk that refuses us, and where it is only ours that does, the chain decides.
    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except StorageError as e:
            log.error("a lease is not renewed: %s", e)  # noqa: TRY400
