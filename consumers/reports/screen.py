"""Whole buffers looked at for what the grammar could know, in one scan, before any line of them is split.

Every row that can begin something has literals that a line of it cannot lack; a buffer without any of them has no such
line. RE2 walks over all of them at once with one table, where a search for each would walk once per literal.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import re2

from consumers.reports.grammar import ROWS
from consumers.reports.grammar_context import NEARS
from consumers.reports.grammar_row import Role, Row

#: How many lines behind a candidate may still belong to its report, as an assembler attaches them.
FOLLOWING_LINES_MAX: Final = 200
_NEWLINE: Final = b"\n"


def _pattern(rows: Iterable[Row]) -> Any:
    literals = sorted({literal for row in rows for literal in row.literals})
    options = re2.Options()
    options.log_errors = False
    return re2.compile("|".join(re2.escape(literal) for literal in literals).encode(), options)


_ALL: Final = (*ROWS, *NEARS)
_LITERALS: Final = _pattern(_ALL)
#: Context alone begins nothing.
_OPENINGS: Final = _pattern(row for row in _ALL if row.role is not Role.CONTEXT)


def suspicious(data: bytes | memoryview) -> bool:
    """Return whether `data` may hold a line that begins something; False is certain, True is not.

    Lines cut at the ends of `data` are not seen: hand out whole lines.
    """
    return _LITERALS.search(data) is not None


def candidates(data: bytes) -> Iterator[int]:
    """Yield where in `data` the lines begin that may be a row of the grammar, each once and in order."""
    at = 0
    while (found := _LITERALS.search(data, at)) is not None:
        begin = data.rfind(_NEWLINE, 0, found.start()) + 1
        yield begin
        at = data.find(_NEWLINE, found.end()) + 1
        if not at:
            return


def next_opening(data: bytes, at: int) -> int | None:
    """Return where the next line begins in which something may begin or end, from the line at `at` on; None for none.

    Lines that are only context are passed over.
    """
    found = _OPENINGS.search(data, at)
    return None if found is None else data.rfind(_NEWLINE, at, found.start()) + 1 or at
