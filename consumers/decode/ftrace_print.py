"""The tables of names in an event's `print fmt`: `__print_symbolic` and `__print_flags`, and what they are applied to.

A print fmt is C text. Only what names a field's values is read of it: the expression over one field, a constant
expression for each value, and the strings; and where a table is chosen by `?:`, on which condition. What is of another
form is skipped: it is help for readers, the values themselves are in the columns.

Source: include/trace/stages/stage3_trace_output.h, kernel/trace/trace_output.c (`trace_print_flags_seq`,
`trace_print_symbols_seq`: `unsigned long` and, of `_u64`, `unsigned long long`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple

from consumers.decode import ftrace_branches
from consumers.decode.ftrace_branches import BRANCHES_MAX, Branch, Condition
from consumers.decode.ftrace_expression import ALL_BITS, CType, Function, OtherForm, Parser

#: Most tables in one event, entries in one table, and operands of a constant and of what a table is applied to. The
#: longest of a kernel are far below each.
TABLES_MAX: Final = 16
ENTRIES_MAX: Final = 1024
CONSTANT_OPERANDS_MAX: Final = 512
OPERANDS_MAX: Final = 64
#: Most conditions of all tables of one event.
CONDITIONS_MAX: Final = 16
#: A longer text has no value; each flag adds to it, and a field may have thousands of values.
NAME_CHARS_MAX: Final = 1024
# An argument that is a field as it is, or what `?:` chooses of two.
_SHOWN: Final = re.compile(r"[,?:]\s*REC->(\w+)\s*(?=[,:]|$)")
_PRINTK: Final = re.compile(r"^0x([0-9a-fA-F]{1,16}) : \"(.{0,1024})\"$", re.MULTILINE)
_ESCAPED: Final = re.compile(r"\\(.)")
_UNESCAPED: Final = {"n": "\n", "t": "\t"}
_CALL: Final = re.compile(r"\b__print_(symbolic|flags)(_u64)?\(")
# The kernel's own loops end at an entry without a name.
_NULL: Final = re.compile(r"\s{0,80}(?:NULL|0|\(\(void \*\)0\))(?=\s{0,80}\})")


class Names:
    """One table: what the values of `field` are called.

    `flags`: the bits are named, with `delimiter` between them and `empty` where none is set; else whole values are.
    `apply` makes of the field's value the number that `values` name, in the kernel's order. `cost` is how many entries
    are looked at to name a value. Values that have the same `bits` are called the same.
    """

    __slots__ = ("_apply", "_by_value", "_delimiter", "_values", "bits", "cost", "empty", "field", "flags")

    def __init__(
        self,
        field: str,
        apply: Function,
        values: list[tuple[int, str]],
        flags: tuple[str, str] | None,
        bits: int = ALL_BITS,
        by_value: Mapping[int, str] | None = None,
    ) -> None:
        self.field, self.flags, self.bits = field, flags is not None, bits
        self.cost = len(values) if flags else 1
        self._apply, self._values = apply, values
        self._delimiter, self.empty = flags or ("", "")
        # Of several the first.
        self._by_value = ({} if flags else dict(reversed(values))) if by_value is None else by_value

    def name(self, value: int) -> str | None:
        """Return what the kernel calls `value`; None where its table names it not (the kernel prints a number)."""
        found = self._apply(value)
        if not self.flags:
            return self._by_value.get(found)
        if found == 0:
            return self.empty
        parts = []
        for mask, name in self._values:
            if found and found & mask == mask:
                parts.append(name)
                found &= ~mask
        if found:
            parts.append(f"{found:#x}")
        text = self._delimiter.join(parts)
        return text if len(text) <= NAME_CHARS_MAX else None


class Choice(NamedTuple):
    """Tables of one field, of which a row has the first whose conditions hold in it; no name where none does."""

    field: str
    tables: list[tuple[list[Condition], Names]]

    def tested(self) -> set[str]:
        """Return the fields that conditions are about."""
        return {each.field for conditions, _ in self.tables for each in conditions}


def tables(print_fmt: str, types: Mapping[str, CType], long_bytes: int = 8) -> list[Names | Choice]:
    """Return the tables of one print fmt in its order; those of another form are left out.

    `types` has the fields whose values may have names; a `long` has `long_bytes`. Tables of one field between which one
    `?:` chooses are one choice. Where a condition cannot be read there are no names by it, but for one about the field
    itself: its values are called the same wherever they are called something.
    """
    calls = list(islice(_CALL.finditer(print_fmt), TABLES_MAX))
    found: list[tuple[Names, list[Branch]]] = []
    for call, branches in zip(calls, ftrace_branches.around(print_fmt, [each.start() for each in calls]), strict=True):
        parser = Parser(print_fmt, call.end(), types, 8 * long_bytes)
        try:
            names = _table(parser, CType(64 if call[2] else 8 * long_bytes, False), flags=call[1] == "flags")
        except OtherForm:
            continue
        found.append((names, branches))
    return _chosen(print_fmt, found, types, 8 * long_bytes)


def pointed(print_fmt: str, pointers: Iterable[str], texts: Mapping[int, str]) -> list[Names]:
    """Return the names of those of the fields `pointers` that are shown as the text that they point at.

    `texts` has the constant ones of the kernel by their addresses.
    """
    shown = set(_SHOWN.findall(print_fmt)) if texts else set()
    return [Names(name, lambda value: value, [], None, by_value=texts) for name in pointers if name in shown]


def printk_texts(printk_formats: str) -> dict[int, str]:
    """Return what the text of `printk_formats` says; lines of another form are left out.

    Source: kernel/trace/trace_printk.c (`t_show`).
    """
    found = {}
    for address, text in _PRINTK.findall(printk_formats):
        found[int(address, 16)] = _ESCAPED.sub(lambda match: _UNESCAPED.get(match[1], match[1]), text)
    return found


def _chosen(
    print_fmt: str, found: list[tuple[Names, list[Branch]]], types: Mapping[str, CType], long_bits: int
) -> list[Names | Choice]:
    together = Counter((names.field, branches[0].at) for names, branches in found if branches)
    known: list[Names | Choice] = []
    choices: dict[tuple[str, int], Choice] = {}
    left = CONDITIONS_MAX
    for names, branches in found:
        # What stands for no flag is the other branch of a condition on the flags.
        alone = names.flags and bool(branches) and together[names.field, branches[0].at] == 1
        conditions = [_condition(print_fmt, names.field, branch, types, long_bits, alone=alone) for branch in branches]
        own = [each for each in conditions if isinstance(each, Condition)]
        if None in conditions or len(branches) > BRANCHES_MAX or len(own) > left:
            continue
        left -= len(own)
        if not own:
            known.append(names)
            continue
        if conditions[-1] is not True:
            names.empty = ""
        key = names.field, branches[0].at
        if key not in choices:
            choices[key] = Choice(names.field, [])
            known.append(choices[key])
        choices[key].tables.append((own, names))
    return known


# None where it cannot be read. True, which is no condition, is one about the named field itself that cannot be read, or
# whose table is `alone`.
def _condition(
    print_fmt: str, field: str, branch: Branch, types: Mapping[str, CType], long_bits: int, *, alone: bool
) -> Condition | bool | None:
    condition = ftrace_branches.condition(print_fmt, branch, types, long_bits)
    if ftrace_branches.is_about(print_fmt, branch, field) and (alone or condition is None):
        return True
    return condition


# The arguments of one call, whose numbers are of the type `word`.
def _table(parser: Parser, word: CType, *, flags: bool) -> Names:
    term = parser.expression(OPERANDS_MAX).to(word)
    if isinstance(term.value, int) or parser.field is None:
        raise OtherForm
    delimiter = ""
    if flags:
        parser.expect(",")
        delimiter = parser.string()
    values: list[tuple[int, str]] = []
    ended = False
    while parser.text == ",":
        parser.step()
        parser.expect("{")
        value = parser.expression(CONSTANT_OPERANDS_MAX).to(word).value
        parser.expect(",")
        if not isinstance(value, int) or len(values) == ENTRIES_MAX:
            raise OtherForm
        ended = ended or _null(parser)
        if not ended:
            values.append((value, parser.string()))
        elif parser.kind == "text":
            parser.string()
        else:
            _null(parser)
        parser.expect("}")
    if parser.text != ")" or not values:
        raise OtherForm
    return Names(parser.field, term.value, values, (delimiter, _otherwise(parser)) if flags else None, term.bits)


def _null(parser: Parser) -> bool:
    match = _NULL.match(parser.source, parser.began)
    if match is not None:
        parser.at = match.end()
        parser.step()
    return match is not None


# `x ? __print_flags(...) : "R"`: what stands for no flag at all.
def _otherwise(parser: Parser) -> str:
    parser.step()
    if parser.text == ":":
        parser.step()
        if parser.kind == "text":
            return parser.string()
    return ""
