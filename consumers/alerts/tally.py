"""The alerter's metrics, kept up by its loop: what happens in other threads is looked up there, never called for."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping

from consumers.alert_metrics import AlertMetrics
from consumers.alerts.case import Case
from consumers.alerts.deliver import Deliverer
from consumers.incidents.incident import State
from consumers.verdict.verdict import Owner, Verdict


class Tally:
    """Enters into `metrics` what became of cases and pages since it looked last."""

    def __init__(self, metrics: AlertMetrics) -> None:
        self._metrics = metrics
        self._counted: set[str] = set()
        self._sent: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._near_misses = self._skipped = 0

    def polled(self) -> None:
        """Enter that the log was read."""
        self._metrics.polled(time.time_ns())

    def judged(self, case: Case, verdict: Verdict | None, seconds: float) -> None:
        """Enter a verdict, None where it failed; an incident counts with the owner that is named first."""
        self._metrics.judged(seconds)
        key = case.incident.id
        if key not in self._counted:
            self._counted.add(key)
            owner = verdict.owner if verdict else Owner.UNDETERMINED
            self._metrics.opened(case.incident.kind, owner)

    def forget(self, key: str) -> None:
        """Enter that nothing more comes of incident `key`."""
        self._counted.discard(key)

    def look(
        self, cases: Iterable[Case], deliverers: Mapping[str, Deliverer], near_misses: int, skipped: int = 0
    ) -> None:
        """Enter what goes on now, and what was told since the last call; `near_misses` and `skipped` are sums."""
        going = (case for case in cases if case.incident.state is not State.ENDED)
        owners = ((case, case.verdict.owner if case.verdict else Owner.UNDETERMINED) for case in going)
        self._metrics.now_open(Counter((str(case.incident.kind), str(owner)) for case, owner in owners))
        self._metrics.queued(sum(each.waiting for each in deliverers.values()))
        for url, each in deliverers.items():
            for now, before, enter in (
                (each.sent, self._sent, self._metrics.paged),
                (each.errors, self._errors, self._metrics.not_paged),
            ):
                for _ in range(now - before[url]):
                    enter(url)
                before[url] = now
        if near_misses > self._near_misses:
            self._metrics.near_miss(near_misses - self._near_misses)
            self._near_misses = near_misses
        if skipped > self._skipped:
            self._metrics.skipped(skipped - self._skipped)
            self._skipped = skipped
