"""Whole buffers looked at for what the grammar could know, in one scan, before any line of them is split.

Every row that can begin something has literals that a line of it cannot lack; a buffer without any of them has no such
line. RE2 walks over all of them at once with one table, where a search for each would walk once per literal.
"""

from collections.abc import Iterator
from typing import Any, Final

import re2

from consumers.reports.grammar import ROWS
from consumers.reports.grammar_context import NEARS

#: How many lines behind a candidate may still belong to its report, as an assembler attaches them.
FOLLOWING_LINES_MAX: Final = 200
_NEWLINE: Final = b"\n"


def _pattern() -> Any:
    literals = sorted({literal for row in (*ROWS, *NEARS) for literal in row.literals})
    options = re2.Options()
    options.log_errors = False
    return re2.compile("|".join(re2.escape(literal) for literal in literals).encode(), options)


_LITERALS: Final = _pattern()


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
