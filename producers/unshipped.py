"""Since when the oldest frame of a spool waits, as far as looking from time to time can tell.

The shipper notes what is acknowledged (`shipped.json`), the log's writer where each partition ends (`end`). How old
a frame is would take a pass over its segment; that is made once, for what waited before anybody looked. Afterwards
a frame waits since the look that first saw it, which is late by at most the time between two looks.
"""

import json
from collections import deque
from pathlib import Path
from typing import Final

from schemas import log_dir
from schemas.errors import StorageError
from schemas.log_cursor import LogCursor, OvertakenError

#: Looks that are remembered of one partition; at more every other one is forgotten, and ages are as much less exact.
LOOKS_MAX: Final = 1024


class Unshipped:
    """Looks at the spool in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        #: By partition: (offset that it ended at, ns when that was seen), oldest first, those acknowledged left out.
        self._looks: dict[str, deque[tuple[int, int]]] = {}

    def oldest_ns(self, now_ns: int) -> int | None:
        """Return since when (CLOCK_REALTIME, ns) the oldest frame waits; None when nothing does.

        Raises:
            StorageError: the disk refuses.
        """
        shipped = self._shipped()
        found = []
        for path in self._dir.glob("*/*/end"):
            where = f"{path.parent.parent.name}/{path.parent.name}"
            end = log_dir.read_end(path.parent)
            since_ns = self._look(where, shipped.get(where, 0), end.offset if end else 0, now_ns)
            if since_ns is not None:
                found.append(since_ns)
        return min(found, default=None)

    def _look(self, where: str, shipped: int, end: int, now_ns: int) -> int | None:
        looks = self._looks.get(where)
        if looks is None:
            looks = self._looks[where] = deque()
            if shipped < end:
                looks.append((end, self._appended_ns(where, shipped) or now_ns))
        while looks and looks[0][0] <= shipped:
            looks.popleft()
        if shipped < end and (not looks or looks[-1][0] < end):
            looks.append((end, now_ns))
        if len(looks) > LOOKS_MAX:
            self._looks[where] = deque(list(looks)[::2])
        return looks[0][1] if looks else None

    # What retention deleted before it was shipped does not wait any more.
    def _appended_ns(self, where: str, offset: int) -> int | None:
        topic, number = where.split("/")
        cursor = LogCursor(self._dir, topic, int(number))
        try:
            cursor.seek(max(offset, cursor.start_offset()))
            entries = cursor.read()
        except OvertakenError:
            return None
        finally:
            cursor.close()
        return entries[0][1] if entries else None

    def _shipped(self) -> dict[str, int]:
        path = self._dir / "shipped.json"
        try:
            state = json.loads(path.read_bytes())
            return {str(where): int(offset) for where, offset in state["offsets"].items()}
        except FileNotFoundError:
            return {}
        except OSError as e:
            raise StorageError(f"{path}: {e.strerror}") from e
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}  # damaged: then the shipper sends everything again
