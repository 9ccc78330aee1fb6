"""The tables of names in an event's `print fmt`: `__print_symbolic` and `__print_flags`, and what they are applied to.

A print fmt is C text. Only what names a field's values is read of it: the expression over one field, a constant
expression for each value, and the strings. What is of another form is skipped: it is help for readers, the values
themselves are in the columns.

Source: include/trace/stages/stage3_trace_output.h, kernel/trace/trace_output.c (`trace_print_flags_seq`,
`trace_print_symbols_seq`).
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

#: Most tables in one event, entries in one table, operands of a constant and of what a table is applied to, and
#: levels of parentheses. The longest of a kernel are far below each.
TABLES_MAX: Final = 32
ENTRIES_MAX: Final = 1024
CONSTANT_OPERANDS_MAX: Final = 512
OPERANDS_MAX: Final = 64
NESTING_MAX: Final = 64
_WORD: Final = (1 << 64) - 1
_TOKEN: Final = re.compile(
    r'\s{0,80}(?:(?P<number>0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})[uUlL]{0,3}|(?P<text>"(?:[^"\\]|\\.){0,512}")|(?P<field>REC->\w{1,128})'
    r"|(?P<name>\w{1,128})|(?P<mark><<|>>|\S))"
)
_CALL: Final = re.compile(r"\b__print_(symbolic|flags)(?:_u64)?\(")
_BINARY: Final[Mapping[str, tuple[int, Callable[[int, int], int]]]] = {
    "|": (1, operator.or_),
    "^": (2, operator.xor),
    "&": (3, operator.and_),
    "<<": (4, lambda a, b: a << b if b < 64 else 0),
    ">>": (4, lambda a, b: a >> b if b < 64 else 0),
    "+": (5, operator.add),
    "-": (5, operator.sub),
    "*": (6, operator.mul),
    "/": (6, lambda a, b: a // b if b else 0),
    "%": (6, lambda a, b: a % b if b else 0),
}
_UNARY: Final[Mapping[str, Callable[[int], int]]] = {"-": operator.neg, "~": operator.invert, "+": operator.pos}
# What a cast to a narrower type leaves; other casts change nothing in 64 bits.
_CASTS: Final = {"u8": 0xFF, "__u8": 0xFF, "u16": 0xFFFF, "__u16": 0xFFFF, "u32": 0xFFFFFFFF, "__u32": 0xFFFFFFFF}
_ESCAPES: Final = {"n": "\n", "t": "\t"}

# What an expression makes of the field's value; a number where it holds no field.
_Function = Callable[[int], int]
_Expression = int | _Function


class _OtherForm(Exception):  # noqa: N818 - it never leaves this module
    """The text is not of the form that is read."""


@dataclass(slots=True)
class Names:
    """One table: what the values of `field` are called.

    `apply` makes of the field's value (64 bits, unsigned) the number that `values` name, in the kernel's order;
    `empty` is what the kernel prints instead where no flag is set.
    """

    field: str
    flags: bool
    delimiter: str
    apply: _Function
    values: list[tuple[int, str]]
    empty: str

    def name(self, value: int) -> str | None:
        """Return what the kernel calls `value`; None where its table names it not (the kernel prints a number)."""
        found = self.apply(value & _WORD)
        if not self.flags:
            return next((name for number, name in self.values if number == found), None)
        if found == 0:
            return self.empty
        parts = []
        for mask, name in self.values:
            if found and found & mask == mask:
                parts.append(name)
                found &= ~mask
        if found:
            parts.append(f"{found:#x}")
        return self.delimiter.join(parts)


def tables(print_fmt: str) -> list[Names]:
    """Return the tables of one print fmt in its order; those of another form are left out."""
    found = []
    for call in islice(_CALL.finditer(print_fmt), TABLES_MAX):
        try:
            found.append(_Parser(print_fmt, call.end()).table(call[1] == "flags"))
        except _OtherForm:
            continue
    return found


class _Parser:
    """One call's arguments, read from the left; `kind` and `text` are the token at hand."""

    def __init__(self, source: str, at: int) -> None:
        self.source, self.at = source, at
        self.field: str | None = None
        self.kind = self.text = ""
        self.step()

    def step(self) -> str:
        taken = self.text
        match = _TOKEN.match(self.source, self.at)
        if match is None:
            self.kind = self.text = ""
        else:
            self.kind, self.at = match.lastgroup or "", match.end()
            self.text = match[self.kind]
        return taken

    def expect(self, mark: str) -> None:
        if self.text != mark or self.kind == "text":
            raise _OtherForm
        self.step()

    def table(self, flags: bool) -> Names:
        apply = self.expression(OPERANDS_MAX)
        if isinstance(apply, int) or self.field is None:
            raise _OtherForm
        delimiter = ""
        if flags:
            self.expect(",")
            delimiter = self.string()
        values: list[tuple[int, str]] = []
        while self.text == ",":
            self.step()
            self.expect("{")
            value = self.expression(CONSTANT_OPERANDS_MAX)
            self.expect(",")
            if not isinstance(value, int) or len(values) == ENTRIES_MAX:
                raise _OtherForm
            values.append((value, self.string()))
            self.expect("}")
        if self.text != ")" or not values:
            raise _OtherForm
        return Names(self.field, flags, delimiter, apply, values, self.otherwise() if flags else "")

    # `x ? __print_flags(...) : "R"`: what stands for no flag at all.
    def otherwise(self) -> str:
        self.step()
        if self.text == ":":
            self.step()
            if self.kind == "text":
                return self.string()
        return ""

    def string(self) -> str:
        if self.kind != "text":
            raise _OtherForm
        parts = []
        while self.kind == "text":
            parts.append(re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), self.step()[1:-1]))
        return "".join(parts)

    def expression(self, operands_max: int) -> _Expression:
        self.left = operands_max
        return self.binary(0, 0)

    def binary(self, lowest: int, depth: int) -> _Expression:
        left = self.unary(depth)
        while self.kind == "mark" and self.text in _BINARY and _BINARY[self.text][0] > lowest:
            rank, apply = _BINARY[self.step()]
            left = _joined(apply, left, self.binary(rank, depth + 1))
        return left

    def unary(self, depth: int) -> _Expression:
        self.left -= 1
        if depth > NESTING_MAX or self.left < 0:
            raise _OtherForm
        kind, text = self.kind, self.step()
        if kind == "number":
            return _number(text)
        if kind == "field":
            return self.value(text.removeprefix("REC->"))
        if kind == "mark" and text in _UNARY:
            return _joined(lambda _, value: _UNARY[text](value), 0, self.unary(depth + 1))
        if kind != "mark" or text != "(":
            raise _OtherForm
        if self.kind == "name":
            return self.cast(depth)
        whole = self.binary(0, depth + 1)
        self.expect(")")
        return whole

    def value(self, name: str) -> _Function:
        if self.field not in (None, name):
            raise _OtherForm
        self.field = name
        return lambda value: value

    def cast(self, depth: int) -> _Expression:
        words = []
        while self.kind == "name":
            words.append(self.step())
        self.expect(")")
        return _joined(operator.and_, _CASTS.get(words[-1], _WORD), self.unary(depth + 1))


def _number(text: str) -> int:
    base = 16 if text[:2] in ("0x", "0X") else 8 if text.startswith("0") else 10
    try:
        return int(text, base) & _WORD
    except ValueError:
        raise _OtherForm from None


def _joined(apply: Callable[[int, int], int], left: _Expression, right: _Expression) -> _Expression:
    if isinstance(left, int):
        if isinstance(right, int):
            return apply(left, right) & _WORD
        return lambda value: apply(left, right(value)) & _WORD
    if isinstance(right, int):
        return lambda value: apply(left(value), right) & _WORD
    return lambda value: apply(left(value), right(value)) & _WORD
