"""What is still to be told to one Alertmanager: the newest of each incident, when it is due, and what it said.

Pure: alerts and times in, batches out; no thread, socket or clock. An incident has one place here however often it
changes, so an Alertmanager that is away for an hour costs one alert for each incident, and nothing is lost.

- Open alerts come again every `resend_ns`: without that they would end by themselves, which looks like a recovery.
- An incident that ended before it was ever told is told as open first, and held for `hold_ns`: a page is not missed
  because whoever sends it was away.
- A refused batch is sent again by halves, between those of others, and whatever is refused alone waits behind them.
- Who says when to come again (`Retry-After`) is obeyed, up to `WAIT_NS_MAX`: alerts must not end meanwhile.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from consumers.alerts.payload import Alert, postable

#: Alerts in one request.
BATCH_MAX: Final = 200
#: What changes of an open alert that was told is told together: a report's lines come for seconds.
_GATHER_NS: Final = 1_000_000_000
_BACKOFF_NS: Final = 500_000_000
_BACKOFF_NS_MAX: Final = 30_000_000_000
WAIT_NS_MAX: Final = 120_000_000_000


class Answer(Enum):
    """What became of a request: taken, refused for what is in it, or not answered as it should (then: try again)."""

    TAKEN = "taken"
    REFUSED = "refused"
    FAILED = "failed"


class Timing(NamedTuple):
    """The lengths that the configuration gives, in ns."""

    resend_ns: int
    ends_ahead_ns: int
    hold_ns: int


@dataclass(slots=True)
class _Entry:
    alert: Alert
    due_ns: int
    told: int = 0  # the version that was taken last; 0 for none
    opened: bool = False  # it was told as open
    together_max: int = BATCH_MAX  # of a batch that was refused with it, half
    refused: bool = False  # it was refused alone, as it is
    lamented: bool = False  # and that was said


class Batch(NamedTuple):
    """One request: its alerts, in order, and the JSON values to post."""

    alerts: tuple[Alert, ...]
    body: list[dict[str, Any]]
    held: frozenset[str]


class Told(NamedTuple):
    """Incident `id` was told: for the first time, as open, or else (`ended`) its end, after which there is no more."""

    id: str
    version: int
    ended: bool


class Outbox:
    """All times are ns on one clock that never goes back, but `realtime_ns`, which is CLOCK_REALTIME."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._entries: dict[str, _Entry] = {}
        self._not_before_ns = 0
        self._failures = 0
        self._suspects_next = False

    @property
    def waiting(self) -> int:
        """How many incidents have something that was not told yet."""
        return sum(each.told != each.alert.version for each in self._entries.values())

    @property
    def hopeful(self) -> int:
        """How many of these nobody has refused."""
        return self.waiting - sum(each.refused for each in self._entries.values())

    @property
    def refused(self) -> list[str]:
        """The incidents that were refused alone."""
        return [key for key, each in self._entries.items() if each.refused]

    @property
    def failing(self) -> bool:
        """Whether the last request was not taken."""
        return self._failures > 0

    def put(self, alert: Alert, now_ns: int, *, opened: bool = False) -> None:
        """Tell `alert`, instead of what is still to be told of its incident; `opened` says it was told before."""
        entry = self._entries.get(alert.id)
        if entry is None:
            self._entries[alert.id] = _Entry(alert, now_ns, opened=opened)
            return
        held = entry.opened and entry.told != entry.alert.version and entry.alert.ended_ns is not None
        update = entry.opened and alert.ended_ns is None and entry.alert.ended_ns is None
        entry.alert = alert
        if update:
            entry.due_ns = min(entry.due_ns, now_ns + _GATHER_NS)
        elif not (held and alert.ended_ns is not None):
            entry.due_ns = now_ns
        entry.refused = False

    def forget(self, key: str) -> None:
        """Say nothing more of incident `key`: another alerter does."""
        self._entries.pop(key, None)

    def due_ns(self) -> int | None:
        """Return when `take` will have something; None for never."""
        if not self._entries:
            return None
        return max(self._not_before_ns, min(each.due_ns for each in self._entries.values()))

    def take(self, now_ns: int, realtime_ns: int) -> Batch | None:
        """Return the next request, the longest waiting first."""
        if now_ns < self._not_before_ns:
            return None
        due = sorted((each for each in self._entries.values() if each.due_ns <= now_ns), key=lambda each: each.due_ns)
        if not due:
            return None
        chosen = self._chosen(due)
        held = frozenset(each.alert.id for each in chosen if each.alert.ended_ns is not None and not each.opened)
        body = [
            postable(each.alert, realtime_ns, self._timing.ends_ahead_ns, hold=each.alert.id in held) for each in chosen
        ]
        return Batch(tuple(each.alert for each in chosen), body, held)

    def answered(self, batch: Batch, answer: Answer, now_ns: int, wait_ns: int = 0) -> list[Told]:
        """Enter what became of `batch`; return who was told to be open for the first time, and whose end was told.

        `wait_ns`: one that failed is to come again only after so long.
        """
        if answer is Answer.FAILED:
            backoff_ns = min(_BACKOFF_NS << min(self._failures, 16), _BACKOFF_NS_MAX)
            self._not_before_ns = now_ns + max(backoff_ns, min(wait_ns, WAIT_NS_MAX))
            self._failures += 1
            return []
        self._failures = 0
        told: list[Told] = []
        for alert in batch.alerts:
            entry = self._entries.get(alert.id)
            if entry is None:
                continue
            if answer is Answer.REFUSED:
                self._refused(entry, len(batch.alerts), now_ns)
            else:
                told += self._taken(entry, alert, alert.id in batch.held, now_ns)
        return told

    def laments(self, key: str) -> bool:
        """Return whether it is news that the alert of incident `key` is refused alone; then it is none any more."""
        entry = self._entries.get(key)
        if entry is None or entry.lamented or not entry.refused:
            return False
        entry.lamented = True
        return True

    # Who was in no refused batch comes first, but not always: where much is due, the others would never come.
    def _chosen(self, due: list[_Entry]) -> list[_Entry]:
        good = [each for each in due if each.together_max == BATCH_MAX]
        suspects = [each for each in due if each.together_max < BATCH_MAX and not each.refused]
        if suspects and (self._suspects_next or not good):
            self._suspects_next = False
            size = suspects[0].together_max
            return [each for each in suspects if each.together_max == size][:size]
        self._suspects_next = True
        return good[:BATCH_MAX] or due[:1]

    # Of several at least one is bad, and nobody says which.
    def _refused(self, entry: _Entry, together: int, now_ns: int) -> None:
        entry.together_max = max(1, together // 2)
        if together == 1:
            entry.refused, entry.due_ns = True, now_ns + self._timing.resend_ns

    def _taken(self, entry: _Entry, alert: Alert, held: bool, now_ns: int) -> list[Told]:
        entry.together_max, entry.refused, entry.lamented = BATCH_MAX, False, False
        newest = entry.alert.version == alert.version
        if alert.ended_ns is not None and not held:
            entry.told = alert.version
            if newest:
                del self._entries[alert.id]
            return [Told(alert.id, alert.version, ended=True)] if newest else []
        first, entry.opened = not entry.opened, True
        if held:
            entry.due_ns = now_ns + self._timing.hold_ns
        else:
            entry.told = alert.version
            entry.due_ns = now_ns + self._timing.resend_ns if newest else entry.due_ns
        return [Told(alert.id, alert.version, ended=False)] if first else []
