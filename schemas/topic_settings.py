"""The settings that our Kafka topics must have: offsets without holes, room for a frame, the broker's append time.

Pure: both sides read the settings with a client of their own and have them judged here.
"""

from collections.abc import Mapping
from typing import Final

from schemas.errors import UsageError

#: Compaction and transactions put holes into the offsets; the append time must not be under a producer's control.
REQUIRED: Final = {
    "cleanup.policy": "delete",
    "message.timestamp.type": "LogAppendTime",
}
#: `max.message.bytes` must be at least this: a frame of the largest size, and Kafka's batch header.
MESSAGE_BYTES_MIN: Final = 2 << 20


def absent(topic: str) -> UsageError:
    """Return the error for a topic that is not there."""
    return UsageError(f"topic {topic} does not exist: run `hypocenter topics create --kafka HOST:PORT`")


def check(topic: str, found: Mapping[str, str]) -> None:
    """Compare the settings `found` of `topic` with what exactness needs.

    Raises:
        UsageError: one differs; the text names topic, setting, found and wanted value.
    """
    for key, wanted in REQUIRED.items():
        if found.get(key) != wanted:
            raise UsageError(f"topic {topic}: {key} is {found.get(key)!r}, wanted {wanted!r}")
    size_bytes = int(found.get("max.message.bytes", "0"))
    if size_bytes < MESSAGE_BYTES_MIN:
        raise UsageError(f"topic {topic}: max.message.bytes is {size_bytes}, wanted at least {MESSAGE_BYTES_MIN}")
