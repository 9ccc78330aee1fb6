"""Which row of the grammar a line is: anchored on records of the kernel, searching on text that anybody may write.

The rows themselves are data, in the modules `grammar_*` beside this one. Matching is RE2's: linear in the line, which a
guest has written. Wording of kernels 3.x to 7.x side by side: no version is asked for, distributions port back.

A record is what its first line is. Whoever may mount a file system has the kernel quote a text of his, line breaks
included; what the kernel itself prints behind one is body (arch/arm/kernel/process.c, two lines of registers).
"""

from functools import lru_cache
from typing import Any, Final, NamedTuple

import re2

from consumers.reports.grammar_bodies import BODIES, ENDS, LOSSES
from consumers.reports.grammar_context import BOOTS, CONTEXTS, NEARS, SILENCES
from consumers.reports.grammar_row import Role, Row
from consumers.reports.grammar_starts import FATALS, STARTS, TAILS
from consumers.reports.report import Line

#: Longest text that is looked at; the kernel's own lines end at 1,024.
TEXT_CHARS_MAX: Final = 8192
#: In the order in which they are asked: the first row that matches is the line's.
ROWS: Final = STARTS + TAILS + FATALS + ENDS + SILENCES + LOSSES + BODIES + CONTEXTS + BOOTS
_SEARCHED: Final = frozenset((Role.START, Role.TAIL, Role.END, Role.SILENCE, Role.LOSS))
_DAMAGED: Final = tuple(row for row in STARTS + TAILS if row.stub)
_FREE: Final = tuple(row for row in ROWS if row.role in _SEARCHED)
# Where a line only repeats what the kernel was started with, or how it was set up, it is no near miss.
_QUIET: Final = (
    "Command line:", "Kernel command line:", "Unknown kernel command line", "NMI watchdog: Enabled",
    "watchdog: Enabled",
)  # fmt: skip
# Of RE2's states, which a guest's lines may make: of all rows together, and of one.
_SET_BYTES: Final = 16 << 20
_ROW_BYTES: Final = 1 << 20


class Match(NamedTuple):
    """What a line is. `damaged`: it begins as the row does and does not end so.

    `rest` is what stands behind the line break of a record whose first line alone is the row.
    """

    row: Row
    groups: dict[str, str]
    damaged: bool
    rest: str = ""


def _options(size_bytes: int) -> Any:
    options = re2.Options()
    options.dot_nl = True  # a task's name may hold a newline
    options.log_errors = False
    options.max_mem = size_bytes
    return options


def _set(kind: Any, patterns: list[str]) -> Any:
    built = kind(_options(_SET_BYTES))
    for pattern in patterns:
        built.Add(pattern)
    built.Compile()
    return built


_OPTIONS: Final = _options(_ROW_BYTES)
_WHOLE_SET: Final = _set(re2.Set.FullMatchSet, [rf"(?:{row.pattern})\s*" for row in ROWS])
_STUB_SET: Final = _set(re2.Set.MatchSet, [row.stub for row in _DAMAGED])
_FREE_SET: Final = _set(re2.Set.SearchSet, [row.pattern for row in _FREE])
_FREE_STUB_SET: Final = _set(re2.Set.SearchSet, [row.stub for row in _DAMAGED])
_NEAR_SET: Final = _set(re2.Set.FullMatchSet, [row.pattern for row in NEARS])
_WHOLE: Final = {row.name: re2.compile(rf"(?:{row.pattern})\s*".encode(), _OPTIONS) for row in ROWS}
_PART: Final = {row.name: re2.compile(row.pattern.encode(), _OPTIONS) for row in _FREE}
_STUB: Final = {row.name: re2.compile(row.stub.encode(), _OPTIONS) for row in _DAMAGED}
# All groups have names; a pattern makes the list of them anew each time it is asked.
_NAMES: Final = {
    pattern: [name.decode() for name in sorted(pattern.groupindex, key=pattern.groupindex.get)]
    for patterns in (_WHOLE, _PART, _STUB)
    for pattern in patterns.values()
}
_QUOTE: Final = re2.compile(
    rb"(?:[\"'`](?:(?:NMI )?watchdog: |rcu: |smp: |csd: |clocksource: |timekeeping watchdog: |kernel: ?|INFO: |BUG: )*"
    rb"|---\[ end )$"
)


def match(line: Line) -> Match | None:
    """Return the row that `line` is, or None. A near miss is a match too; its row's role says so."""
    return _match(line.text[:TEXT_CHARS_MAX], line.structured, line.ts_ns is not None)


# Who looks what a line is gives it to others who ask again.
@lru_cache(maxsize=4)
def _match(text: str, structured: bool, known_time: bool) -> Match | None:
    head, _, rest = text.partition("\n")
    if structured and rest:
        return _of_lines(text, head, rest)
    octets = text.encode("utf-8", "replace")
    return _whole(octets) or (_damaged(octets) if structured else _searched(octets, known_time=known_time))


def _of_lines(text: str, head: str, rest: str) -> Match | None:
    first = head.encode("utf-8", "replace")
    found = _whole(first)
    if found is not None:
        return found._replace(rest=rest)
    # The name of a task may hold a line break. These rows begin with any text: those a quoted one could be.
    octets = text.encode("utf-8", "replace")
    found = _whole(octets)
    if found is not None and found.row.role not in (Role.CONTEXT, Role.FATAL):
        return found
    return _stub(octets) or _near(first)


def _whole(octets: bytes) -> Match | None:
    found = _first(_WHOLE_SET, ROWS, octets)
    return None if found is None else Match(found, _groups(_WHOLE[found.name].fullmatch(octets)), damaged=False)


def _damaged(octets: bytes) -> Match | None:
    return _stub(octets) or _near(octets)


def _stub(octets: bytes) -> Match | None:
    found = _first(_STUB_SET, _DAMAGED, octets)
    return None if found is None else Match(found, _groups(_STUB[found.name].match(octets)), damaged=True)


def _searched(octets: bytes, *, known_time: bool) -> Match | None:
    found = _first(_FREE_SET, _FREE, octets)
    if found is not None:
        return _unquoted(Match(found, {}, damaged=False), _PART[found.name].search(octets), octets)
    # Of a damaged line little is left to know it by: then it must begin so, or have a time of the kernel.
    found = _first(_FREE_STUB_SET if known_time else _STUB_SET, _DAMAGED, octets)
    if found is not None:
        return _unquoted(Match(found, {}, damaged=True), _STUB[found.name].search(octets), octets)
    return _near(octets) if known_time else None


# Whoever writes about a line puts it in quotes; no log does. And a panic's last line quotes its first.
def _unquoted(found: Match, where: Any, octets: bytes) -> Match | None:
    before = octets[: where.start()] if where is not None else b""
    if _QUOTE.search(before) is not None:
        return None
    return found._replace(groups=_groups(where))


def _near(octets: bytes) -> Match | None:
    if octets.startswith(tuple(each.encode() for each in _QUIET)):
        return None
    found = _first(_NEAR_SET, NEARS, octets)
    return None if found is None else Match(found, {}, damaged=False)


def _first(patterns: Any, rows: tuple[Row, ...], octets: bytes) -> Row | None:
    found = patterns.Match(octets)
    return rows[min(found)] if found else None


def _groups(found: Any) -> dict[str, str]:
    if found is None:  # the set and the single pattern are one: cannot be, but a guest wrote the line
        return {}
    named = zip(_NAMES[found.re], found.groups(), strict=True)
    return {name: value.decode("utf-8", "replace") for name, value in named if value is not None}
