"""Verdicts, as updates behind the first page: judged again 1, 5, 15 and 60 s after it, and at the end.

One thread, so the work is bounded: of an incident that waits for it only the newest state is judged, and a step that
came and went meanwhile is left out. Nothing waits for a verdict.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple

from consumers.alerts.case import Case
from consumers.incidents import codec
from consumers.incidents.incident import Incident, State
from consumers.verdict.verdict import Verdict

log = logging.getLogger(__name__)
STEPS_S: Final = (1.0, 5.0, 15.0, 60.0)
_S: Final = 10**9


@dataclass(slots=True)
class _Plan:
    opened_ns: int
    step: int = 0  # of STEPS_S, the next one
    final: bool = False  # it has ended, and was not judged since
    begun: bool = False

    @property
    def due_ns(self) -> int | None:
        if self.final:
            return 0
        return self.opened_ns + int(STEPS_S[self.step] * _S) if self.step < len(STEPS_S) else None


class Judged(NamedTuple):
    """The verdict on incident `id`, None where judging failed, and how long it took."""

    id: str
    verdict: Verdict | None
    seconds: float


class Judge:
    """Calls `assess` with incidents in a thread; times are CLOCK_MONOTONIC, ns.

    A bug in `assess` costs its verdict, and is logged; the alerts go on.
    """

    def __init__(self, assess: Callable[[Incident], Verdict]) -> None:
        self._assess = assess
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._plans: dict[str, _Plan] = {}
        self._running: tuple[str, Future[Verdict]] | None = None
        self._took_s = 0.0

    def follow(self, case: Case, now_ns: int) -> None:
        """Judge `case` as it goes on; called whenever it changed."""
        ended = case.incident.state is State.ENDED
        plan = self._plans.get(case.incident.id)
        if plan is None:
            self._plans[case.incident.id] = _Plan(now_ns, final=ended)
        elif ended:
            plan.final = True

    def forget(self, key: str) -> None:
        """Judge incident `key` no more."""
        self._plans.pop(key, None)

    def hasten(self) -> None:
        """Judge now whatever was not judged yet: nothing more will come of it."""
        for plan in self._plans.values():
            plan.final |= not plan.begun

    def busy(self, keys: set[str]) -> bool:
        """Return whether one of `keys` is judged now, or is due for the last time."""
        running = self._running is not None and self._running[0] in keys
        return running or any(self._plans[key].final for key in keys & self._plans.keys())

    def step(self, now_ns: int, case_of: Callable[[str], Case | None]) -> Judged | None:
        """Return a verdict that is ready, and begin with the next that is due."""
        ready = self._reap()
        if self._running is None:
            self._begin(now_ns, case_of)
        return ready

    def close(self) -> None:
        """Wait for nothing that has not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _reap(self) -> Judged | None:
        if self._running is None or not self._running[1].done():
            return None
        (key, future), self._running = self._running, None
        error = future.exception()
        if error is not None:
            log.error("incident %s was not judged: %s: %s", key, type(error).__name__, error)
            return Judged(key, None, self._took_s)
        return Judged(key, future.result(), self._took_s)

    def _begin(self, now_ns: int, case_of: Callable[[str], Case | None]) -> None:
        due = [(plan.due_ns, key) for key, plan in self._plans.items() if plan.due_ns is not None]
        key = next((key for due_ns, key in sorted(due)[:1] if due_ns <= now_ns), None)
        if key is None:
            return
        plan, case = self._plans[key], case_of(key)
        if case is None:
            del self._plans[key]
            return
        plan.final, plan.begun = False, True
        while plan.due_ns is not None and plan.due_ns <= now_ns:
            plan.step += 1
        # A copy: the incident goes on growing.
        incident = codec.decode(codec.encode(case.incident))
        self._running = key, self._pool.submit(self._timed, incident)

    def _timed(self, incident: Incident) -> Verdict:
        began_s = time.monotonic()
        try:
            return self._assess(incident)
        finally:
            self._took_s = time.monotonic() - began_s
