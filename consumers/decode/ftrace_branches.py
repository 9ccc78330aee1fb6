"""Between what `?:` chooses in a print fmt: the conditions on which a part of it is shown.

Source: C11, 6.5.15 (conditional operator), 6.5.8 and 6.5.9 (relations).
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from consumers.decode.ftrace_expression import CType, OtherForm, Parser, Term, common

#: Longest text of a condition that is read, most of them around one place, most operands on each side of a relation,
#: and brackets around it.
CONDITION_CHARS_MAX: Final = 1024
BRANCHES_MAX: Final = 8
OPERANDS_MAX: Final = 64
BRACKETS_MAX: Final = 8
# A string without an end is one up to the end of the text, so that nothing is looked at twice.
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[()\[\]{},;?:]', re.DOTALL)
_OPENING, _CLOSING = "([{", ")]}"
_FIELD: Final = re.compile(r"REC->(\w+)")
# Of relations whose sides are exchanged.
_EXCHANGED: Final = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


class Branch(NamedTuple):
    """One side of a `?:`: where the condition from `start` to the `?` at `at` is true, or, if not `wanted`, is not."""

    start: int
    at: int
    wanted: bool


class Condition(NamedTuple):
    """Some bits of a field and a constant, both of the type `type`, are in a relation, or, if not `wanted`, are not."""

    field: str
    bits: int
    type: CType
    relation: str
    constant: int
    wanted: bool


class _Reader:
    """A text read from the left: within which `branches` the place at hand is, from the outside in."""

    def __init__(self) -> None:
        self.branches: list[Branch] = []
        # Where the operand at hand begins, and how many branches are around the brackets in which it is.
        self._start = self._outer = 0
        self._frames: list[tuple[int, int]] = []

    def step(self, mark: str, at: int) -> None:
        branches = self.branches
        if mark in _CLOSING:
            if self._frames:
                del branches[self._outer :]
                self._start, self._outer = self._frames.pop()
            return
        if mark in _OPENING:
            self._frames.append((self._start, self._outer))
            self._outer = len(branches)
        elif mark == "?":
            branches.append(Branch(self._start, at, wanted=True))
        elif mark == ":":
            while len(branches) > self._outer and not branches[-1].wanted:
                branches.pop()
            if len(branches) > self._outer:
                branches[-1] = branches[-1]._replace(wanted=False)
        else:
            del branches[self._outer :]
        self._start = at + 1


def around(text: str, places: list[int]) -> list[list[Branch]]:
    """Return within which branches each of `places`, which are in order, is: from the outside in.

    Where they are more than `BRANCHES_MAX` there is one more than that.
    """
    found: list[list[Branch]] = []
    if "?" not in text:
        return [[] for _ in places]
    reader = _Reader()
    tokens = _TOKEN.finditer(text, 0, places[-1] if places else 0)
    token = next(tokens, None)
    for place in places:
        while token is not None and token.start() < place:
            if token[0][0] != '"':
                reader.step(token[0], token.start())
            token = next(tokens, None)
        found.append(reader.branches[: BRANCHES_MAX + 1])
    return found


def is_about(text: str, branch: Branch, field: str) -> bool:
    """Tell whether the condition is about that field and no other one."""
    if branch.at - branch.start > CONDITION_CHARS_MAX:
        return False
    own = text[branch.start : branch.at]
    return set(_FIELD.findall(own)) == {field} and "__get_" not in own


def condition(text: str, branch: Branch, types: Mapping[str, CType], long_bits: int) -> Condition | None:
    """Return the condition; None where it does something else than to compare one of the fields with a constant."""
    if branch.at - branch.start > CONDITION_CHARS_MAX or '"' in text[branch.start : branch.at]:
        return None
    parser = Parser(_bare(text[branch.start : branch.at]), 0, types, long_bits)
    right, relation = Term(CType(32, True), 0), "!="
    try:
        if parser.text == "!":
            parser.step()
            left, relation = parser.operand(OPERANDS_MAX), "=="
        else:
            left = parser.expression(OPERANDS_MAX)
            if parser.text in _EXCHANGED:
                relation = parser.step()
                right = parser.expression(OPERANDS_MAX)
    except OtherForm:
        return None
    if isinstance(left.value, int):
        left, relation, right = right, _EXCHANGED[relation], left
    if parser.kind or left.shift != 0 or not isinstance(right.value, int) or parser.field is None:
        return None
    type_ = common(left.promoted().type, right.promoted().type)
    return Condition(parser.field, left.bits, type_, relation, type_.wrap(right.value), branch.wanted)


# Without the brackets around all of it.
def _bare(text: str) -> str:
    text = text.strip()
    for _ in range(BRACKETS_MAX):
        if not text.startswith("(") or _closing(text) != len(text) - 1:
            break
        text = text[1:-1].strip()
    return text


def _closing(text: str) -> int:
    depth = 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return at
    return -1
