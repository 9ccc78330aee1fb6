"""The tables of names in print formats."""

import time

import pytest

from consumers.decode.ftrace_print import tables

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


def test_a_constant_of_any_depth_and_value_is_computed():
    (names,) = tables(
        '__print_symbolic(REC->a, { 1 << 200, "a" }, { 7 / 0, "b" }, { 5 % 0, "c" }, { 0xffffffffffffffff + 2, "d" }, { (u8) 0x1ff, "e" })'
    )
    assert [value for value, _ in names.values] == [0, 0, 0, 1, 255]
