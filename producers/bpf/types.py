"""The stream of a ring's description: what decoding its records takes, once in each run, before the first of them."""

import time

from producers.source import Batch
from schemas import bpf
from schemas.stream import Stream


class TypesSource:
    """The description `body` of one ring; `sent` is how many of them earlier runs sent.

    Records name a description only when it was cut: so this source is cut before that of the records.
    """

    encoding = bpf.TYPES_ENCODING
    encoding_version = bpf.TYPES_VERSION
    tick_s: float | None = None

    def __init__(self, stream: Stream, body: bytes, sent: int) -> None:
        self.stream = stream
        self._body = body
        self._next = sent
        self._cut = 0

    def fileno(self) -> int:
        """Return -1: a program's types do not change while it is loaded."""
        return -1

    def alive(self) -> bool:
        """Return True: the program is loaded."""
        return True

    def drain(self) -> bool:
        """Return False: there is never more."""
        return False

    def pending_bytes(self) -> int:
        """Return the size of the description until it is cut."""
        return 0 if self._cut else len(self._body)

    def cut(self) -> list[Batch]:
        """Return the description, the first time."""
        if self._cut:
            return []
        self._cut = 1
        first, self._next = self._next, self._next + 1
        now_ns = time.monotonic_ns()
        return [Batch(first, first + 1, 1, self._body, [], now_ns, now_ns, bpf.descriptor(self._body))]

    def next_position(self) -> int:
        """Return how many descriptions were cut, over all runs."""
        return self._next

    def counters(self) -> dict[str, int]:
        """Return the descriptions cut in this run."""
        return {"records": self._cut}

    def stop(self) -> None:
        """Do nothing: a description ends with its records."""

    def give_up(self) -> None:
        """Do nothing: nothing waits in the kernel."""

    def close(self) -> None:
        """Do nothing: the program belongs to the source of its records."""
