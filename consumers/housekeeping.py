"""Retention, compaction and expiry beside the collecting: in a thread, because a big hour takes its time to merge."""

import logging
import threading
import time
from typing import Final

import pyarrow as pa

from consumers.lake.compact import ExpireReport, compact, expire
from consumers.lake.retire import UNLIMITED, Retention, retire
from consumers.lake.storage import Storage
from schemas.errors import HypocenterError

log = logging.getLogger(__name__)
_EVERY_S: Final = 600.0


class Housekeeper:
    """Lets hours go that `retention` does not keep, and merges past ones, every ten minutes; one run at a time."""

    def __init__(self, storage: Storage, retention: Retention = UNLIMITED) -> None:
        self._storage = storage
        self._retention = retention
        self._due_s: float | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Return whether a run is under way."""
        return self._thread is not None and self._thread.is_alive()

    def tick(self, now_s: float) -> None:
        """Start a run when one is due; `now_s` is CLOCK_MONOTONIC. Never waits."""
        if self._due_s is None:
            self._due_s = now_s + _EVERY_S
        if now_s < self._due_s or self.running:
            return
        self._due_s = now_s + _EVERY_S
        # A daemon: a run that is cut off has replaced nothing, its files are orphans for a later one.
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # Each of them also where the one before could not: a disk that is full for a merge must not stay full.
        self._retire()
        self._merge()
        self._expire()

    def _retire(self) -> None:
        try:
            retired = retire(self._storage, time.time_ns(), self._retention)
        except HypocenterError as e:
            log.error("housekeeping: %s; no hour was let go, the next run tries again", e)  # noqa: TRY400
            return
        if retired.manifest:
            log.info("housekeeping: %s", retired)

    def _merge(self) -> None:
        try:
            report = compact(self._storage, time.time_ns())
            if report.manifest:
                log.info("housekeeping: %s", report)
        except HypocenterError as e:
            log.error("housekeeping: %s; nothing was replaced, the next run tries again", e)  # noqa: TRY400
        finally:
            # What it had in memory is of no use until the next hour.
            pa.default_memory_pool().release_unused()

    def _expire(self) -> None:
        try:
            expired = expire(self._storage, time.time_ns())
        except HypocenterError as e:
            log.error("housekeeping: %s; the next run tries again", e)  # noqa: TRY400
            return
        if expired != ExpireReport():
            log.info("housekeeping: %s", expired)
