"""The body encoding "heartbeat", version 1: the span in which a stream was watched, though it may have said nothing.

The body is empty (the frame carries losses only), or a msgpack map from text to integer with the keys of `Heartbeat`,
where `counters` is a map from text to integer. Unknown keys are ignored, so that a later producer may say more.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Final

import msgpack

from schemas import limits
from schemas.errors import BadInputError

_BODY_BYTES_MAX: Final = 1 << 16
_COUNTERS_MAX: Final = 256
_KEYS_MAX: Final = 64


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


_INTEGERS: Final = tuple(name for name in Heartbeat.__dataclass_fields__ if name != "counters")


def pack(heartbeat: Heartbeat) -> bytes:
    """Return the body that says `heartbeat`."""
    body: bytes = msgpack.packb(asdict(heartbeat))
    return body


def unpack(body: bytes) -> Heartbeat | None:
    """Return what `body` says; None for an empty body.

    Raises:
        BadInputError: `reason` is `body`: no such map, a key is missing, or a limit is broken.
    """
    if not body:
        return None
    fields = _unpack_map(body)
    try:
        integers = {name: _int64(name, fields[name]) for name in _INTEGERS}
        counters = _counters(fields["counters"])
    except KeyError as e:
        raise BadInputError("body", f"the heartbeat lacks {e}") from None
    return Heartbeat(**integers, counters=counters)


def _unpack_map(body: bytes) -> dict[Any, Any]:
    if len(body) > _BODY_BYTES_MAX:
        raise BadInputError("body", f"a heartbeat of {len(body)} bytes, at most {_BODY_BYTES_MAX}")
    try:
        fields = msgpack.unpackb(
            body, strict_map_key=True, max_map_len=_COUNTERS_MAX, max_str_len=limits.TEXT_BYTES_MAX, max_ext_len=0
        )
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as e:
        raise BadInputError("body", f"no msgpack map: {type(e).__name__} {e}") from None
    if not isinstance(fields, dict) or len(fields) > _KEYS_MAX:
        raise BadInputError("body", f"a heartbeat is a map of at most {_KEYS_MAX} keys")
    return fields


def _int64(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -limits.INT64_MAX - 1 <= value <= limits.INT64_MAX:
        raise BadInputError("body", f"{name} {value!r:.40} is no 64-bit integer")
    return value


def _counters(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise BadInputError("body", f"counters are a map, not {type(value).__name__}")
    if not all(isinstance(name, str) for name in value):
        raise BadInputError("body", "a counter's name is a text")
    return {name: _int64(name, count) for name, count in value.items()}
