"""BTF of every kind in both byte orders, and bytes that are none.

A million mutated blobs: HYPOCENTER_FUZZ_BTF=1000000 python -m pytest -k any_blob tests/consumers/decode
"""

import os
import random
import struct
import time

import pytest

from consumers.decode import bpf_btf, bpf_layout
from consumers.decode.bpf_btf import Btf, Kind
from schemas.errors import BadInputError
from tests.consumers.decode import btf_writer
from tests.consumers.decode.btf_writer import Types

FUZZ_BLOBS = int(os.environ.get("HYPOCENTER_FUZZ_BTF", "100000"))


@pytest.fixture(params=[False, True], ids=["little", "big"])
def types(request):
    return Types(request.param)


def refused(call, *args):
    with pytest.raises(BadInputError) as caught:
        call(*args)
    assert caught.value.reason == "btf"
    return caught.value.detail


def every_kind(types):
    """Return a blob with each kind at least once, and the id of its struct `all`."""
    u32 = types.integer("unsigned int", 4)
    long_ = types.integer("long", 8, btf_writer.SIGNED)
    function = types.ref(btf_writer.FUNC_PROTO, u32, "", types.text("x"), u32, entries=1)
    types.ref(btf_writer.FUNC, function, "f")
    types.ref(btf_writer.VAR, u32, "v", 1)
    types.ref(btf_writer.DATASEC, 4, ".data", 1, 0, 4, entries=1)
    types.ref(btf_writer.DECL_TAG, u32, "tag", 0xFFFFFFFF)
    types.ref(btf_writer.FWD, 0, "later")
    float_ = types.add("double", btf_writer.FLOAT, 8)
    union = types.struct("u", 8, ("a", u32, 0), ("b", long_, 0), kind=btf_writer.UNION)
    plain = types.enum("plain", A=0, B=7)
    wide = types.enum64("wide", C=1 << 40)
    pointer = types.ref(btf_writer.PTR, 0)
    named = types.ref(btf_writer.TYPEDEF, types.ref(btf_writer.CONST, long_), "named")
    for kind in (btf_writer.VOLATILE, btf_writer.RESTRICT, btf_writer.TYPE_TAG):
        named = types.ref(kind, named, "t" if kind == btf_writer.TYPE_TAG else "")
    many = types.array(u32, 3)
    members = (float_, union, plain, wide, pointer, named, many)
    sizes = (8, 8, 4, 8, 8, 8, 12)
    at, listed = 0, []
    for i, (type_id, size) in enumerate(zip(members, sizes, strict=True)):
        at += -at % min(size, 8) if size != 12 else 0
        listed.append((f"m{i}", type_id, 8 * at))
        at += size
    types.struct("all", at + -at % 8, *listed)
    return types.blob()


def test_every_kind(types):
    btf = Btf(every_kind(types))
    assert btf.big_endian == (types.order == ">")
    assert len(btf) == types.count + 1
    assert {btf.type(i).kind for i in range(len(btf))} == set(Kind)
    found = btf.struct("all")
    assert [each.name for each in btf.members(found)] == [f"m{i}" for i in range(7)]
    assert [btf.size_bytes(each.type_id) for each in btf.members(found)] == [8, 8, 4, 8, 8, 8, 12]
    columns = bpf_layout.layout(btf, "all").columns
    assert [(each.name, each.shape, each.offset, each.size) for each in columns] == [
        ("m0", "float", 0, 8),
        ("m1", "raw", 8, 8),
        ("m2", "integer", 16, 4),
        ("m3", "integer", 24, 8),
        ("m4", "integer", 32, 8),
        ("m5", "integer", 40, 8),
        ("m6", "integer", 48, 4),
    ]
    assert [each.names for each in columns] == [None, None, {0: "A", 7: "B"}, {1 << 40: "C"}, None, None, None]
    assert columns[5].signed


def test_enumerations_of_both_signs_and_every_size(types):
    plain = types.enum("e", A=-1, B=1, C=1)
    signed = types.enum("f", flag=1, A=-1, B=-(1 << 31))
    small = types.enum("g", 1, 1, A=-2)
    wide = types.enum64("h", flag=1, A=-(1 << 63), B=-1)
    whole = types.enum64("i", A=(1 << 64) - 1)
    # As compilers wrote enumerations of 64 bits before these had a kind of their own.
    old = types.enum("j", 8, 1, A=-3)
    btf = Btf(types.blob())
    found = [btf.enum(btf.type(each)) for each in (plain, signed, small, wide, whole, old)]
    assert [each.names for each in found] == [
        {0xFFFFFFFF: "A", 1: "B"},
        {-1: "A", -(1 << 31): "B"},
        {-2: "A"},
        {-(1 << 63): "A", -1: "B"},
        {(1 << 64) - 1: "A"},
        {-3: "A"},
    ]
    assert [each.size for each in found] == [4, 4, 1, 8, 8, 8]


def test_a_struct_is_found_by_its_tag_or_a_typedef_and_never_by_half_a_name(types):
    u8 = types.integer("u8", 1)
    hidden = types.struct("", 1, ("x", u8, 0))
    types.ref(btf_writer.TYPEDEF, hidden, "event_t")
    types.struct("event", 1, ("y", u8, 0))
    types.ref(btf_writer.TYPEDEF, u8, "event")
    types.ref(btf_writer.TYPEDEF, u8, "octet")
    btf = Btf(types.blob())
    assert [each.name for each in btf.members(btf.struct("event"))] == ["y"]
    assert [each.name for each in btf.members(btf.struct("event_t"))] == ["x"]
    assert "no struct 'even'" in refused(btf.struct, "even")
    assert "is no struct" in refused(btf.struct, "octet")
    types.struct("event", 2, ("y", u8, 0))
    assert "2 types are called 'event'" in refused(Btf(types.blob()).struct, "event")


@pytest.mark.parametrize(("name", "size", "wanted"), [("long", 4, 4), ("unsigned long", 8, 8), ("int", 4, 8)])
def test_a_pointer_is_as_long_as_a_long(types, name, size, wanted):
    types.integer(name, size)
    pointer = types.ref(btf_writer.PTR, 0)
    assert Btf(types.blob()).size_bytes(pointer) == wanted


def test_a_chain_that_never_ends_is_an_error(types):
    types.ref(btf_writer.CONST, 2)
    types.ref(btf_writer.VOLATILE, 1)
    types.array(3, 2)
    types.struct("s", 8, ("a", 1, 0))
    types.struct("t", 8, ("a", 3, 0))
    btf = Btf(types.blob())
    assert "names and qualifiers" in refused(btf.resolved, 1)
    assert "arrays" in refused(btf.size_bytes, 3)
    for name in "st":
        refused(bpf_layout.layout, btf, name)


def changed(blob, at, *words, order="<"):
    data = bytearray(blob)
    data[at : at + 4 * len(words)] = struct.pack(f"{order}{len(words)}I", *words)
    return bytes(data)


def test_a_blob_of_another_form_is_refused():
    types = Types()
    types.integer("u8", 1)
    blob = types.blob()
    Btf(blob)
    for cut in range(len(blob)):
        refused(Btf, blob[:cut])
    assert "begins with" in refused(Btf, b"\0\0" + blob[2:])
    assert "version 2" in refused(Btf, blob[:2] + b"\2" + blob[3:])
    assert "beyond" in refused(Btf, changed(blob, 4, 20))
    assert "beyond" in refused(Btf, changed(blob, 4, 0xFFFFFFFF))
    for at in range(8, 24, 4):
        refused(Btf, changed(blob, at, 0xFFFFFFF0))
        refused(Btf, changed(blob, at, 0xFFFF))
    assert "kind 31" in refused(Btf, changed(blob, 28, 31 << 24))
    assert "kind 0" in refused(Btf, changed(blob, 28, 0))
    assert "cut short" in refused(Btf, changed(blob, 12, 20))
    assert "reaches beyond" in refused(Btf, changed(blob, 28, btf_writer.STRUCT << 24 | 0xFFFF))
    assert "NUL" in refused(Btf, blob[:-1] + b"x")
    assert "bytes" in refused(Btf, blob + bytes(bpf_btf.BTF_BYTES_MAX))


def test_types_that_name_what_is_not_there_are_refused():
    types = Types()
    types.struct("s", 8, ("a", 99, 0))
    types.integer(b"n" * 200, 4)
    types.integer(b"\xff", 4)
    odd = types.integer("odd", 3)
    wide = types.integer("wide", 4, bits=33)
    none = types.integer("none", 4, bits=0)
    shifted = types.integer("shifted", 4, bit_offset=1)
    enum = types.enum("e", 3, A=1)
    function = types.ref(btf_writer.FUNC, 0, "f")
    btf = Btf(types.blob())
    assert "type 99" in refused(bpf_layout.layout, btf, "s")
    assert "a name of 200 bytes" in refused(btf.name, btf.type(2))
    assert btf.name(btf.type(3)) == "\ufffd"
    for each in (odd, wide, none, shifted):
        refused(btf.integer, btf.type(each))
    refused(btf.enum, btf.type(enum))
    assert "FUNC" in refused(btf.size_bytes, function)
    refused(btf.size_bytes, 0)
    beyond = bytearray(types.blob())
    beyond[24:28] = (1 << 20).to_bytes(4, "little")
    assert "a name at 1048576" in refused(lambda data: Btf(data).name(Btf(data).type(1)), bytes(beyond))


def some_types(random_):
    types = Types(random_.random() < 0.3)
    for _ in range(random_.randrange(1, 12)):
        how, past = random_.randrange(9), lambda: random_.randrange(types.count + 3)
        if how == 0:
            types.integer("char", random_.choice((1, 2, 4, 8, 16)), random_.choice((0, 1, 4)))
        elif how == 1:
            types.array(past(), random_.choice((0, 1, 3, 1 << 16, 0xFFFFFFFF)))
        elif how in (2, 3, 4):
            flag = random_.randrange(2)
            size, bits = random_.choice((1, 8, 64, 1 << 20)), random_.choice((0, 0, 3, 64)) if flag else 0
            members = [
                ("abc"[i % 3], past(), random_.choice((0, 8, 33, 64)), bits) for i in range(random_.randrange(4))
            ]
            kind = random_.choice((btf_writer.STRUCT, btf_writer.STRUCT, btf_writer.UNION))
            types.struct("s", size, *members, kind=kind, flag=flag)
        elif how == 5:
            types.enum("e", random_.choice((1, 4, 8)), random_.randrange(2), A=random_.getrandbits(32), B=0)
        elif how == 6:
            types.enum64("w", 8, random_.randrange(2), A=random_.getrandbits(64))
        else:
            types.ref(random_.choice((btf_writer.PTR, btf_writer.TYPEDEF, btf_writer.CONST)), past(), "t")
    types.struct(
        "top", random_.choice((64, 1 << 16)), *[(f"m{i}", random_.randrange(types.count + 2), 64 * i) for i in range(4)]
    )
    return types.blob()


def fuzz(blobs, seed):
    """Any blob is a layout within its bounds or a `BadInputError`, soon; returns how many were layouts."""
    random_, laid_out = random.Random(seed), 0
    for _ in range(blobs):
        blob = bytearray(some_types(random_))
        for _ in range(random_.choice((0, 0, 1, 3))):
            at = random_.choice((random_.randrange(len(blob)), random_.randrange(24)))
            blob[at] = random_.choice((0, 1, 0xFF, random_.randrange(256)))
        try:
            found = bpf_layout.layout(Btf(bytes(blob)), "top")
        except BadInputError:
            continue
        laid_out += 1
        assert 0 < len(found.columns) <= bpf_layout.COLUMNS_MAX
        for column in found.columns:
            last = column.offset + sum((each.count - 1) * each.stride for each in column.dimensions)
            size = (column.bit_offset + column.bit_size + 7) // 8 if column.bit_size else column.size
            assert all(each.count > 0 and each.stride > 0 for each in column.dimensions)
            assert column.offset >= 0
            assert last + (0 if column.tail else size) <= found.size <= bpf_layout.STRUCT_BYTES_MAX
    return laid_out


def test_any_blob_is_a_layout_within_its_struct_or_an_error():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    assert fuzz(FUZZ_BLOBS, seed) > FUZZ_BLOBS // 100


def test_what_is_made_to_take_long_does_not():
    # Each struct has the one before it many times over, and no value anywhere.
    types = Types()
    inner = types.struct("s", 0)
    for i in range(12):
        inner = types.struct(f"s{i}", 8, *[("", inner, 0)] * 5000)
    types.struct("top", 8, ("a", inner, 0))
    start = time.process_time()
    btf = Btf(types.blob())
    refused(bpf_layout.layout, btf, "top")
    assert time.process_time() - start < 1
