"""A progress bar on a terminal; nothing elsewhere."""

import sys
import time
from typing import Final

_EVERY_S: Final = 0.1
_WIDTH: Final = 30


class ProgressBar:
    """Draws `done` of `total` messages on stderr when it is a terminal."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._drawn_s = 0.0
        self._terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        """Draw, at most every tenth of a second and at the end."""
        now_s = time.monotonic()
        if not self._terminal or (done < total and now_s - self._drawn_s < _EVERY_S):
            return
        self._drawn_s = now_s
        filled = _WIDTH if total == 0 else _WIDTH * done // total
        end = "\n" if done >= total else ""
        print(
            f"\r[{'#' * filled}{' ' * (_WIDTH - filled)}] {done:,}/{total:,} {self._unit}",
            end=end,
            file=sys.stderr,
            flush=True,
        )
