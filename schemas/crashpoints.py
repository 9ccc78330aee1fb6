"""Numbered points at which a test kills the process, to prove that a crash there loses and doubles nothing."""

import os
import signal
from collections import Counter
from typing import Final

#: Every point, by side.
CRASH_POINTS: Final = {
    "producer": ("agent:opened", "agent:cut", "agent:durable"),
    "consumer": (
        "collector:added",
        "writer:file",
        "writer:files",
        "writer:committed",
        "chain:created",
        "chain:checkpoint",
        "compact:file",
        "compact:files",
        "compact:manifest",
        "expire:deleted",
    ),
}
_VARIABLE: Final = "HYPOCENTER_CRASH_AT"
_passed: Counter[str] = Counter()


def crash_point(name: str) -> None:
    """Kill this process with SIGKILL if the environment names this point as `name` or, at its Nth passing, `name:N`."""
    wanted = os.environ.get(_VARIABLE)
    if wanted is None:
        return
    _passed[name] += 1
    if wanted in (name, f"{name}:{_passed[name]}"):
        os.kill(os.getpid(), signal.SIGKILL)
