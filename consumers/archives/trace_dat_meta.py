"""What both versions of trace.dat say in front of the pages: the form of a page, formats of events, options.

Source: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5).
"""

import re
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from consumers.archives import trace, trace_texts
from consumers.archives.octets import Cursor
from consumers.decode.ftrace_format import PageHeader
from schemas import limits
from schemas.errors import BadInputError

_HEADER_PAGE_BYTES_MAX: Final = 4096
_SYSTEM_BYTES_MAX: Final = 128
_OPTION_BYTES_MAX: Final = 1 << 20
_OPTIONS_MAX: Final = 1 << 16
#: All formats of a file together, in memory.
_FORMATS_BYTES_MAX: Final = 64 << 20
_STATS_CPU: Final = re.compile(r"^CPU: (\d{1,6})$", re.MULTILINE)
_STATS_BUFFER: Final = re.compile(r"^\s*Buffer: (\S+)\s*$")


class Option(IntEnum):
    """The options that matter here; those about clocks' differences, guests and processes are passed over."""

    DONE = 0
    CPUSTAT = 2
    BUFFER = 3
    TRACECLOCK = 4
    UNAME = 5
    CPUCOUNT = 8
    HEADER_INFO = 16
    FTRACE_EVENTS = 17
    EVENT_FORMATS = 18
    PRINTK = 20
    BUFFER_TEXT = 22


_SEVERAL: Final = frozenset((Option.CPUSTAT, Option.BUFFER, Option.BUFFER_TEXT))


@dataclass(slots=True)
class Options:
    """What the options say so far: of each number all, in order; of those that a file has once the last."""

    found: dict[int, list[bytes]] = field(default_factory=dict)
    count: int = 0

    def read(self, cursor: Cursor, *, end_has_data: bool) -> None:
        """Read options up to the one that ends them, which in version 7 has data as any other.

        Raises:
            BadInputError: one is cut off or too long, or there are too many.
        """
        number = -1
        while number != Option.DONE:
            self.count += 1
            if self.count > _OPTIONS_MAX:
                raise BadInputError("format", f"{cursor.what} has more than {_OPTIONS_MAX} options")
            number = cursor.number(2)
            if number != Option.DONE or end_has_data:
                self._keep(number, cursor)

    def last(self, number: int) -> bytes:
        """Return the data of the option `number`, empty where there is none."""
        return self.found.get(number, [b""])[-1]

    def node(self) -> str:
        """Return the name of the machine, the second word of its uname; empty where the file does not say it."""
        words = self.last(Option.UNAME).partition(b"\0")[0].decode("utf-8", "replace").split()
        return words[1] if len(words) > 1 else ""

    def dropped(self) -> dict[tuple[str, int], dict[str, int]]:
        """Return what each ring, by buffer and CPU, never wrote, as `trace_texts.dropped` does."""
        buffer, found = "", {}
        for data in self.found.get(Option.CPUSTAT, []):
            text = data.partition(b"\0")[0].decode("utf-8", "replace")
            if match := _STATS_BUFFER.fullmatch(text):
                buffer = match[1]
            elif match := _STATS_CPU.search(text):
                found[buffer, int(match[1])] = trace_texts.dropped(text)
        return found

    def _keep(self, number: int, cursor: Cursor) -> None:
        size_bytes = cursor.number(4)
        if number not in Option.__members__.values():
            cursor.skip(size_bytes)
            return
        if size_bytes > _OPTION_BYTES_MAX:
            raise BadInputError("format", f"{cursor.what} has an option {number} of {size_bytes:,} bytes")
        data = cursor.octets_of(size_bytes)
        if number in _SEVERAL:
            self.found.setdefault(number, []).append(data)
        else:
            self.found[number] = [data]


def read_header(cursor: Cursor) -> tuple[str, PageHeader]:
    """Read the texts of `events/header_page` and `events/header_event`; return the first, and what it says.

    Raises:
        BadInputError: they are cut off, or of another form.
    """
    _expect(cursor, b"header_page\0")
    size_bytes = cursor.number(8)
    if size_bytes > _HEADER_PAGE_BYTES_MAX:
        raise BadInputError("format", f"{cursor.what} has a header_page of {size_bytes:,} bytes")
    text = cursor.octets_of(size_bytes).decode("utf-8", "replace")
    _expect(cursor, b"header_event\0")
    cursor.skip(cursor.number(8))
    return text, trace.read_header(text, cursor.what, big_endian=cursor.big_endian)


def read_ftrace_events(cursor: Cursor, events: dict[str, str]) -> None:
    """Read the formats of ftrace's own events into `events`.

    Raises:
        BadInputError: they are cut off, or too long together.
    """
    _read_system(cursor, "ftrace", events)


def read_events(cursor: Cursor, events: dict[str, str]) -> None:
    """Read the formats of all systems' events into `events`.

    Raises:
        BadInputError: they are cut off, or too long together.
    """
    for _ in range(cursor.number(4)):
        _read_system(cursor, cursor.text(_SYSTEM_BYTES_MAX), events)


def read_printk_formats(cursor: Cursor) -> str:
    """Return the text of `printk_formats`, or of a long one the beginning.

    Raises:
        BadInputError: it is cut off.
    """
    size_bytes = cursor.number(4)
    kept = min(size_bytes, limits.TRACE_FORMAT_BYTES_MAX)
    text = cursor.octets_of(kept).decode("utf-8", "replace")
    cursor.skip(size_bytes - kept)
    return text


def _read_system(cursor: Cursor, system: str, events: dict[str, str]) -> None:
    total_bytes = sum(map(len, events.values()))
    for _ in range(cursor.number(4)):
        size_bytes = cursor.number(8)
        cursor.need(size_bytes)
        if size_bytes > limits.TRACE_FORMAT_BYTES_MAX:
            cursor.skip(size_bytes)
            continue
        found = trace_texts.event(cursor.octets_of(size_bytes).decode("utf-8", "replace"), system)
        if found is not None:
            total_bytes += len(found[1])
            events[found[0]] = found[1]
        if total_bytes > _FORMATS_BYTES_MAX:
            raise BadInputError("format", f"{cursor.what} has formats of more than {_FORMATS_BYTES_MAX:,} bytes")


def _expect(cursor: Cursor, what: bytes) -> None:
    at = cursor.at
    if cursor.octets_of(len(what)) != what:
        raise BadInputError("format", f"{cursor.what} has no {what[:-1].decode()} at byte {at:,}")
