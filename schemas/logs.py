"""Our own messages: stderr only, JSON lines when it is no terminal, never the kernel log or the journal's socket."""

import json
import logging
import sys
import time
from typing import Final

_SELDOM_S: Final = 60.0
_REMEMBERED_MAX: Final = 256
_CLIENT: Final = "kafka"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class Seldom(logging.Filter):
    """Lets the same warning or error pass once a minute: an absent broker is a line now and then, not a flood."""

    def __init__(self, *, verbose: bool = False) -> None:
        super().__init__()
        self._verbose = verbose
        # When it was last let through, and how often it was held back since.
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether `record` is to be printed; adds how many like it were not."""
        if record.name.startswith(_CLIENT) and not self._verbose:
            record.exc_info = record.exc_text = None  # where in the client a connection broke helps nobody here
        if record.levelno < logging.WARNING or record.exc_info:
            return True
        text = record.getMessage()
        key = (record.name, record.levelno, text)
        said_s, held = self._said.pop(key, (None, 0))
        if said_s is not None and record.created - said_s < _SELDOM_S:
            self._said[key] = (said_s, held + 1)
            return False
        while len(self._said) >= _REMEMBERED_MAX:
            del self._said[next(iter(self._said))]
        self._said[key] = (record.created, 0)
        if held:
            record.msg, record.args = f"{text} ({held} times more since)", None
        return True


def setup(*, verbose: bool = False) -> None:
    """Send log records to stderr; client libraries only what they call an error, unless `verbose`."""
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(_JsonLines())
    handler.addFilter(Seldom(verbose=verbose))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    logging.getLogger(_CLIENT).setLevel(logging.INFO if verbose else logging.ERROR)
    # It says again, with the addresses of objects, what kafka.net.manager has said.
    logging.getLogger("kafka.net.connection").setLevel(logging.INFO if verbose else logging.CRITICAL)
