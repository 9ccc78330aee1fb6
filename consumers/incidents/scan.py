"""The incidents in one saved kernel log: console, dmesg or journal as text, or a dump of /dev/kmsg.

Blocks of bytes in, cut anywhere. What has no literal of a line that begins or ends something is only counted; around a
line that the grammar knows, the context before it, that line and what may belong to it are read. A file may hold
several boots: `Linux version` or a fall of the time begins another. A log that stands in the file twice, as a console
and once more as a dump, is one: the lines of the copy count as lines of the same incidents.
"""

from bisect import insort
from collections.abc import Iterator
from typing import Final, NamedTuple

from consumers.incidents.assembly import Limits
from consumers.incidents.incident import Incident, Source, StartLine
from consumers.incidents.log import LogIncidents
from consumers.incidents.wall import WallClock, wall_second
from consumers.reports import grammar, screen
from consumers.reports.grammar_row import Role
from consumers.reports.kmsg_record import is_kmsg, kmsg_line
from consumers.reports.prefix import text_lines
from consumers.reports.report import Kind, Line, Report
from schemas.errors import BadInputError

#: Longest line that is kept whole across blocks.
CARRY_BYTES_MAX: Final = 1 << 20
#: Incidents are held until the end, because a copy of their lines may come. Of more than so many, or such as have so
#: many reports or start lines in all, the oldest are given out before.
HELD_MAX: Final = 4096
HELD_REPORTS_MAX: Final = 8192
HELD_START_LINES_MAX: Final = 1 << 17
#: Near misses of which the text is kept.
NEAR_SHOWN_MAX: Final = 20
_LIMITS: Final = Limits(open_max=64, reports_max=24, start_lines_max=1 << 12, lines_max=12, first_lines_max=80)
_KEYS_MAX: Final = 1 << 16
_HEAD_LINES: Final = 40
_S: Final = 1_000_000_000
_BOOT_NS: Final = 2_000_000_000
#: Further back than printk's clocks may stand on different CPUs: another boot, or the same once more.
_FALL_NS: Final = 90_000_000_000
#: How far before the first line of a report its context is looked for.
_BEHIND_BYTES: Final = 1 << 16
#: Most records in one line of a file.
_JOINED_MAX: Final = 16
_NEWLINE: Final = b"\n"
_BANNER: Final = "Linux version "
_FOLLOWED: Final = frozenset((Role.START, Role.TAIL, Role.FATAL, Role.END))


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
        self._behind = b""
        self._wanted = 0  # lines behind the newest that may belong to a report
        self._fed = 0
        self._kmsg: bool | None = None
        # Lines have the wall clock's time if the first line of a report has that and none of printk's.
        self._wall: WallClock | None = None
        self._dated = False
        self._newest_ns: int | None = None
        self._banner_place = -1
        self._began = False  # a line of this boot was seen that the grammar knows
        self._log = LogIncidents(Source("", "", ""), _LIMITS)
        self._found: dict[str, Found] = {}
        self._of_boot: dict[str, None] = {}  # of them, this boot's
        self._keys: dict[tuple[Kind, int], str] = {}  # ids, also of incidents that were given out

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
        return self._taken()

    def close(self) -> list[Found]:
        """End the log; return every incident that was not given out, in the order of its first line."""
        if self._carry:
            self._read(self._carry)
            self._carry = b""
            self.lines += 1
        self._settle()
        done = sorted(self._found.values(), key=lambda found: found.incident.first_place)
        self._found = {}
        return done

    # Whole lines. Where nothing is wanted and nothing can begin, they are only counted.
    def _read(self, block: bytes) -> None:
        if self._kmsg is None:
            self._kmsg = _looks_like_kmsg(block)
        at = counted = 0
        place = self.lines + 1  # of the line at `counted`
        while at < len(block):
            if not self._wanted:
                begin = screen.next_opening(block, at)
                if begin is None:
                    break
                at = begin
                place += block.count(_NEWLINE, counted, at)
                counted = at
            end = block.find(_NEWLINE, at) + 1 or len(block)
            self._line(block, at, end, place)
            place += 1
            at = counted = end
        self.lines += block.count(_NEWLINE)
        self._behind = (self._behind + block)[-_BEHIND_BYTES:] if len(block) < _BEHIND_BYTES else block[-_BEHIND_BYTES:]

    def _line(self, block: bytes, at: int, end: int, place: int) -> None:
        wanted = self._wanted
        self._wanted = max(0, wanted - 1)
        for read in self._lines_of(block[at:end], place):
            match = grammar.match(read)
            role = None if match is None else match.row.role
            line = read if role not in _FOLLOWED or self._dated else self._date(read, block[at:end])
            if role is Role.NEAR:
                self._near_miss([line])
            if role is not None and self._new_boot(line, role):
                self._end_boot()
            self._began = self._began or role is not None
            if role in _FOLLOWED:
                if not wanted:
                    self._take_context(
                        self._behind + block[:at] if at < _BEHIND_BYTES else block[at - _BEHIND_BYTES : at], place
                    )
                self._wanted = screen.FOLLOWING_LINES_MAX
                if line.ts_ns is not None:
                    self._newest_ns = max(self._newest_ns or 0, line.ts_ns)
            if wanted or role is not None:
                self._keep(self._log.feed([line]))
                self._fed = place
            if match is not None and match.row.kind is not None and role is Role.START:
                self._note_again(line, match.row.kind)

    # By the first line of a report: whose times the lines of this log have.
    def _date(self, line: Line, raw: bytes) -> Line:
        self._dated = True
        if line.ts_ns is not None or self._kmsg or wall_second(raw) is None:
            return line
        self._wall = WallClock()
        return self._wall.stamped(line, raw)

    def _near_miss(self, lines: list[Line]) -> None:
        self.near += 1
        if len(self.near_lines) < NEAR_SHOWN_MAX:
            self.near_lines += lines

    # What stands before the first line of a report, and is evidence for it.
    def _take_context(self, before: bytes, place: int) -> None:
        for begin in screen.candidates(before):
            at = place - before.count(_NEWLINE, begin)
            if begin == 0 or at <= self._fed:
                continue
            for line in self._lines_of(before[begin : before.find(_NEWLINE, begin) + 1], at):
                match = grammar.match(line)
                if match is not None and match.row.role is Role.CONTEXT:
                    self._log.feed([line])

    # A line that stands there twice, as two consoles print it, opens nothing the second time; it is a start line too.
    def _note_again(self, line: Line, kind: Kind) -> None:
        for incident in reversed(self._log.incidents.incidents):
            if any((each.place, each.kind) == (line.place, kind) for each in incident.reports):
                return
            if any(each == (line.place, kind) for each in incident.start_lines[-_JOINED_MAX:]):
                return
            for report in reversed(incident.reports):
                same = report.kind is kind and report.ts_ns == line.ts_ns and report.lines
                if same and line.text.startswith(report.lines[0].text):
                    if len(incident.start_lines) < _LIMITS.start_lines_max:
                        insort(incident.start_lines, StartLine(line.place, kind))
                    else:
                        incident.dropped_start_lines += 1
                    return

    def _lines_of(self, raw: bytes, place: int) -> Iterator[Line]:
        if not self._kmsg:
            for each in text_lines(place, raw):
                yield each if self._wall is None else self._wall.stamped(each, raw)
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
            # By a date nobody knows how long the kernel runs.
            banner = line.text.startswith(_BANNER) and (self._wall is not None or (line.ts_ns or 0) < _BOOT_NS)
            again = line.place <= self._banner_place + 1  # the other console's
            self._banner_place = line.place if banner else self._banner_place
            return banner and not again
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
                self._of_boot.pop(incident.id, None)
            elif incident.id not in self._found:
                self._found[incident.id] = Found(incident, self.boots)
                self._of_boot[incident.id] = None

    def _end_boot(self) -> None:
        if not self._began:
            return
        self._keep(self._log.rebooted())
        self._settle()
        self._log = LogIncidents(Source("", "", ""), _LIMITS)
        self._newest_ns, self._began = None, False
        self.boots += 1

    def _settle(self) -> None:
        self._keep(self._log.close())
        for name in self._of_boot:
            found = self._found.get(name)
            if found is None:
                continue
            if all(map(_only_a_phrase, found.incident.reports)):
                self._near_miss(found.incident.root.lines[:1])
                del self._found[name]
            else:
                self._merge_copy(name, found)
        self._of_boot.clear()

    # The same kinds at the same microseconds cannot be another boot's, nor in the same second of a date.
    def _merge_copy(self, name: str, found: Found) -> None:
        unit_ns = 1 if self._wall is None else _S
        keys = [(each.kind, each.ts_ns // unit_ns) for each in found.incident.reports if each.ts_ns]
        known = next((key for key in keys if key in self._keys), None)
        if known is None:
            if len(self._keys) < _KEYS_MAX:
                self._keys |= dict.fromkeys(keys, name)
            return
        self.copies += 1
        del self._found[name]
        first = self._found.get(self._keys[known])
        if first is None:
            return
        # That a boot ended was only said because the copy began.
        first.incident.state, first.incident.ended_by = found.incident.state, found.incident.ended_by
        room = _LIMITS.start_lines_max - len(first.incident.start_lines)
        more = found.incident.start_lines
        first.incident.start_lines += more[:room]
        first.incident.dropped_start_lines += found.incident.dropped_start_lines + len(more[room:])

    # The first of those that the assembly no longer holds, until what is left is within its bounds.
    def _taken(self) -> list[Found]:
        many = len(self._found) - HELD_MAX
        reports = sum(len(each.incident.reports) for each in self._found.values()) - HELD_REPORTS_MAX
        lines = sum(len(each.incident.start_lines) for each in self._found.values()) - HELD_START_LINES_MAX
        if max(many, reports, lines) <= 0:
            return []
        held, done = {each.id for each in self._log.incidents.incidents}, []
        for name, found in self._found.items():
            if max(many, reports, lines) <= 0:
                break
            if name not in held:
                done.append(found)
                many -= 1
                reports -= len(found.incident.reports)
                lines -= len(found.incident.start_lines)
        for found in done:
            del self._found[found.incident.id]
            self._of_boot.pop(found.incident.id, None)
        return sorted(done, key=lambda found: found.incident.first_place)


def _looks_like_kmsg(block: bytes) -> bool:
    lines = [
        line for line in block.split(b"\n", _HEAD_LINES)[:_HEAD_LINES] if line.strip() and not line.startswith(b" ")
    ]
    return 2 * sum(map(is_kmsg, lines)) > len(lines)


# Text that quotes the words in a sentence and has nothing of what a kernel says with them: a manual, another's rule.
def _only_a_phrase(report: Report) -> bool:
    known = report.cpus or report.frames or report.numbers
    told = known or report.duration or report.pid is not None or report.ts_ns is not None
    # Of most kinds a whole start line says who and how long.
    whole = not report.corrupted and report.kind is not Kind.PANIC
    if whole or report.structured or told or not report.lines:
        return False
    anchored = grammar.match(report.lines[0]._replace(structured=True))
    return anchored is None or anchored.row.role not in _FOLLOWED
