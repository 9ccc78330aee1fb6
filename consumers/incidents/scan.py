"""The incidents in one saved kernel log: console, dmesg or journal as text, or a dump of /dev/kmsg.

Blocks of bytes in, cut anywhere. A block without any literal of the grammar is only counted; around a line that the
grammar knows, that line and what may belong to it are read. A file may hold several boots: `Linux version` or a fall of
the time begins another, and nothing joins across. A log that stands in the file twice, as a console and once more as a
dump, is one: the lines of the copy count as lines of the same incidents. Nothing here reads a file.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from consumers.incidents.assembly import Limits
from consumers.incidents.incident import Incident, Source
from consumers.incidents.log import LogIncidents
from consumers.reports import grammar, screen
from consumers.reports.grammar_row import Role
from consumers.reports.kmsg_record import is_kmsg, kmsg_line
from consumers.reports.prefix import text_lines
from consumers.reports.report import Kind, Line
from schemas.errors import BadInputError

#: Longest line that is kept whole across blocks.
CARRY_BYTES_MAX: Final = 1 << 20
#: Incidents held until the end, because a copy of their lines may come; more are given out before.
HELD_MAX: Final = 4096
#: Near misses of which the text is kept.
NEAR_SHOWN_MAX: Final = 20
_LIMITS: Final = Limits(open_max=64, reports_max=64, start_lines_max=1 << 16, lines_max=12, first_lines_max=80)
_KEYS_MAX: Final = 1 << 16
_HEAD_LINES: Final = 40
_BOOT_NS: Final = 2_000_000_000
#: Further back than printk's clocks may stand on different CPUs: another boot, or the same once more.
_FALL_NS: Final = 90_000_000_000
_FOLLOWED: Final = frozenset((Role.START, Role.TAIL, Role.END))


class Found(NamedTuple):
    """An incident, and the number of the boot in its file, from 1."""

    incident: Incident
    boot: int


class LogScan:
    """One log. `feed` it in order, then `close`; both return incidents of which no more lines are expected.

    `lines` is what was seen, `near` the lines that look like a report and are in no row of the grammar, `near_lines`
    the first of them, `copies` the incidents that stood there again.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.near = 0
        self.near_lines: list[Line] = []
        self.copies = 0
        self.boots = 1
        self._carry = b""
        self._wanted = 0
        self._kmsg: bool | None = None
        self._newest_ns: int | None = None
        self._log = LogIncidents(Source("", "", ""), _LIMITS)
        self._found: dict[str, Found] = {}
        self._keys: dict[tuple[Kind, int], Found] = {}

    def feed(self, block: bytes) -> list[Found]:
        """Take the next bytes of the log."""
        end = block.rfind(b"\n") + 1
        if not end:
            self._carry += block
            if len(self._carry) < CARRY_BYTES_MAX:
                return []
            block, self._carry = self._carry, b""
        else:
            block, self._carry = self._carry + block[:end], block[end:]
        self._read(block)
        return self._taken(len(self._found) - HELD_MAX)

    def close(self) -> list[Found]:
        """End the log; return every incident that was not given out, in the order of its first line."""
        if self._carry:
            self._read(self._carry)
            self._carry = b""
            self.lines += 1
        self._end_boot()
        return self._taken(len(self._found))

    # Whole lines. Where nothing is wanted and no literal of the grammar stands, they are only counted.
    def _read(self, block: bytes) -> None:
        if self._kmsg is None:
            self._kmsg = _looks_like_kmsg(block)
        at = self._follow(block, 0, self.lines + 1) if self._wanted else 0
        counted, place = 0, self.lines + 1
        if at < len(block) and screen.suspicious(memoryview(block)[at:]):
            for begin in screen.candidates(block):
                if begin < at:
                    continue
                place += block.count(b"\n", counted, begin)
                counted = begin
                end = block.find(b"\n", begin) + 1 or len(block)
                self._candidate(block[begin:end], place)
                at = self._follow(block, end, place + 1) if self._wanted else end
        self.lines = place - 1 + block.count(b"\n", counted)

    # The lines that may belong to a report, which begin at `at`; returns where they end.
    def _follow(self, block: bytes, at: int, place: int) -> int:
        while self._wanted and at < len(block):
            end = block.find(b"\n", at) + 1 or len(block)
            self._wanted -= 1
            self._candidate(block[at:end], place)
            at, place = end, place + 1
        return at

    def _candidate(self, raw: bytes, place: int) -> None:
        for line in self._lines_of(raw, place):
            match = grammar.match(line)
            role = None if match is None else match.row.role
            if role is Role.NEAR:
                self.near += 1
                if len(self.near_lines) < NEAR_SHOWN_MAX:
                    self.near_lines.append(line)
            if role is not None and self._new_boot(line, role):
                self._end_boot()
            if role in _FOLLOWED:
                self._wanted = screen.FOLLOWING_LINES_MAX
                if line.ts_ns is not None:
                    self._newest_ns = max(self._newest_ns or 0, line.ts_ns)
            if self._wanted or role is not None:
                self._keep(self._log.feed([line]))

    def _lines_of(self, raw: bytes, place: int) -> Iterator[Line]:
        if not self._kmsg:
            yield from text_lines(place, raw)
            return
        if raw.startswith(b" "):
            return
        try:
            line = kmsg_line(raw, place)
        except BadInputError:
            return
        if line is not None:
            yield line

    def _new_boot(self, line: Line, role: Role) -> bool:
        if role is Role.BOOT:
            return line.text.startswith("Linux version ") and (line.ts_ns or 0) < _BOOT_NS
        newest_ns = self._newest_ns
        return (
            role in _FOLLOWED
            and None not in (line.ts_ns, newest_ns)
            and (line.ts_ns or 0) + _FALL_NS < (newest_ns or 0)
        )

    def _keep(self, changed: list[Incident]) -> None:
        for incident in changed:
            if incident.joined:
                self._found.pop(incident.id, None)
            elif incident.id not in self._found:
                self._found[incident.id] = Found(incident, self.boots)

    def _end_boot(self) -> None:
        self._keep(self._log.close())
        for name, found in list(self._found.items()):
            if found.boot == self.boots:
                self._merge_copy(name, found)
        self._log = LogIncidents(Source("", "", ""), _LIMITS)
        self._newest_ns = None
        self.boots += 1

    # The same kinds at the same microseconds cannot be another boot's.
    def _merge_copy(self, name: str, found: Found) -> None:
        keys = [(each.kind, each.ts_ns) for each in found.incident.reports if each.ts_ns]
        first = next((self._keys[key] for key in keys if key in self._keys), None)
        if first is None:
            if len(self._keys) < _KEYS_MAX:
                self._keys |= dict.fromkeys(keys, found)
            return
        self.copies += 1
        first.incident.start_lines += found.incident.start_lines
        first.incident.dropped_start_lines += found.incident.dropped_start_lines
        del self._found[name]

    # The first `count` of those that are no longer held by the assembly.
    def _taken(self, count: int) -> list[Found]:
        if count <= 0:
            return []
        held = {each.id for each in self._log.incidents.incidents}
        done = [found for name, found in self._found.items() if name not in held][:count]
        for found in done:
            del self._found[found.incident.id]
        return sorted(done, key=lambda found: found.incident.first_place)


def _looks_like_kmsg(block: bytes) -> bool:
    lines = [
        line for line in block.split(b"\n", _HEAD_LINES)[:_HEAD_LINES] if line.strip() and not line.startswith(b" ")
    ]
    return 2 * sum(map(is_kmsg, lines)) > len(lines)
