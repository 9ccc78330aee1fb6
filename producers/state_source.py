"""What all state surfaces have in common: a sample at every tick, each of it a record; `schemas/state.py` has the body.

A surface NAME is made of this and of a function that takes the sample.
"""

from collections.abc import Callable
from typing import Final

from producers.source import Batch
from schemas import limits, state
from schemas.state import Record
from schemas.stream import Stream

#: About as many bytes of records fill one body, and the longest one record.
_BODY_BYTES: Final = 256 << 10
_RECORD_BYTES_MAX: Final = limits.BODY_BYTES_MAX - 16
#: Records that wait to be cut: of more the oldest would be no news.
_WAITING_MAX: Final = limits.FRAME_RECORDS_MAX


class StateSource:
    """Samples of the surface `encoding`, taken by `sample` every `interval_s`; `position` is the first one's number.

    They come also by `fileno_of`, a function that gives the descriptor to wait on, or -1. `alive_of` says whether
    there is anything to watch, `on_close` releases what the samples are taken from, and `count` adds to the counters.
    """

    encoding_version = state.VERSION

    def __init__(
        self,
        stream: Stream,
        position: int,
        sample: Callable[[], list[Record]],
        *,
        interval_s: float | None,
        fileno_of: Callable[[], int] = lambda: -1,
        alive_of: Callable[[], bool] = lambda: True,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.stream = stream
        self.encoding = stream.surface
        self.tick_s = interval_s
        self._sample = sample
        self._fileno_of = fileno_of
        self._alive_of = alive_of
        self._on_close = on_close
        self._next = position
        self._waiting: list[tuple[int, bytes]] = []  # the time of each, and its bytes in a body
        self._waiting_bytes = 0
        self._counters = {"records": 0, "refused": 0}
        self._stopped = False

    def fileno(self) -> int:
        """Return the descriptor that says when to sample, -1 where only the tick does."""
        return self._fileno_of()

    def alive(self) -> bool:
        """Return whether there is anything to watch."""
        return self._alive_of()

    def drain(self) -> bool:
        """Take a sample; False: there is never more at once."""
        if self._stopped:
            return False
        for record in self._sample():
            packed = state.pack_record(record)
            if len(packed) > _RECORD_BYTES_MAX or len(self._waiting) >= _WAITING_MAX:
                self.count("refused")
                continue
            self._waiting.append((record.ts_ns, packed))
            self._waiting_bytes += len(packed)
        return False

    def pending_bytes(self) -> int:
        """Return the size of the records that were not cut yet."""
        return self._waiting_bytes

    def cut(self) -> list[Batch]:
        """Return the samples taken since the last cut."""
        records, self._waiting, self._waiting_bytes = self._waiting, [], 0
        batches = []
        while records:
            count, size_bytes = 0, 0
            while count < len(records) and (count == 0 or size_bytes < _BODY_BYTES):
                size_bytes += len(records[count][1])
                if count and size_bytes > _RECORD_BYTES_MAX:
                    break
                count += 1
            taken, records = records[:count], records[count:]
            first, self._next = self._next, self._next + count
            body = state.join([packed for _, packed in taken])
            batches.append(Batch(first, self._next, count, body, [], taken[0][0], taken[-1][0]))
            self.count("records", count)
        return batches

    def count(self, name: str, more: int = 1) -> None:
        """Add `more` to the counter `name`."""
        self._counters[name] = self._counters.get(name, 0) + more

    def next_position(self) -> int:
        """Return the number of the next record to be cut."""
        return self._next

    def counters(self) -> dict[str, int]:
        """Return the records cut, those refused because they were too long or too many, and the surface's own."""
        return dict(self._counters)

    def stop(self) -> None:
        """Take a last sample, and no more."""
        self.drain()
        self._stopped = True

    def give_up(self) -> None:
        """Do nothing: no record waits anywhere but here."""

    def close(self) -> None:
        """Release what the samples are taken from; idempotent."""
        self._stopped = True
        release, self._on_close = self._on_close, lambda: None
        release()
