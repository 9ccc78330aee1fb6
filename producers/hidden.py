"""Whether /proc shows processes of other users: its mount option `hidepid`, and `ProtectProc=` of a unit, hide them.

Where they are hidden, VMs and blocked tasks of others look as if there were none. Sources: proc(5), systemd.exec(5).
"""

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def why_hidden(proc: Path = Path("/proc")) -> str | None:
    """Return in a few words why processes of other users are not seen; None where they are."""
    # For root the first process: there need be no other user's. For anybody else, root's are always there.
    if any((pid == "1" or _is_anothers(proc / pid)) and _is_read(proc / pid / "stat") for pid in _pids(proc)):
        return None
    return f"{proc} hides processes of other users (its option hidepid, or ProtectProc= of a unit)"


def warn(surface: str, unseen: str) -> None:
    """Log that `surface` does not see all of `unseen`, where that is so."""
    reason = why_hidden()
    if reason is not None:
        log.warning("%s: %s of other users are not seen: %s", surface, unseen, reason)


def added(sentence: str, unseen: str) -> str:
    """Return `sentence`, and behind it that not all of `unseen` is seen, where that is so."""
    reason = why_hidden()
    return sentence if reason is None else f"{sentence}; {unseen} of other users are not seen: {reason}"


def _pids(proc: Path) -> list[str]:
    try:
        return [name for name in os.listdir(proc) if name.isdecimal()]  # noqa: PTH208 - many, and only their names
    except OSError:
        return []


def _is_anothers(process: Path) -> bool:
    try:
        return process.stat().st_uid != os.geteuid()
    except OSError:
        return False


# With `hidepid=noaccess` a process is listed, and nothing of it may be read.
def _is_read(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False
