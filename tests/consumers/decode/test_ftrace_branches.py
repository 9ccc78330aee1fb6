"""Conditions by which a print fmt chooses between tables of names."""

import random
import struct
import time

import pytest

from consumers.decode import ftrace_format, ftrace_print
from consumers.decode.ftrace_branches import BRANCHES_MAX, Branch, around, condition, is_about
from consumers.decode.ftrace_events import PageRun, decode
from consumers.decode.ftrace_expression import CType
from consumers.decode.ftrace_print import Choice, Names, tables
from tests.consumers.decode.ftrace_writer import Form
from tests.consumers.decode.test_ftrace_events import event_text, stream
from tests.consumers.decode.test_ftrace_format import line

INT, UINT, LONG = CType(32, True), CType(32, False), CType(64, True)
TYPES = {"a": INT, "b": INT, "u": UINT, "l": LONG, "h": CType(16, False)}
ONE, TWO = '__print_symbolic(REC->a, { 1, "one" })', '__print_symbolic(REC->a & 0xff, { 1, "uno" }, { 2, "due" })'
FLAGS = '__print_flags(REC->a, "|", { 1, "x" }, { 2, "y" })'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("X", []),
        ('"a ? b : c", X', []),
        ("c ? X : y", [("c", True)]),
        ("c ? x : X", [("c", False)]),
        ("c ? x : y, X", []),
        ("c ? x : (y, X)", [("c", False)]),
        ("a ? b ? x : X : y", [("a", True), ("b", False)]),
        ("a ? b ? x : y : X", [("a", False)]),
        ("a ? x : b ? y : X", [("a", False), ("b", False)]),
        ("a ? x : b ? X : y", [("a", False), ("b", True)]),
        ("a ? (b ? x : y) : X", [("a", False)]),
        ("(a) + 1 ? X : y", [("(a) + 1", True)]),
        ('c ? "?:" "\\"?" : X', [("c", False)]),
        ("({ int i = 1 ? 2 : 3; X; })", []),
        ("f(c ? x : y) ? X : y", [("f(c ? x : y)", True)]),
        (") ] : c ? X", [("c", True)]),
    ],
)
def test_the_branches_around_a_place(text, wanted):
    (found,) = around(text, [text.index("X")])
    assert [(text[each.start : each.at].strip(), each.wanted) for each in found] == wanted


def test_several_places_of_one_text():
    text = "p ? X : Y, Z"
    found = around(text, [text.index(each) for each in "XYZ"])
    assert [[each.wanted for each in branches] for branches in found] == [[True], [False], []]
    assert around(text, []) == []


def whole(text):
    return Branch(0, len(text), wanted=True)


@pytest.mark.parametrize(
    ("text", "field", "bits", "type_", "relation", "constant"),
    [
        ("REC->a == 1", "a", -1, INT, "==", 1),
        ("((REC->a != 1))", "a", -1, INT, "!=", 1),
        ("REC->a < -4", "a", -1, INT, "<", -4),
        ("3 >= REC->a", "a", -1, INT, "<=", 3),
        ("REC->u < -1", "u", -1, UINT, "<", 0xFFFFFFFF),
        ("(long)REC->a > 0xffffffff", "a", -1, LONG, ">", 0xFFFFFFFF),
        ("REC->l", "l", -1, LONG, "!=", 0),
        ("!REC->h", "h", -1, INT, "==", 0),
        ("!(REC->a & 6)", "a", 6, INT, "==", 0),
        ("REC->a & (1 << 3)", "a", 8, INT, "!=", 0),
        ("(REC->u & 0xf0) == (0x10 | 0x20)", "u", 0xF0, UINT, "==", 0x30),
    ],
)
def test_a_condition(text, field, bits, type_, relation, constant):
    assert condition(text, whole(text), TYPES, 64) == (field, bits, type_, relation, constant, True)


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "1 == 1", "REC->a == REC->b", "REC->a == 1 && REC->b", "REC->a == 1 || 2", "!REC->a & 1", "REC->z == 1",
        "REC->a + 1 == 2", "(REC->a >> 1) == 2", "(u8)REC->a == 1", "REC->a == 1 == 1", '"a" == REC->a', "f(REC->a)",
        "__get_str(x)[0]", "REC->a ==", "REC->a" + " " * 2000, "(" * 500 + "REC->a" + ")" * 500,
    ],
)  # fmt: skip
def test_other_conditions_are_not_read(text):
    assert condition(text, whole(text), TYPES, 64) is None


def test_which_field_a_condition_is_about():
    for text, own in (
        ("REC->a > 1 && REC->a < 9", True),
        ("REC->a == REC->b", False),
        ("REC->b", False),
        ("1", False),
        ("REC->a && __get_dynamic_array_len(x)", False),
        ("REC->a" + " " * 2000, False),
    ):
        assert is_about(text, whole(text), "a") == own, text


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        (f"REC->b == 1 ? {ONE} : {TWO}", [2]),
        (f"REC->b == 1 ? {ONE} : {TWO}, REC->b == 1 ? {ONE} : 0", [2, 1]),
        (f"REC->b < 0 ? (REC->b == -4 ? 1 : 2) : {ONE}", [1]),
        (f"REC->a > 1 ? {ONE} : {TWO}", [2]),
        # Which is shown is not known.
        (f"REC->b == REC->u ? {ONE} : {TWO}", []),
        (f"REC->b == REC->u ? {ONE} : 0, {TWO}", [None]),
        (f"__get_str(b) ? {ONE} : 0", []),
        (f"REC->b ? REC->a == REC->b ? {ONE} : 0 : {TWO}", [1]),
        # About the field itself: its values are called the same.
        (f'REC->a ? {FLAGS} : "none"', [None]),
        (f'(REC->a >= -9 || REC->a <= 8) ? {ONE} : "-"', [None]),
        (f"(REC->a >= -9 || REC->a <= 8) ? {ONE} : {TWO}", [None, None]),
    ],
)
def test_what_is_chosen_between(text, forms):
    found = tables(text, TYPES)
    assert [len(each.tables) if isinstance(each, Choice) else None for each in found] == forms


def test_what_stands_for_no_flag_is_not_that_of_another_field():
    (own,) = tables(f'REC->a ? {FLAGS} : "none"', TYPES)
    (other,) = tables(f'REC->b ? {FLAGS} : "none"', TYPES)
    assert isinstance(own, Names)
    assert (own.name(0), other.tables[0][1].name(0)) == ("none", "")
    (both,) = tables(f'REC->b ? (REC->a ? {FLAGS} : "none") : "other"', TYPES)
    assert both.tables[0][1].name(0) == "none"


def test_conditions_have_a_limit():
    deep = "REC->b ? " * BRANCHES_MAX + ONE
    assert [len(each.tables[0][0]) for each in tables(deep, TYPES)] == [BRANCHES_MAX]
    assert tables(f"REC->b ? {deep}", TYPES) == []
    many = ", ".join([f"REC->b ? {ONE} : 0"] * ftrace_print.TABLES_MAX + [f"REC->b ? {ONE} : 0"])
    assert len(tables(many, TYPES)) == ftrace_print.CONDITIONS_MAX
    assert len(tables(f"{deep}, {deep}, {deep}, {ONE}", TYPES)) == 3


@pytest.mark.parametrize(
    "text",
    [
        "REC->b ? " * 20_000 + ONE * 16, "(" * 200_000 + ONE * 16, '"' + '\\"' * 100_000 + ONE, "?:" * 100_000 + ONE * 16,
        ('REC->b ? "' + "(" * 500) * 300 + ONE * 16, ("(" * 500 + "REC->b" + ")" * 500 + " ? " + ONE + " : ") * 200,
        "a ? b : c ? " * 20_000 + ONE, "(1 ? " * 50_000 + ONE * 16,
    ],
)  # fmt: skip
def test_hostile_text_takes_no_time(text):
    start = time.process_time()
    tables(text, TYPES)
    assert time.process_time() - start < 0.5


# A tree of `?:` over three fields with a table or a text at each leaf: its text, and which leaf a row comes to.
def tree(random_, depth, leaves):
    if depth == 0 or random_.random() < 0.2:
        leaves.append(None if random_.random() < 0.2 else f"n{len(leaves)}")
        number, name = len(leaves) - 1, leaves[-1]
        entries = ", ".join(f'{{ {value}, "{name}-{value}" }}' for value in range(3))
        return f'"{number}"' if name is None else f"__print_symbolic(REC->a, {entries})", lambda row: number
    field = random_.choice(("a", "b", "u", "h"))
    mark = random_.choice(("==", "!=", "<", ">", "<=", ">=", "&"))
    constant = random_.choice((0, 1, 2, -1))
    test, (yes, to_yes), (no, to_no) = (
        f"REC->{field} {mark} {constant}",
        tree(random_, depth - 1, leaves),
        tree(random_, depth - 1, leaves),
    )
    if random_.random() < 0.5:
        test, no = f"({test})", f"({no})"
    relations = {
        "==": int.__eq__, "!=": int.__ne__, "<": int.__lt__, ">": int.__gt__, "<=": int.__le__, ">=": int.__ge__,
        "&": int.__and__,
    }  # fmt: skip
    # One of 32 bits without a sign makes the constant one as well.
    other = constant % (1 << 32) if field == "u" else constant
    return f"{test} ? {yes} : {no}", lambda row: (to_yes if relations[mark](row[field], other) else to_no)(row)


@pytest.mark.parametrize("big", [False, True])
def test_every_row_has_the_name_of_the_branch_that_it_comes_to(big):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    random_, form, named = random.Random(seed), Form(big=big), 0
    fields = line("int a", 8, 4, 1) + line("int b", 12, 4, 1) + line("u32 u", 16) + line("u16 h", 20, 2)
    header = ftrace_format.parse_header(form.header_text, big_endian=big)
    for _ in range(60):
        rows = [
            {"a": random_.choice((0, 1, 2, 3, -1)), "b": random_.randrange(-2, 4), "u": random_.choice((0, 1, 3, 1 << 31)),
             "h": random_.choice((0, 2, 65535))} for _ in range(40)
        ]  # fmt: skip
        data = [form.payload(7, bytes(6) + struct.pack(f"{form.order}iiIH", *row.values())) for row in rows]
        page = form.page(1, *(form.event(1, each) for each in data))
        leaves = []
        text, leaf_of = tree(random_, random_.randrange(1, 3), leaves)
        event = ftrace_format.parse(event_text("e", 7, fields, f'"", {text}'), "s")
        found = decode([PageRun(stream(0), 0, 0, 4096, page)], ftrace_format.formats(header, [event])).tables["trace_e"]
        if sum(map(bool, leaves)) < 1:
            assert "a_name" not in found.column_names
            continue
        found.validate(full=True)
        want = [leaves[leaf_of(row)] for row in rows]
        assert "a_name_2" not in found.column_names
        assert found["a_name"].to_pylist() == [
            f"{name}-{row['a']}" if name and 0 <= row["a"] < 3 else None for name, row in zip(want, rows, strict=True)
        ], text
        named += sum(map(bool, want))
    assert named > 300
