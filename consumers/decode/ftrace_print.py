"""The tables of names in an event's `print fmt`: `__print_symbolic` and `__print_flags`, and what they are applied to.

A print fmt is C text. Only what names a field's values is read of it: the expression over one field, a constant
expression for each value, and the strings. What is of another form is skipped: it is help for readers, the values
themselves are in the columns.

Source: include/trace/stages/stage3_trace_output.h, kernel/trace/trace_output.c (`trace_print_flags_seq`,
`trace_print_symbols_seq`: `unsigned long` and, of `_u64`, `unsigned long long`).
"""

import operator
import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final, NamedTuple

#: Most tables in one event, entries in one table, operands of a constant and of what a table is applied to, and
#: levels of parentheses. The longest of a kernel are far below each.
TABLES_MAX: Final = 16
ENTRIES_MAX: Final = 1024
CONSTANT_OPERANDS_MAX: Final = 512
OPERANDS_MAX: Final = 64
NESTING_MAX: Final = 64
#: A longer text has no value; each flag adds to it, and a field may have thousands of values.
NAME_CHARS_MAX: Final = 1024
_TOKEN: Final = re.compile(
    r'\s{0,80}(?:(?P<number>(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})[uUlL]{0,3})|(?P<text>"(?:[^"\\]|\\.){0,512}")'
    r"|(?P<field>REC->\w{1,128})|(?P<name>\w{1,128})|(?P<mark><<|>>|\S))"
)
_CALL: Final = re.compile(r"\b__print_(symbolic|flags)(_u64)?\(")
# The kernel's own loops end at an entry without a name.
_NULL: Final = re.compile(r"\s{0,80}(?:NULL|0|\(\(void \*\)0\))(?=\s{0,80}\})")
_ESCAPES: Final = {"n": "\n", "t": "\t"}


class CType(NamedTuple):
    """An integer type of C on the machine that is observed; of one bit it is bool."""

    bits: int
    signed: bool

    def wrap(self, value: int) -> int:
        """Return what an object of this type holds after `value` was assigned to it."""
        if self.bits == 1:
            return int(value != 0)
        value &= (1 << self.bits) - 1
        return value - (1 << self.bits) if self.signed and value >> (self.bits - 1) else value


_INT: Final = CType(32, True)
# Of casts, beside those to the words of C; what is not here is taken for a cast that changes nothing.
_TYPES: Final[Mapping[str, CType]] = {
    **{f"{prefix}u{bits}": CType(bits, False) for prefix in ("", "__") for bits in (8, 16, 32, 64)},
    **{f"{prefix}s{bits}": CType(bits, True) for prefix in ("", "__") for bits in (8, 16, 32, 64)},
    **{f"uint{bits}_t": CType(bits, False) for bits in (8, 16, 32, 64)},
    **{f"int{bits}_t": CType(bits, True) for bits in (8, 16, 32, 64)},
    **dict.fromkeys(("gfp_t", "blk_opf_t", "dev_t", "uid_t", "gid_t"), CType(32, False)),
    "pid_t": _INT,
    **dict.fromkeys(("bool", "_Bool"), CType(1, False)),
}


# Towards zero.
def _quotient(a: int, b: int) -> int:
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


# How tightly each binds, and what it does to two numbers of one type.
_BINARY: Final[Mapping[str, tuple[int, Callable[[int, int], int]]]] = {
    "|": (1, operator.or_),
    "^": (2, operator.xor),
    "&": (3, operator.and_),
    "<<": (4, lambda a, b: a << b if 0 <= b < 64 else 0),
    ">>": (4, lambda a, b: a >> b if 0 <= b < 64 else 0),
    "+": (5, operator.add),
    "-": (5, operator.sub),
    "*": (6, operator.mul),
    "/": (6, _quotient),
    "%": (6, lambda a, b: a - b * _quotient(a, b)),
}
_SHIFTS: Final = ("<<", ">>")
_UNARY: Final[Mapping[str, Callable[[int], int]]] = {"-": operator.neg, "~": operator.invert, "+": operator.pos}

_Function = Callable[[int], int]


class _OtherForm(Exception):  # noqa: N818 - it never leaves this module
    """The text is not of the form that is read."""


class _Term(NamedTuple):
    # An expression's type, and what it makes of the field's value; a number where it holds no field.
    type: CType
    value: int | _Function

    def to(self, type_: CType) -> "_Term":
        value = self.value
        if isinstance(value, int):
            return _Term(type_, type_.wrap(value))
        return self if type_ == self.type else _Term(type_, lambda x: type_.wrap(value(x)))

    def promoted(self) -> "_Term":
        return self.to(_INT) if self.type.bits < _INT.bits else self


class Names:
    """One table: what the values of `field` are called.

    `flags`: the bits are named, with `delimiter` between them and `empty` where none is set; else whole values are.
    `apply` makes of the field's value the number that `values` name, in the kernel's order. `cost` is how many entries
    are looked at to name a value.
    """

    __slots__ = ("_apply", "_by_value", "_delimiter", "_empty", "_values", "cost", "field", "flags")

    def __init__(
        self, field: str, apply: _Function, values: list[tuple[int, str]], flags: tuple[str, str] | None
    ) -> None:
        self.field, self.flags = field, flags is not None
        self.cost = len(values) if flags else 1
        self._apply, self._values = apply, values
        self._delimiter, self._empty = flags or ("", "")
        self._by_value = {} if flags else dict(reversed(values))  # of several the first

    def name(self, value: int) -> str | None:
        """Return what the kernel calls `value`; None where its table names it not (the kernel prints a number)."""
        found = self._apply(value)
        if not self.flags:
            return self._by_value.get(found)
        if found == 0:
            return self._empty
        parts = []
        for mask, name in self._values:
            if found and found & mask == mask:
                parts.append(name)
                found &= ~mask
        if found:
            parts.append(f"{found:#x}")
        text = self._delimiter.join(parts)
        return text if len(text) <= NAME_CHARS_MAX else None


def tables(print_fmt: str, types: Mapping[str, CType], long_bytes: int = 8) -> list[Names]:
    """Return the tables of one print fmt in its order; those of another form are left out.

    `types` has the fields whose values may have names; a `long` has `long_bytes`.
    """
    found = []
    for call in islice(_CALL.finditer(print_fmt), TABLES_MAX):
        parser = _Parser(print_fmt, call.end(), types, 8 * long_bytes)
        try:
            found.append(parser.table(call[1] == "flags", CType(64 if call[2] else 8 * long_bytes, False)))
        except _OtherForm:
            continue
    return found


class _Parser:
    """One call's arguments, read from the left; `kind` and `text` are the token at hand, which begins at `began`."""

    def __init__(self, source: str, at: int, types: Mapping[str, CType], long_bits: int) -> None:
        self.source, self.at, self.began = source, at, at
        self.types, self.long_bits = types, long_bits
        self.field: str | None = None
        self.left = 0
        self.kind = self.text = ""
        self.step()

    def step(self) -> str:
        taken, self.began = self.text, self.at
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

    def table(self, flags: bool, word: CType) -> Names:
        apply = self.expression(OPERANDS_MAX).to(word).value
        if isinstance(apply, int) or self.field is None:
            raise _OtherForm
        delimiter = ""
        if flags:
            self.expect(",")
            delimiter = self.string()
        values: list[tuple[int, str]] = []
        ended = False
        while self.text == ",":
            self.step()
            self.expect("{")
            value = self.expression(CONSTANT_OPERANDS_MAX).to(word).value
            self.expect(",")
            if not isinstance(value, int) or len(values) == ENTRIES_MAX:
                raise _OtherForm
            ended = ended or self.null()
            if not ended:
                values.append((value, self.string()))
            elif self.kind == "text":
                self.string()
            else:
                self.null()
            self.expect("}")
        if self.text != ")" or not values:
            raise _OtherForm
        return Names(self.field, apply, values, (delimiter, self.otherwise()) if flags else None)

    def null(self) -> bool:
        match = _NULL.match(self.source, self.began)
        if match is not None:
            self.at = match.end()
            self.step()
        return match is not None

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

    def expression(self, operands_max: int) -> _Term:
        self.left = operands_max
        return self.binary(0, 0)

    def binary(self, lowest: int, depth: int) -> _Term:
        left = self.unary(depth)
        while self.kind == "mark" and self.text in _BINARY and _BINARY[self.text][0] > lowest:
            mark = self.step()
            left = _joined(mark, left, self.binary(_BINARY[mark][0], depth + 1))
        return left

    def unary(self, depth: int) -> _Term:
        self.left -= 1
        if depth > NESTING_MAX or self.left < 0:
            raise _OtherForm
        kind, text = self.kind, self.step()
        if kind == "number":
            return self.number(text)
        if kind == "field":
            return self.value(text.removeprefix("REC->"))
        if kind == "mark" and text in _UNARY:
            return _applied(_UNARY[text], self.unary(depth + 1).promoted())
        if kind != "mark" or text != "(":
            raise _OtherForm
        if self.kind == "name":
            return self.cast(depth)
        whole = self.binary(0, depth + 1)
        self.expect(")")
        return whole

    def value(self, name: str) -> _Term:
        if self.field not in (None, name) or name not in self.types:
            raise _OtherForm
        self.field = name
        return _Term(self.types[name], lambda value: value)

    def cast(self, depth: int) -> _Term:
        words = []
        while self.kind == "name":
            words.append(self.step())
        self.expect(")")
        inner = self.unary(depth + 1)
        type_ = self.named([word for word in words if word not in ("const", "volatile", "__force", "enum")])
        return inner if type_ is None else inner.to(type_)

    # `unsigned long`, `u8`, and whatever else stands for an integer type.
    def named(self, words: list[str]) -> CType | None:
        if len(words) == 1 and words[0] in _TYPES:
            return _TYPES[words[0]]
        if not words or not set(words) <= {"unsigned", "signed", "char", "short", "int", "long"}:
            return None
        longs = words.count("long")
        bits = (
            64 if longs == 2 else self.long_bits if longs else 8 if "char" in words else 16 if "short" in words else 32
        )
        return CType(bits, "unsigned" not in words)

    # The first type of C's list that holds it: decimal ones are signed unless they say otherwise.
    def number(self, text: str) -> _Term:
        digits = text.rstrip("uUlL")
        suffix = text[len(digits) :].lower()
        base = 16 if digits[:2] in ("0x", "0X") else 8 if digits.startswith("0") else 10
        try:
            value = int(digits, base)
        except ValueError:
            raise _OtherForm from None
        least = 64 if "ll" in suffix else self.long_bits if "l" in suffix else 32
        signs = (False,) if "u" in suffix else (True,) if base == 10 else (True, False)
        fitting = (CType(bits, sign) for bits in (32, 64) if bits >= least for sign in signs)
        type_ = next((each for each in fitting if each.wrap(value) == value), CType(64, False))
        return _Term(type_, type_.wrap(value))


def _applied(apply: Callable[[int], int], of: _Term) -> _Term:
    type_, value = of
    if isinstance(value, int):
        return _Term(type_, type_.wrap(apply(value)))
    return _Term(type_, lambda x: type_.wrap(apply(value(x))))


# The usual arithmetic conversions (C11, 6.3.1.8); of a shift the type is that of what is shifted.
def _joined(mark: str, left: _Term, right: _Term) -> _Term:
    left, right = left.promoted(), right.promoted()
    type_ = left.type
    if mark not in _SHIFTS:
        bits = max(left.type.bits, right.type.bits)
        type_ = CType(bits, all(each.signed for each in (left.type, right.type) if each.bits == bits))
        left, right = left.to(type_), right.to(type_)
    apply = _BINARY[mark][1]
    a, b = left.value, right.value
    if isinstance(a, int):
        if isinstance(b, int):
            return _Term(type_, type_.wrap(apply(a, b)))
        return _Term(type_, lambda x: type_.wrap(apply(a, b(x))))
    if isinstance(b, int):
        return _Term(type_, lambda x: type_.wrap(apply(a(x), b)))
    return _Term(type_, lambda x: type_.wrap(apply(a(x), b(x))))
