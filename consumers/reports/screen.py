"""Whole buffers looked at for what the grammar could know, in one scan, before any line of them is split.

Every row that can begin something has literals that a line of it cannot lack; a buffer without any of them has no such
line. RE2 walks over all of them at once with one table, where a search for each would walk once per literal.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import re2

from consumers.reports.grammar import ROWS
from consumers.reports.grammar_context import NEARS

#: How many lines behind a candidate may still belong to its report, as an assembler attaches them.
FOLLOWING_LINES_MAX: Final = 200
#: Longest line kept for the next block; what is longer is cut there, as no line of a kernel is.
CARRY_BYTES_MAX: Final = 1 << 16
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


class Span(NamedTuple):
    """Whole lines worth parsing; `place` is the number of the first, from 1."""

    place: int
    data: bytes


class Screener:
    """Blocks of a log in, cut anywhere; out come its candidate lines and the lines that may belong to them.

    What follows a candidate for `FOLLOWING_LINES_MAX` lines comes with it, across blocks. Line numbers count all lines,
    also those never looked at. Does no input itself; memory is a block and a line.
    """

    def __init__(self) -> None:
        self.lines = 0  # whole lines that are behind us
        self._carry = b""
        self._wanted = 0  # lines still to be given out behind the last candidate

    def feed(self, block: bytes) -> Iterator[Span]:
        """Yield the spans of `block` up to its last newline."""
        end = block.rfind(_NEWLINE) + 1
        if not end:
            self._keep(self._carry + block)
            return
        whole = self._carry + block[:end] if self._carry else block[:end]
        self._carry = b""
        self._keep(block[end:])
        yield from self._spans(whole)

    def close(self) -> Iterator[Span]:
        """Yield the last line if it lacks its newline."""
        whole, self._carry = self._carry, b""
        if whole:
            yield from self._spans(whole)

    def _keep(self, tail: bytes) -> None:
        self._carry = tail[:CARRY_BYTES_MAX]

    def _spans(self, whole: bytes) -> Iterator[Span]:
        begin, counted = 0, 0
        if self._wanted:
            begin = self._take(whole, 0)
            yield Span(self.lines + 1, whole[:begin])
        for at in candidates(whole):
            if at < begin:
                # Within what is already given out: its own following lines begin anew.
                self._wanted = FOLLOWING_LINES_MAX - whole.count(_NEWLINE, at, begin)
                start = begin
            else:
                self._wanted = FOLLOWING_LINES_MAX
                start = at
            end = self._take(whole, start)
            if end > start:
                self.lines += whole.count(_NEWLINE, counted, start)
                counted = start
                yield Span(self.lines + 1, whole[start:end])
            begin = end
        self.lines += whole.count(_NEWLINE, counted)
        if not whole.endswith(_NEWLINE):
            self.lines += 1

    # Where the wanted lines end that begin at `start`; takes them from what is wanted.
    def _take(self, whole: bytes, start: int) -> int:
        at = start
        while self._wanted > 0:
            found = whole.find(_NEWLINE, at)
            if found < 0:
                return len(whole)
            at = found + 1
            self._wanted -= 1
            if at == len(whole):
                return at
        return at
