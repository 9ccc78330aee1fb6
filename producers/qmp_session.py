"""One connection to QEMU's monitor protocol, without a socket: bytes in, messages out, and the bytes to send.

Source: QEMU's docs/interop/qmp-spec.rst: a greeting, then lines of JSON; events come between the answers to commands.
"""

import json
from typing import Any, Final, NamedTuple

#: Longest line that is read; what is longer is thrown away up to its end. And of a bad line, what is kept.
LINE_BYTES_MAX: Final = 4 << 20
RAW_BYTES_MAX: Final = 4096
_ID: Final = "hypocenter"


class Greeting(NamedTuple):
    """QEMU's first line: its version, as `7.2.22`, and what else it says of its package."""

    version: str
    package: str


class Event(NamedTuple):
    """`realtime_ns` is the host's CLOCK_REALTIME, which QEMU states in us; None where it states none (no clock)."""

    name: str
    realtime_ns: int | None
    data: str | None  # JSON


class Answer(NamedTuple):
    """To the `command` sent: what it returned, or the error's text."""

    command: str
    value: Any
    error: str | None


class Bad(NamedTuple):
    """A line that is none of these: why, and its first bytes."""

    reason: str
    raw: bytes


Message = Greeting | Event | Answer | Bad


class Session:
    """One connection, from its first byte on."""

    def __init__(self) -> None:
        self.greeted = False
        self._rest = b""
        self._skipping = False
        self._sent: dict[str, str] = {}
        self._number = 0

    @property
    def unanswered(self) -> int:
        """Return how many commands wait for their answers."""
        return len(self._sent)

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> bytes:
        """Return the bytes of a command."""
        key = f"{_ID}-{self._number}"
        self._number += 1
        self._sent[key] = name
        more = {} if arguments is None else {"arguments": arguments}
        return json.dumps({"execute": name, "id": key} | more).encode() + b"\r\n"

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that `data` completes."""
        found: list[Message] = []
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if self._skipping:
                self._skipping = False
            elif len(line) > LINE_BYTES_MAX:
                found.append(Bad("too-long", line[:RAW_BYTES_MAX]))
            elif line.strip():
                found.append(self._message(line.strip()))
        if len(self._rest) > LINE_BYTES_MAX:
            if not self._skipping:
                found.append(Bad("too-long", self._rest[:RAW_BYTES_MAX]))
            self._rest, self._skipping = b"", True
        return found

    def _message(self, line: bytes) -> Message:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return Bad("json", line[:RAW_BYTES_MAX])
        if not isinstance(value, dict):
            return Bad("form", line[:RAW_BYTES_MAX])
        if isinstance(value.get("event"), str):
            data = value.get("data")
            return Event(value["event"], _time_ns(value.get("timestamp")), None if data is None else _text(data))
        if "QMP" in value:
            self.greeted = True
            return _greeting(value["QMP"])
        key = value.get("id")
        command = self._sent.pop(key, None) if isinstance(key, str) else None
        if command is None:
            return Bad("form", line[:RAW_BYTES_MAX])
        error = value.get("error")
        return Answer(command, value.get("return"), None if error is None else _text(error))


def _greeting(value: Any) -> Greeting:
    version = value.get("version") if isinstance(value, dict) else None
    version = version if isinstance(version, dict) else {}
    numbers = version.get("qemu")
    numbers = numbers if isinstance(numbers, dict) else {}
    parts = [str(numbers.get(part, "?")) for part in ("major", "minor", "micro")]
    return Greeting(".".join(parts)[:64], str(version.get("package", ""))[:255])


# QEMU says -1 for both where its host's clock cannot be read.
def _time_ns(stamp: Any) -> int | None:
    if not isinstance(stamp, dict):
        return None
    seconds, micros = stamp.get("seconds"), stamp.get("microseconds")
    if not (isinstance(seconds, int) and isinstance(micros, int) and 0 <= seconds < 1 << 33 and 0 <= micros < 10**6):
        return None
    return seconds * 10**9 + micros * 1000


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
