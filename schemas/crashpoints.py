"""Numbered points at which a test kills or stops the process, to prove that a crash there loses and doubles nothing."""

import os
import signal
from collections import Counter
from typing import Final

#: Every point, by side.
CRASH_POINTS: Final = {
    "producer": (
        "agent:opened",
        "agent:cut",
        "agent:durable",
        "log:appended",
        "log:written",
        "log:synced",
        "log:published",
        "log:created",
        "log:rolled",
        "log:deleted",
        "ship:sent",
        "ship:acked",
        "ship:saved",
        "ship:evicted",
        "relay:durable",
        "relay:acked",
    ),
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
        "retire:manifest",
        "expire:deleted",
        "alert:read",
        "alert:queued",
        "alert:sent",
        "alert:told",
        "alert:committed",
    ),
}
# Read once: some points are passed for every frame.
_WANTED: Final = os.environ.get("HYPOCENTER_CRASH_AT")
_STOP: Final = "stop:"
_passed: Counter[str] = Counter()


def crash_point(name: str) -> None:
    """Kill this process with SIGKILL if the environment names this point as `name` or, at its Nth passing, `name:N`.

    With `stop:` in front it is stopped with SIGSTOP instead and goes on when somebody continues it.
    """
    if _WANTED is None:
        return
    _passed[name] += 1
    number = signal.SIGSTOP if _WANTED.startswith(_STOP) else signal.SIGKILL
    if _WANTED.removeprefix(_STOP) in (name, f"{name}:{_passed[name]}"):
        os.kill(os.getpid(), number)
