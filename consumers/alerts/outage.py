"""What is said of one Alertmanager that takes nothing: one line when that begins, and one when it is over.

Pure: answers and times in, lines for the log out. What it refuses because of what is in it is no outage: it answers.
"""

import logging
from typing import Final, NamedTuple

from consumers.alerts.outbox import Answer

_S: Final = 10**9


class Said(NamedTuple):
    """A line for the log, `level` as `logging` has them."""

    level: int
    text: str


class Outage:
    """Of the Alertmanager at `url`; times are ns on a clock that never goes back."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._since_ns: int | None = None
        self._tries = 0

    def answered(self, answer: Answer, why: str, waiting: int, now_ns: int) -> Said | None:
        """Take an answer; return what is to be said of it. `waiting`: how many incidents wait to be told."""
        if answer is Answer.FAILED:
            self._tries += 1
            if self._since_ns is not None:
                return None
            self._since_ns = now_ns
            return Said(logging.ERROR, f"{self._url} takes no alerts, {waiting} wait and nothing is lost: {why}")
        if self._since_ns is None:
            return None
        took_s, tries = (now_ns - self._since_ns) / _S, self._tries
        self._since_ns, self._tries = None, 0
        return Said(
            logging.INFO, f"{self._url} takes alerts again after {took_s:,.0f} s and {tries} tries, {waiting} wait"
        )
