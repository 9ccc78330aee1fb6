"""How long a kernel ring that fills densely can be left alone, from how fast it filled.

The kernel wakes a reader at its next tick: hundreds of times a second for a few dozen records each while they come
steadily, and in a flood later than a small ring takes to go round. So while records come densely the agent goes by the
clock and not by the descriptor.
"""

from typing import Final

#: A third of what the smallest usual ring of a kernel log (128 KiB) holds.
_FILL_BYTES: Final = 40 << 10
#: Less than this in one drain is no dense flow: the next record is to be read when it comes.
_DENSE_BYTES: Final = 4 << 10
_STEADY_S_MAX: Final = 0.02
_SILENCE_S: Final = 2 * _STEADY_S_MAX
#: A ring that fills up to its third sooner than this is flooded, and for a while after.
_FLOOD_FILL_S: Final = 0.005
_FLOOD_S: Final = 1.0
_FLOOD_REST_S: Final = 0.001


class Pace:
    """The pace of one source. Times are seconds of one monotonic clock, by the caller's hand."""

    def __init__(self) -> None:
        self._drained_s = self._flood_end_s = float("-inf")

    def rest_s(self, drained_bytes: int, now_s: float) -> float:
        """Return how long to wait before the next drain; 0 means until the descriptor is readable.

        `drained_bytes` is what the drain that ended at `now_s` brought.
        """
        since_s, self._drained_s = now_s - self._drained_s, now_s
        if drained_bytes < _DENSE_BYTES:
            return 0.0
        fill_s = since_s * _FILL_BYTES / drained_bytes
        if fill_s < _FLOOD_FILL_S:
            self._flood_end_s = now_s + _FLOOD_S
        # What comes after a longer silence may have come all at once.
        if now_s < self._flood_end_s or since_s > _SILENCE_S:
            return _FLOOD_REST_S
        return min(_STEADY_S_MAX, fill_s)
