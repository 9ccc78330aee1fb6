"""The body encoding "heartbeat", version 1: the span in which a stream was watched, though it may have said nothing.

The body is empty (the frame carries losses only), or a msgpack map from text to integer with the keys of `Heartbeat`,
where `counters` is a map from text to integer. Unknown keys are ignored, so that a later producer may say more.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import msgpack

from schemas import limits
from schemas.errors import BadInputError
from schemas.msgpack_reader import Reader


@dataclass(slots=True)
class Heartbeat:
    """One span of watching and one reading of the clocks.

    The stream was read from `since_realtime_ns` to `until_realtime_ns`, beginning at `first_position`. `realtime_ns`,
    `monotonic_ns` and `boottime_ns` were read one after the other within `bracket_ns`. `counters` are the
    producer's own.
    """

    since_realtime_ns: int
    until_realtime_ns: int
    first_position: int
    realtime_ns: int
    monotonic_ns: int
    boottime_ns: int
    bracket_ns: int
    counters: dict[str, int] = field(default_factory=dict)


def pack(heartbeat: Heartbeat) -> bytes:
    """Return the body that says `heartbeat`."""
    body: bytes = msgpack.packb(asdict(heartbeat))
    return body


def unpack(body: bytes) -> Heartbeat | None:
    """Return what `body` says; None for an empty body.

    Raises:
        BadInputError: `reason` is `body`: no such map, a key is missing or there twice, or a limit is broken.
    """
    if not body:
        return None
    if len(body) > limits.HEARTBEAT_BYTES_MAX:
        raise BadInputError("body", f"a heartbeat of {len(body)} bytes, at most {limits.HEARTBEAT_BYTES_MAX}")
    reader = Reader(body, "body")
    fields = {name: _READ.get(name, Reader.skip)(reader) for name in reader.keys(limits.HEARTBEAT_KEYS_MAX)}
    reader.end()
    try:
        return Heartbeat(**{name: fields[name] for name in _READ})
    except KeyError as e:
        raise BadInputError("body", f"the heartbeat lacks {e}") from None


def _read_counters(reader: Reader) -> dict[str, int]:
    return {name: reader.integer() for name in reader.keys(limits.HEARTBEAT_COUNTERS_MAX)}


#: How the value of each key is taken; any other is one that a later producer added.
_READ: Final[dict[str, Callable[[Reader], Any]]] = {
    **dict.fromkeys(Heartbeat.__dataclass_fields__, Reader.integer),
    "counters": _read_counters,
}
