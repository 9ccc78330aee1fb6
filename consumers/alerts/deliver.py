"""The thread that tells one Alertmanager: whatever it does, nobody else waits for it."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from consumers.alerts.outage import Outage
from consumers.alerts.outbox import Answer, Batch, Outbox, Timing, Told
from consumers.alerts.payload import Alert
from consumers.alerts.post import Client, Reply
from schemas.crashpoints import crash_point

log = logging.getLogger(__name__)
_TICK_S: Final = 1.0
#: Whoever reads the log to its end waits no longer for one that takes nothing.
AWAY_S: Final = 20.0


class Backlog:
    """Whether more incidents wait to be told than may; that is said when it begins and when it is over."""

    def __init__(self, queue_max: int) -> None:
        self._queue_max = queue_max
        self._full = False

    def full(self, waiting: Iterable[int]) -> bool:
        """Return whether nothing more is to be read; `waiting` has the number of each deliverer."""
        was_full, self._full = self._full, any(each > self._queue_max for each in waiting)
        if self._full and not was_full:
            log.error("more than %d incidents wait to be told: no more is read until they are", self._queue_max)
        elif was_full and not self._full:
            log.info("no more than %d incidents wait to be told: the log is read on", self._queue_max)
        return self._full


class Deliverer:
    """Tells `client` what is `put`, until `close`.

    `confirm` is called in the thread when this process was stopped for longer than `pause_ns_max`: another alerter may
    have taken over meanwhile, and what it ended must not be raised again. It returns the incidents that are not ours.
    """

    def __init__(self, client: Client, timing: Timing, confirm: Callable[[], Iterable[str]], pause_ns_max: int) -> None:
        self._client = client
        self._confirm = confirm
        self._pause_ns_max = pause_ns_max
        self._outbox = Outbox(timing)
        self._outage = Outage(client.url)
        self._changed = threading.Condition()
        self._told: list[Told] = []
        self._closing = False
        self._since_s: float | None = None  # nothing was taken
        self._answered_s = 0.0  # the last request, in whichever way
        self._seen_ns = time.monotonic_ns()
        self.sent = self.errors = 0
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many incidents wait to be told."""
        with self._changed:
            return self._outbox.waiting

    @property
    def away(self) -> bool:
        """Whether it has taken nothing for `AWAY_S`, and was asked again behind them."""
        with self._changed:
            return self._since_s is not None and self._answered_s - self._since_s > AWAY_S

    @property
    def failing(self) -> bool:
        """Whether the last request was not taken."""
        with self._changed:
            return self._outbox.failing

    def put(self, alert: Alert, *, opened: bool) -> None:
        """Tell `alert` as soon as possible."""
        with self._changed:
            self._outbox.put(alert, time.monotonic_ns(), opened=opened)
            self._changed.notify()

    def forget(self, keys: Iterable[str]) -> None:
        """Say nothing more of the incidents `keys`."""
        with self._changed:
            for key in keys:
                self._outbox.forget(key)

    def told(self) -> list[Told]:
        """Return whose end was told since the last call."""
        with self._changed:
            found, self._told = self._told, []
        return found

    def close(self, wait_s: float) -> bool:
        """Wait up to `wait_s` for what waits to be told, then end; return whether nothing waits any more."""
        deadline_s = time.monotonic() + wait_s
        with self._changed:
            while self._outbox.hopeful and not self._outbox.failing and time.monotonic() < deadline_s:
                self._changed.wait(0.05)
            done = not self._outbox.waiting
            self._closing = True
            self._changed.notify()
        self._thread.join(wait_s)
        return done

    def _run(self) -> None:
        while True:
            with self._changed:
                batch = self._next()
            if batch is None:
                return
            reply = self._client.post(batch.body)
            crash_point("alert:sent")
            with self._changed:
                self._answered(batch, reply)
                self._changed.notify_all()

    # Called with the lock, which `wait` lets go of; None at the end.
    def _next(self) -> Batch | None:
        while not self._closing:
            self._come_to()
            now_ns = time.monotonic_ns()
            batch = self._outbox.take(now_ns, time.time_ns())
            if batch is not None:
                return batch
            due_ns = self._outbox.due_ns()
            wait_s = _TICK_S if due_ns is None else min(_TICK_S, max(0.001, (due_ns - now_ns) / 1e9))
            self._changed.wait(wait_s)
        return None

    # A request takes its time too, so it counts for this from its end.
    def _come_to(self) -> None:
        now_ns = time.monotonic_ns()
        paused_ns, self._seen_ns = now_ns - self._seen_ns, now_ns
        if paused_ns > self._pause_ns_max:
            for key in self._confirm():
                self._outbox.forget(key)

    def _answered(self, batch: Batch, reply: Reply) -> None:
        now_ns = time.monotonic_ns()
        self._told += self._outbox.answered(batch, reply.answer, now_ns, reply.wait_ns)
        self._answered_s = time.monotonic()
        if reply.answer is Answer.TAKEN:
            self.sent += len(batch.alerts)
            self._since_s = None
        else:
            self.errors += 1
            self._since_s = self._answered_s if self._since_s is None else self._since_s
        said = self._outage.answered(reply.answer, reply.why, self._outbox.waiting, now_ns)
        if said is not None:
            log.log(said.level, said.text)
        if reply.answer is Answer.REFUSED and self._outbox.laments(batch.alerts[0].id):
            log.error("%s refuses the alert of incident %s: %s", self._client.url, batch.alerts[0].id, reply.why)
