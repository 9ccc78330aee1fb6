"""The tables of names in print formats."""

import random
import time

import numpy as np
import pytest

from consumers.decode import ftrace_print
from consumers.decode.ftrace_expression import CType
from consumers.decode.ftrace_names import masked
from consumers.decode.ftrace_print import Names
from consumers.decode.ftrace_print import tables as read

FIELDS = dict.fromkeys(("vec", "prev_state", "f", "prio", "a", "b"), CType(64, True))


def tables(text, long_bytes=8, **types):
    return read(text, {**FIELDS, **{name: CType(*kind) for name, kind in types.items()}}, long_bytes)


SCHED = (
    '"%s", (REC->prev_state & ((((0x00000000 | 0x00000001 | 0x00000002) + 1) << 1) - 1)) ? __print_flags(REC->prev_state '
    '& ((((0x00000000 | 0x00000001 | 0x00000002) + 1) << 1) - 1), "|", { 0x00000001, "S" }, { 0x00000002, "D" }) : "R"'
)


def test_symbols():
    (names,) = tables(
        '"%s", __print_symbolic(REC->vec, { 0, "HI" }, { -1, "NONE" }, {( unsigned long)(( gfp_t)((((1UL))) << (2))), "FOUR" })'
    )
    assert (names.field, names.flags) == ("vec", False)
    assert [names.name(value) for value in (0, -1, 4, 1)] == ["HI", "NONE", "FOUR", None]


def test_flags_as_the_kernel_prints_them():
    (names,) = tables(
        '__print_flags((unsigned long)REC->f, "|", { (1u << 0), "A" }, { 6, "B" "C" }, { 0x10UL, "say \\"x\\"" })'
    )
    assert [names.name(value) for value in (0, 1, 6, 2, 7, 0x31)] == ["", "A", "BC", "0x2", "A|BC", 'A|say "x"|0x20']


def test_a_mask_and_what_stands_for_no_flag():
    (names,) = tables(SCHED)
    assert [names.name(value) for value in (0, 1, 3, 256)] == ["R", "S", "S|D", "R"]


def test_expressions_over_one_field():
    (names,) = tables('__print_symbolic((((REC->prio) >> 13) & (8 - 1)), { 1, "rt" }, { 2, "be" })')
    assert [names.name(value) for value in (1 << 13, 2 << 13 | 7, 0)] == ["rt", "be", None]
    (names,) = tables('__print_flags(REC->a & ~0xffff, " ", { 0x10000, "X" })')
    assert names.name(0x1FFFF) == "X"


@pytest.mark.parametrize(
    "text",
    [
        '__print_symbolic(2ULL, { 1, "a" })',
        '__print_symbolic(REC->a + REC->b, { 1, "a" })',
        '__print_symbolic(REC->a, { REC->b, "a" })',
        "__print_symbolic(REC->a)",
        "__print_symbolic(REC->a, { 1, NULL })",
        '__print_symbolic(REC->unknown, { 1, "a" })',
        '__print_symbolic(REC->a, { 09, "a" })',
        '__print_flags(REC->a ? REC->a : 0, "", { 1, "a" })',
        "__print_flags(",
        '__print_flags(REC->a, "|", { 1, "a"',
        "__print_symbolic(" + "(" * 5000 + "REC->a",
        "__print_symbolic(" + "-" * 5000 + "REC->a",
        "__print_symbolic(REC->a" + " + 1" * 5000 + ', { 1, "a" })',
    ],
)
def test_other_forms_are_left_out(text):
    assert tables(text) == []


def test_a_good_table_behind_a_bad_one_is_read():
    assert [
        names.field for names in tables('__print_symbolic(1, { 1, "a" }), __print_symbolic(REC->b, { 1, "b" })')
    ] == ["b"]


def test_hostile_text_takes_no_time():
    start = time.process_time()
    for text in (
        '__print_flags(REC->a, "' * 10_000,
        "__print_flags(" * 15_000,
        '__print_flags(REC->a, "|"' + ', { 1, "a" }' * 20_000,
        " " * 200_000,
    ):
        tables(text)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("1 << 200", 0), ("7 / 0", 0), ("5 % 0", 5), ("0xffffffffffffffff + 2", 1), ("(u8) 0x1ff", 255),
        ("-7 / 2", -3), ("-7 % 2", -1), ("-8 >> 1", -4), ("~0U", 0xFFFFFFFF), ("~0", -1), ("1 << 31", -(1 << 31)),
        ("1U << 31", 1 << 31), ("0x80000000", 1 << 31), ("(int)0xffffffff", -1), ("(unsigned int)-1", 0xFFFFFFFF),
        ("-1 + 0U", 0xFFFFFFFF), ("(unsigned char)300", 44), ("(( gfp_t)-1)", 0xFFFFFFFF), ("(enum x)3", 3),
        ("~0UL", -1), ("4294967296", 1 << 32), ("(s16)0x8000", -32768),
        ("(bool)0x100", 1), ("(unsigned short int)0x12345", 0x2345), ("(short)0xffff", -1),
    ],
)  # fmt: skip
def test_a_constant_is_what_c_makes_of_it(constant, value):
    (names,) = tables(f'__print_symbolic(REC->a, {{ {constant}, "x" }})')
    assert names.name(value) == "x"
    assert names.name(value + 1) is None


@pytest.mark.parametrize(
    ("text", "long_bytes", "kind", "value", "name"),
    [
        ('__print_symbolic(REC->a, { -1, "none" })', 4, (32, False), 0xFFFFFFFF, "none"),
        ('__print_symbolic(REC->a, { 0xffffffff, "all" })', 4, (32, True), -1, "all"),
        ('__print_symbolic(REC->a, { 0xffffffff, "all" })', 8, (32, True), -1, None),
        ('__print_symbolic_u64(REC->a, { -1, "none" })', 4, (64, False), (1 << 64) - 1, "none"),
        ('__print_flags(REC->a, "|", { 1, "x" })', 4, (32, True), -2, "0xfffffffe"),
        ('__print_flags(REC->a, "|", { (1 << 31), "hi" })', 8, (32, True), -(1 << 31), "hi"),
        ('__print_flags(REC->a, "|", { (1 << 31), "hi" })', 8, (32, False), 1 << 31, "0x80000000"),
        ('__print_symbolic(REC->a >> 1, { -2, "x" })', 8, (32, True), -4, "x"),
        ('__print_symbolic(REC->a + 1, { 256, "x" })', 8, (8, False), 255, "x"),
    ],
)
def test_widths_and_signs_are_those_of_the_machine_that_is_observed(text, long_bytes, kind, value, name):
    (names,) = tables(text, long_bytes, a=kind)
    assert names.name(value) == name


@pytest.mark.parametrize("null", ["((void *)0)", "NULL", "0"])
def test_an_entry_without_a_name_ends_its_table(null):
    entries = f'{{ 1, "a" }}, {{ -1, {null} }}, {{ 2, "b" }}, {{ 0, {null} }}'
    (names,) = tables(f"__print_symbolic(REC->a, {entries})")
    assert [names.name(value) for value in (1, 2, -1)] == ["a", None, None]
    (names,) = tables(f'REC->a ? __print_flags(REC->a, "|", {entries}) : "R"')
    assert [names.name(value) for value in (0, 3)] == ["R", "a|0x2"]


def test_a_name_has_a_limit_and_a_table_costs_what_it_looks_at():
    flags = [(1 << bit, str(bit) * 100) for bit in range(20)]
    names = Names("a", lambda value: value, flags, ("|", ""))
    assert len(names.name(0xFF)) == 807
    assert names.name(0xFFFFF) is None
    assert (names.cost, Names("a", lambda value: value, flags, None).cost) == (20, 1)


@pytest.mark.parametrize(
    ("applied", "kind", "bits"),
    [
        ("REC->a", (32, False), -1),
        ("REC->a & 6", (32, False), 6),
        ("(unsigned long)REC->a & ((u32)(1UL << 31))", (32, False), 1 << 31),
        ("REC->a & ~0xffff", (32, True), ~0xFFFF),
        ("((REC->a) >> 13) & (8 - 1)", (16, False), 7 << 13),
        ("(REC->a & 0xff00) >> 8", (64, True), 0xFF00),
        ("REC->a >> 22", (32, False), -1 << 22),
        ("(REC->a & 6) + 1", (8, True), 6),
        ("(REC->a & 6) | (REC->a & 0x30)", (8, True), 0x36),
        ("REC->a & 6U", (32, True), 6),
        ("(u8)(REC->a >> 4)", (32, True), -1 << 4),
    ],
)
def test_the_bits_that_a_table_looks_at(applied, kind, bits):
    (names,) = tables(f'__print_symbolic({applied}, {{ 1, "x" }})', a=kind)
    assert names.bits == bits


def expression(random_, depth):
    if depth == 0:
        return "REC->a"
    inner = expression(random_, depth - 1)
    number = random_.choice(("1", "7", "0xff00", "~0xffff", "-1", "13", "0x80000000", "(1UL << 40)", "31", "0xffU"))
    cast = random_.choice(("u8", "s16", "int", "unsigned int", "unsigned long", "long", "bool", "u64"))
    mark = random_.choice(("&", "&", "&", ">>", ">>", "<<", "|", "+", "^", "/"))
    pair = random_.choice(((inner, number), (inner, number), (number, inner), (inner, expression(random_, depth - 1))))
    return random_.choice((f"(({cast})({inner}))", f"(~{inner})", *3 * (f"({pair[0]} {mark} {pair[1]})",)))


def test_values_of_the_same_bits_are_called_the_same():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    random_, narrower = random.Random(seed), 0
    for _ in range(3000):
        size, signed = random_.choice((1, 2, 4, 8)), random_.random() < 0.5
        found = tables(
            f'__print_flags({expression(random_, random_.randrange(1, 5))}, "|", {{ 0, "" }})', a=(8 * size, signed)
        )
        values = np.frombuffer(random_.randbytes(64 * size), f"{'i' if signed else 'u'}{size}")
        for names in found:
            narrower += names.bits != -1
            kept = masked(values, names.bits)
            assert kept.dtype == values.dtype
            assert [names.name(value) for value in kept.tolist()] == [names.name(value) for value in values.tolist()]
    assert narrower > 300


def test_texts_of_the_kernels_own_by_their_addresses():
    text = (
        '0xffffffff8281aa07 : "thaw_processes"\n'
        '0xffffffff8281aa10 : "a \\"b\\"\\n\\\\"\n'
        "0xffffffff8281aa20 : no quotes\n"
        'rubbish : "x"\n'
        '0xffffffff8281aa30 : ""'
    )
    assert ftrace_print.printk_texts(text) == {
        0xFFFFFFFF8281AA07: "thaw_processes",
        0xFFFFFFFF8281AA10: 'a "b"\n\\',
        0xFFFFFFFF8281AA30: "",
    }


@pytest.mark.parametrize(
    ("print_fmt", "shown"),
    [
        ('"%s", REC->s', ["s"]),
        ('"%ps: %s", (void *)REC->ip, REC->s', ["s"]),
        ('"%d %s %s", REC->n, REC->n ? REC->s : REC->t, REC->s', ["s", "t"]),
        ('"filename: 0x%08lx", ((unsigned long)(REC->s))', []),
        ('"%s", __get_str(s)', []),
    ],
)
def test_a_pointer_has_a_name_where_the_kernels_text_shows_what_it_points_at(print_fmt, shown):
    found = ftrace_print.pointed(print_fmt, ["s", "t"], {16: "text"})
    assert [names.field for names in found] == shown
    assert [names.name(value) for names in found for value in (16, 17)] == ["text", None] * len(shown)
    assert ftrace_print.pointed(print_fmt, ["s", "t"], {}) == []
