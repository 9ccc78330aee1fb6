"""Structs to columns: names, places and kinds, and the bounds of what is taken."""

import re

import pytest

from consumers.decode import bpf_layout
from consumers.decode.bpf_btf import Btf
from schemas.errors import BadInputError
from tests.consumers.decode import btf_writer
from tests.consumers.decode.btf_writer import Types


@pytest.fixture
def types():
    return Types()


def columns(types, name="top"):
    return bpf_layout.layout(Btf(types.blob()), name).columns


def refused(types, said):
    with pytest.raises(BadInputError) as caught:
        columns(types)
    assert caught.value.reason == "btf"
    assert re.search(said, caught.value.detail)


def test_nested_structs_are_flattened_and_those_without_a_name_add_none(types):
    u32 = types.integer("u32", 4)
    inner = types.struct("inner", 8, ("x", u32, 0), ("y", u32, 32))
    hidden = types.struct("", 8, ("p", u32, 0), ("q", u32, 32))
    outer = types.struct("outer", 16, ("in", inner, 0), ("", hidden, 64))
    types.struct("top", 24, ("a", u32, 0), ("b", outer, 64))
    assert [(each.name, each.offset) for each in columns(types)] == [
        ("a", 0), ("b_in_x", 8), ("b_in_y", 12), ("b_p", 16), ("b_q", 20)
    ]  # fmt: skip


def test_an_array_of_structs_is_a_list_for_each_member(types):
    u16, char = types.integer("u16", 2), types.integer("char", 1, btf_writer.SIGNED)
    inner = types.struct("inner", 8, ("x", types.array(u16, 3), 0), ("s", types.array(char, 2), 48))
    types.struct("top", 48, ("b", types.array(types.array(inner, 3), 2), 0))
    x, s = columns(types)
    assert (x.name, x.offset, x.size, x.dimensions) == ("b_x", 0, 2, ((2, 24), (3, 8), (3, 2)))
    assert (s.name, s.offset, s.size, s.shape, s.dimensions) == ("b_s", 6, 2, "text", ((2, 24), (3, 8)))


def test_octets_are_text_raw_or_numbers_by_their_type(types):
    named = {
        "char": types.integer("char", 1, btf_writer.SIGNED),
        "u8": types.ref(btf_writer.TYPEDEF, types.integer("unsigned char", 1), "u8"),
        "s8": types.integer("signed char", 1, btf_writer.SIGNED),
        "bool": types.integer("_Bool", 1, btf_writer.BOOL),
    }
    members = [(name, types.array(type_id, 4), 32 * i) for i, (name, type_id) in enumerate(named.items())]
    members += [(f"one_{name}", type_id, 128 + 8 * i) for i, (name, type_id) in enumerate(named.items())]
    types.struct("top", 20, *members)
    assert [(each.name, each.shape, each.size, len(each.dimensions)) for each in columns(types)] == [
        ("char", "text", 4, 0), ("u8", "raw", 4, 0), ("s8", "integer", 1, 1), ("bool", "bool", 1, 1),
        ("one_char", "integer", 1, 0), ("one_u8", "integer", 1, 0), ("one_s8", "integer", 1, 0), ("one_bool", "bool", 1, 0),
    ]  # fmt: skip


def test_what_has_no_number_of_its_own_is_raw(types):
    u128, half = types.integer("unsigned __int128", 16), types.add("_Float16", btf_writer.FLOAT, 2)
    union = types.struct("", 4, ("a", types.integer("u32", 4), 0), kind=btf_writer.UNION)
    types.struct(
        "top",
        32,
        ("a", u128, 0),
        ("b", half, 128),
        ("c", union, 160),
        ("", union, 192),
        ("d", types.array(union, 1), 224),
    )
    assert [(each.name, each.shape, each.size) for each in columns(types)] == [
        ("a", "raw", 16), ("b", "raw", 2), ("c", "raw", 4), ("union_24", "raw", 4), ("d", "raw", 4)
    ]  # fmt: skip


def test_bit_fields_as_compilers_say_them_now_and_said_them(types):
    s32, u64 = types.integer("int", 4, btf_writer.SIGNED), types.integer("u64", 8)
    state = types.enum("state", A=1, B=128)
    old = types.integer("old", 4, 0, bit_offset=3, bits=5)
    inner = types.struct(
        "inner", 16, ("a", s32, 0, 3), ("b", state, 3, 7), ("c", u64, 66, 50), ("d", s32, 32, 0), flag=1
    )
    types.struct("top", 24, ("i", inner, 0), ("o", old, 128), ("p", old, 134))
    found = [(each.name, each.shape, each.offset, each.size, each.bit_offset, each.bit_size) for each in columns(types)]
    assert found == [
        ("i_a", "bits", 0, 1, 0, 3), ("i_b", "bits", 0, 1, 3, 7), ("i_c", "bits", 8, 8, 2, 50), ("i_d", "integer", 4, 4, 0, 0),
        ("o", "bits", 16, 1, 3, 5), ("p", "bits", 17, 1, 1, 5),
    ]  # fmt: skip
    assert columns(types)[1].names == {1: "A"}


@pytest.mark.parametrize(
    ("element", "shape", "size"), [("char", "text", 1), ("u8", "raw", 1), ("u32", "integer", 4), ("inner", "raw", 1)]
)
def test_an_open_array_at_the_end_takes_the_rest(types, element, shape, size):
    ids = {"char": types.integer("char", 1), "u8": types.integer("u8", 1), "u32": types.integer("u32", 4)}
    ids["inner"] = types.struct("inner", 4, ("x", ids["u32"], 0))
    tail = types.struct("tail", 4, ("n", ids["u32"], 0), ("rest", types.array(ids[element], 0), 32))
    # Padded behind the beginning of the open array: a record may end before the padding does.
    u64 = types.integer("u64", 8)
    types.struct("top", 16, ("a", u64, 0), ("gone", types.array(u64, 0), 64), ("t", tail, 64))
    found = bpf_layout.layout(Btf(types.blob()), "top")
    assert [(each.name, each.tail) for each in found.columns] == [("a", False), ("t_n", False), ("t_rest", True)]
    assert found.size == found.columns[-1].offset == 12
    assert (found.columns[-1].shape, found.columns[-1].size) == (shape, size)


def test_names_that_are_no_words_become_some(types):
    types.struct("top", 4, ("a.b<c>", types.integer("u32", 4), 0))
    assert [each.name for each in columns(types)] == ["a_b_c_"]


def test_members_that_overlap_are_refused_because_they_would_multiply_what_a_record_holds(types):
    whole = types.array(types.integer("s8", 1, btf_writer.SIGNED), 64)
    types.struct("top", 64, ("a", whole, 0), ("b", whole, 0))
    refused(types, "members overlap at b")


def test_members_that_do_not_fit_are_refused(types):
    u32 = types.integer("u32", 4)
    types.struct("top", 6, ("a", u32, 24))
    refused(types, r"a is bytes 3 to 7 of 6")
    types = Types()
    types.struct("top", 8, ("a", types.array(types.integer("u64", 8), 0xFFFFFFFF), 0))
    refused(types, "bytes 0 to 34359738360 of 8")
    types = Types()
    types.struct("top", 8, ("a", types.struct("in", 4, ("x", types.integer("u32", 4), 0)), 3))
    refused(types, "begins at bit 3")
    types = Types()
    types.struct("top", 4, ("a", types.integer("u32", 4), 30, 5), flag=1)
    refused(types, "bits 30 to 35")
    types = Types()
    types.struct("top", 16, ("a", types.integer("u16", 2), 0, 17), flag=1)
    refused(types, "17 bits of a type of 2 bytes")


def test_what_breaks_a_limit_is_refused(types):
    types.struct("top", 0)
    refused(types, "has 0 bytes")
    types = Types()
    types.struct("top", 4)
    refused(types, "no member that has a value")
    types = Types()
    types.struct("top", bpf_layout.STRUCT_BYTES_MAX + 1, ("a", types.integer("u32", 4), 0))
    refused(types, "has 1048577 bytes")
    types = Types()
    u8 = types.integer("u8", 1)
    types.struct("top", 2000, *[(f"m{i}", u8, 8 * i) for i in range(bpf_layout.COLUMNS_MAX + 1)])
    refused(types, "more than 1024 columns")
    types = Types()
    inner = types.integer("u8", 1)
    for i in range(bpf_layout.NESTING_MAX + 1):
        inner = types.struct(f"s{i}", 1, ("a", inner, 0))
    types.struct("top", 1, ("a", inner, 0))
    refused(types, "more than 16 structs")
    types = Types()
    inner = types.integer("u32", 4)
    for _ in range(bpf_layout.DIMENSIONS_MAX + 1):
        inner = types.array(inner, 1)
    types.struct("top", 4, ("a", inner, 0))
    refused(types, "more than 8 dimensions")
    types = Types()
    enum = types.enum("e", **{f"v{i}": i for i in range(1 << 15)})
    types.struct("top", 12, *[("abc"[i], enum, 32 * i) for i in range(3)])
    refused(types, "more than 65536 names")
    types = Types()
    types.struct("top", 4, ("a", 1, 0))
    refused(types, "more than 16 structs")
