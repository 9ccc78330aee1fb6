"""What a spool holds and what of it Kafka has acknowledged."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Final

from schemas import log_dir

_WAIT_S: Final = 60.0


def ends(spool: Path) -> dict[str, int]:
    """Return the offset at which each partition of the spool ends now."""
    found = {
        f"{end.parent.parent.name}/{end.parent.name}": log_dir.read_end(end.parent) for end in spool.glob("*/*/end")
    }
    return {where: end.offset for where, end in found.items() if end}


def acknowledged(spool: Path, wanted: dict[str, int]) -> bool:
    """Return whether the shipper has noted that Kafka has each partition up to these offsets."""
    try:
        shipped = json.loads((spool / "shipped.json").read_bytes())["offsets"]
    except FileNotFoundError:
        return False
    return all(shipped.get(where, 0) >= offset for where, offset in wanted.items())


def until(done: Callable[[], bool], process: Popen[bytes], what: str) -> None:
    """Wait until `done`.

    Raises:
        RuntimeError: `process` ended, or it took too long; `what` says what the process should have done.
    """
    deadline_s = time.monotonic() + _WAIT_S
    while not done():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"{process.args!r:.60} does not {what}")
        time.sleep(0.02)
