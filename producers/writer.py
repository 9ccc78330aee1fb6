"""The thread between the drain and the disk: frames in, appended and synced in groups, never a wait for the drain."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from producers.log import LogWriter
from schemas.errors import StorageError
from schemas.frame import Frame, Parts
from schemas.segment import StreamPosition
from schemas.stream import Stream
from schemas.surfaces import SURFACES

log = logging.getLogger(__name__)
_RETRY_S: Final = 1.0
# Frames for which nobody waits are synced together that come within so long: a sync costs what 3,000 trace events do.
_GATHER_S: Final = 0.05
_RETAIN_EVERY_NS: Final = 10_000_000_000


class _Step(NamedTuple):
    append: Callable[[], None]
    size_bytes: int
    frame: Frame | None
    gathers: bool


class WriterThread:
    """Appends frames to `writer` in order; `queued_bytes` bounds what waits, by the caller's hand.

    A disk that refuses is retried for ever: what waits stays in memory, and the caller stops reading at its bound, so
    the kernel's ring counts what does not fit. `on_durable` is called from the thread after each sync; `durable` is
    the next position of each stream whose frames were put here, as far as it is synced. Of encoded frames, which are
    guests' and may be of any number of streams, nothing is kept. With `gather_bytes` in the queue no frame
    waits for others.
    """

    def __init__(self, writer: LogWriter, on_durable: Callable[[], None], gather_bytes: int = 0) -> None:
        self._writer = writer
        self._gather_bytes = gather_bytes
        self._on_durable = on_durable
        self._queue: queue.SimpleQueue[_Step | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self._gathering = False
        self.queued_bytes = 0
        self.durable: dict[Stream, int] = {}
        #: How many frames were queued since the start, and how many of them are synced.
        self.queued = self.synced = 0
        #: What the log took on disk when it was last looked at, None before that.
        self.log_bytes: int | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, frame: Frame, *, gathers: bool = False) -> None:
        """Queue one frame, which may wait a little for others to be synced with if it `gathers`; never waits itself."""
        topic = SURFACES[frame.stream.surface].topic
        self._push(_Step(partial(self._writer.append, topic, frame), len(frame.body), frame, gathers))

    def put_encoded(self, topic: str, parts: Parts, stream: Stream, at: StreamPosition) -> None:
        """Queue one frame that is encoded already, in `parts`; never waits."""
        append = partial(self._writer.append_encoded, topic, parts, stream, at)
        self._push(_Step(append, sum(map(len, parts)), None, gathers=False))

    def stop(self, timeout_s: float) -> bool:
        """Append what waits, sync, end the thread; False when the disk did not take it in time."""
        self._stopping.set()
        self._queue.put(None)
        self._hurry.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and self.queued_bytes == 0 and self.error is None

    def _push(self, step: "_Step") -> None:
        with self._lock:
            self.queued_bytes += step.size_bytes
        self.queued += 1
        self._queue.put(step)
        if self._gathering and not (step.gathers and self.queued_bytes < self._gather_bytes):
            self._hurry.set()  # only now: what is told of must be there

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as e:
            self.error = e
            log.exception("the log writer failed")
            raise

    def _loop(self) -> None:
        retain_at_ns = 0
        while True:
            group = self._group()
            steps = [step for step in group if step is not None]
            for step in steps:
                if not self._retried(step.append):
                    return
            if not self._retried(self._writer.sync):
                return
            with self._lock:
                self.queued_bytes -= sum(step.size_bytes for step in steps)
            self.durable.update((step.frame.stream, step.frame.next) for step in steps if step.frame is not None)
            self.synced += len(steps)
            if steps:
                self._on_durable()
            if time.monotonic_ns() >= retain_at_ns:
                self._retain()
                retain_at_ns = time.monotonic_ns() + _RETAIN_EVERY_NS
            if None in group:
                return

    # What is to be synced together: what waits now, and if all of it gathers also what comes soon.
    def _group(self) -> list[_Step | None]:
        group = [self._queue.get()]
        self._gathering = True  # first: what is put from here on is found now, or hurries
        self._take(group)
        if self.queued_bytes < self._gather_bytes and all(step is not None and step.gathers for step in group):
            self._hurry.wait(_GATHER_S)
            self._take(group)
        self._gathering = False
        self._hurry.clear()
        return group

    def _take(self, group: list[_Step | None]) -> None:
        while not self._queue.empty():
            group.append(self._queue.get())

    # Deleting can wait for a better moment, appending cannot.
    def _retain(self) -> None:
        try:
            self.log_bytes = self._writer.retain(time.time_ns())
        except StorageError as e:
            log.warning("nothing deleted: %s", e)

    # True when `step` was done; False when the agent is stopping and the disk still refuses.
    def _retried(self, step: Callable[[], None]) -> bool:
        refused = False
        while True:
            last = self._stopping.is_set()
            try:
                step()
            except StorageError as e:
                if not refused:
                    log.error("%s; records wait in memory, then in the kernel's ring, until it can be written", e)  # noqa: TRY400
                refused = True
                self._retain()  # what is too old anyway may be in the way
                if last:
                    return False
                self._stopping.wait(_RETRY_S)
            else:
                if refused:
                    log.warning("the log can be written again")
                return True
