"""Expressions of C over one field of an event, as print formats have them: what they make of the field's value.

An expression is read from the left into a function. It may come from anybody, so its length and its depth have limits,
and what is of another form raises `OtherForm`.

Source: C11, 6.3.1 (conversions), 6.4.4.1 (constants), 6.5 (operators).
"""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

#: Most levels of parentheses; the deepest of a kernel are far below.
NESTING_MAX: Final = 64
#: The bits on which a term depends, where it depends on all.
ALL_BITS: Final = -1
_TOKEN: Final = re.compile(
    r'\s{0,80}(?:(?P<number>(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})[uUlL]{0,3})|(?P<text>"(?:[^"\\]|\\.){0,512}")'
    r"|(?P<field>REC->\w{1,128})|(?P<name>\w{1,128})|(?P<mark><<|>>|[=!<>]=|\S))"
)
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

    def holds(self, other: "CType") -> bool:
        """Tell whether every value of the other type is one of this type."""
        if self.signed == other.signed:
            return self.bits >= other.bits
        return self.signed and self.bits > other.bits


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

Function = Callable[[int], int]


class OtherForm(Exception):  # noqa: N818 - it never leaves what reads print formats
    """The text is not of the form that is read."""


class Term(NamedTuple):
    """An expression's type, and what it makes of the field's value x; a number where it holds no field.

    It is the same for all x with the same `bits`; where `shift` is not None, it is (x & bits) >> shift.
    """

    type: CType
    value: int | Function
    bits: int = 0
    shift: int | None = None

    def to(self, type_: CType) -> "Term":
        """Return it converted to another type."""
        value = self.value
        if isinstance(value, int):
            return Term(type_, type_.wrap(value))
        if type_ == self.type:
            return self
        shift = self.shift if type_.holds(self.type) else None
        return Term(type_, lambda x: type_.wrap(value(x)), self.bits, shift)

    def promoted(self) -> "Term":
        """Return it as operators take it."""
        return self.to(_INT) if self.type.bits < _INT.bits else self


class Parser:
    """A text from `at` on, read from the left: `kind` and `text` are the token at hand, which begins at `began`.

    `types` has the fields that may be in it, of which `field` is the one that was.
    """

    def __init__(self, source: str, at: int, types: Mapping[str, CType], long_bits: int) -> None:
        self.source, self.at, self.began = source, at, at
        self._types, self._long_bits = types, long_bits
        self.field: str | None = None
        self._left = 0
        self.kind = self.text = ""
        self.step()

    def step(self) -> str:
        """Go to the next token, and return the text of this one."""
        taken, self.began = self.text, self.at
        match = _TOKEN.match(self.source, self.at)
        if match is None:
            self.kind = self.text = ""
        else:
            self.kind, self.at = match.lastgroup or "", match.end()
            self.text = match[self.kind]
        return taken

    def expect(self, mark: str) -> None:
        """Go behind `mark`, which must be at hand."""
        if self.text != mark or self.kind == "text":
            raise OtherForm
        self.step()

    def string(self) -> str:
        """Return the string at hand, and go behind it."""
        if self.kind != "text":
            raise OtherForm
        parts = []
        while self.kind == "text":
            parts.append(re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), self.step()[1:-1]))
        return "".join(parts)

    def expression(self, operands_max: int) -> Term:
        """Return the expression at hand, of at most so many operands, and go behind it."""
        self._left = operands_max
        return self._binary(0, 0)

    def operand(self, operands_max: int) -> Term:
        """Return the operand at hand, which has at most so many within it, and go behind it."""
        self._left = operands_max
        return self._unary(0)

    def _binary(self, lowest: int, depth: int) -> Term:
        left = self._unary(depth)
        while self.kind == "mark" and self.text in _BINARY and _BINARY[self.text][0] > lowest:
            mark = self.step()
            left = _joined(mark, left, self._binary(_BINARY[mark][0], depth + 1))
        return left

    def _unary(self, depth: int) -> Term:
        self._left -= 1
        if depth > NESTING_MAX or self._left < 0:
            raise OtherForm
        kind, text = self.kind, self.step()
        if kind == "number":
            return self._number(text)
        if kind == "field":
            return self._value(text.removeprefix("REC->"))
        if kind == "mark" and text in _UNARY:
            return _applied(_UNARY[text], self._unary(depth + 1).promoted())
        if kind != "mark" or text != "(":
            raise OtherForm
        if self.kind == "name":
            return self._cast(depth)
        whole = self._binary(0, depth + 1)
        self.expect(")")
        return whole

    def _value(self, name: str) -> Term:
        if self.field not in (None, name) or name not in self._types:
            raise OtherForm
        self.field = name
        return Term(self._types[name], lambda value: value, ALL_BITS, 0)

    def _cast(self, depth: int) -> Term:
        words = []
        while self.kind == "name":
            words.append(self.step())
        self.expect(")")
        inner = self._unary(depth + 1)
        type_ = self._named([word for word in words if word not in ("const", "volatile", "__force", "enum")])
        return inner if type_ is None else inner.to(type_)

    # `unsigned long`, `u8`, and whatever else stands for an integer type.
    def _named(self, words: list[str]) -> CType | None:
        if len(words) == 1 and words[0] in _TYPES:
            return _TYPES[words[0]]
        if not words or not set(words) <= {"unsigned", "signed", "char", "short", "int", "long"}:
            return None
        longs = words.count("long")
        bits = (
            64 if longs == 2 else self._long_bits if longs else 8 if "char" in words else 16 if "short" in words else 32
        )
        return CType(bits, "unsigned" not in words)

    # The first type of C's list that holds it: decimal ones are signed unless they say otherwise.
    def _number(self, text: str) -> Term:
        digits = text.rstrip("uUlL")
        suffix = text[len(digits) :].lower()
        base = 16 if digits[:2] in ("0x", "0X") else 8 if digits.startswith("0") else 10
        try:
            value = int(digits, base)
        except ValueError:
            raise OtherForm from None
        least = 64 if "ll" in suffix else self._long_bits if "l" in suffix else 32
        signs = (False,) if "u" in suffix else (True,) if base == 10 else (True, False)
        fitting = (CType(bits, sign) for bits in (32, 64) if bits >= least for sign in signs)
        type_ = next((each for each in fitting if each.wrap(value) == value), CType(64, False))
        return Term(type_, type_.wrap(value))


def _applied(apply: Callable[[int], int], of: Term) -> Term:
    type_, value, *_ = of
    if isinstance(value, int):
        return Term(type_, type_.wrap(apply(value)))
    return Term(type_, lambda x: type_.wrap(apply(value(x))), of.bits)


def common(left: CType, right: CType) -> CType:
    """Return the type in which operators take two operands, both promoted (C11, 6.3.1.8)."""
    bits = max(left.bits, right.bits)
    return CType(bits, all(each.signed for each in (left, right) if each.bits == bits))


# Of a shift the type is that of what is shifted.
def _joined(mark: str, left: Term, right: Term) -> Term:
    left, right = left.promoted(), right.promoted()
    given, type_ = (left, right), left.type
    if mark not in _SHIFTS:
        type_ = common(left.type, right.type)
        left, right = left.to(type_), right.to(type_)
    apply = _BINARY[mark][1]
    a, b = left.value, right.value
    if isinstance(a, int):
        if isinstance(b, int):
            return Term(type_, type_.wrap(apply(a, b)))
        return Term(type_, lambda x: type_.wrap(apply(a, b(x))), *_looked_at(mark, given[1], a))
    if isinstance(b, int):
        if mark == ">>" and left.shift is not None and 0 <= b < type_.bits:
            shift = left.shift + b
            return Term(type_, lambda x: a(x) >> b, left.bits & ALL_BITS << shift, shift)
        return Term(type_, lambda x: type_.wrap(apply(a(x), b)), *_looked_at(mark, given[0], b))
    return Term(type_, lambda x: type_.wrap(apply(a(x), b(x))), left.bits | right.bits)


# The bits and the shift of `term`, joined with a constant. Of what a mask leaves it does not matter that the term was
# converted to the mask's type before: both have those bits.
def _looked_at(mark: str, term: Term, constant: int) -> tuple[int, int | None]:
    if term.shift is not None and mark == "&":
        return term.bits & (constant << term.shift), term.shift
    return term.bits, None
