"""Columns of structs of every shape: random ones against a plain reader, compiled ones against ctypes.

More random structs: HYPOCENTER_FUZZ_STRUCTS=20000 python -m pytest -k random_structs tests/consumers/decode
"""

import ctypes
import math
import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from consumers.decode import bpf_columns, bpf_records, bpf_rows
from consumers.decode.bpf_btf import Btf
from consumers.decode.bpf_layout import layout
from consumers.decode.bpf_rows import Run
from tests.consumers._records import RING, Gone, ring
from tests.consumers.decode import btf_writer
from tests.consumers.decode.bpf_structs import Struct
from tests.consumers.decode.btf_writer import Types

FUZZ_STRUCTS = int(os.environ.get("HYPOCENTER_FUZZ_STRUCTS", "1500"))


def decode(blob, records, name="top", **more):
    """Return the rows of `records`, in two runs."""
    found = layout(Btf(blob), name)
    order = ">" if found.big_endian else "<"
    half, runs, first = len(records) // 2, [], 0
    for part in (records[:half], records[half:]):
        data, count = ring(*part, order=order), sum(not isinstance(each, Gone) for each in part)
        walked = bpf_records.walk(data, count, big_endian=found.big_endian)
        runs.append(Run(RING, first, 0, data, walked, 1))
        first += count
    table = bpf_rows.decode(runs, found).table
    table.validate(full=True)
    return table


def same(one, other):
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def check_some(seed):
    random_ = random.Random(seed)
    made = Struct(random_, big=random_.random() < 0.5)
    if not made.size:
        return
    records = [made.some() for _ in range(random_.choice((1, 2, 9)))]
    if random_.random() < 0.5:
        # Of other lengths, and some taken back: what lies in the ring is no matrix then.
        records = [data + bytes(random_.randrange(12)) for data in records] + [Gone(b"x")]
    table = decode(made.blob(), records)
    records = [data for data in records if not isinstance(data, Gone)]
    for name, read in made.columns:
        want, got = [read(data[: made.size]) for data in records], table[name].to_pylist()
        assert same(want, got), (seed, name, want, got)
    assert table["surplus"].to_pylist() == [data[made.size :] or None for data in records]


def test_random_structs():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    for i in range(FUZZ_STRUCTS):
        check_some(seed + i)


def test_random_structs_with_every_index_checked(tmp_path):
    code = "from tests.consumers.decode.test_bpf_columns import check_some\nfor i in range(200): check_some(i)"
    bounds = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={**os.environ, **bounds})


def test_a_field_of_sixty_four_bits_that_begins_within_an_octet_in_both_byte_orders():
    value = 0xFEDC_BA98_7654_3210
    for big in (False, True):
        types = Types(big)
        types.struct("top", 9, ("a", types.integer("u64", 8), 3, 64), flag=1)
        data = (value << (72 - 3 - 64 if big else 3)).to_bytes(9, "big" if big else "little")
        assert decode(types.blob(), [data])["a"].to_pylist() == [value]


@pytest.mark.parametrize("span", [3, 1 << 20])
def test_names_of_values_near_and_far_apart_of_both_signs(span):
    types = Types()
    enum = types.enum64("e", flag=1, LOW=-span, NIL=0, HIGH=span)
    types.struct("top", 24, ("a", enum, 0), ("b", types.array(enum, 2), 64))
    values = [-span, 0, span, -span - 1, span + 1, -(1 << 63), (1 << 63) - 1]
    table = decode(types.blob(), [struct.pack("<3q", each, each, 0) for each in values])
    names = ["LOW", "NIL", "HIGH", None, None, None, None]
    assert table["a"].to_pylist() == values
    assert table["a_name"].to_pylist() == names
    assert table["b_name"].to_pylist() == [[name, "NIL"] for name in names]


def test_an_open_array_of_each_kind_has_what_is_there_and_leaves_what_is_half():
    for element, form, size in (
        ("char", "3s", 1),
        ("u8", "3s", 1),
        ("s16", "h", 2),
        ("bool", "?", 1),
        ("enum", "I", 4),
    ):
        types = Types()
        ids = {
            "char": types.integer("char", 1, 1), "u8": types.integer("u8", 1), "s16": types.integer("s16", 2, 1),
            "bool": types.integer("bool", 1, btf_writer.BOOL), "enum": types.enum("e", A=1),
        }  # fmt: skip
        types.struct("top", 4, ("n", types.integer("u32", 4), 0), ("x", types.array(ids[element], 0), 32))
        values = {"char": b"a\0b", "u8": b"a\0b", "s16": -2, "bool": True, "enum": 1}[element]
        full = struct.pack(f"<I{form}", 7, values)
        records = [full, full[:4], full + bytes(size - 1)]
        table = decode(types.blob(), records)
        shown = {"char": "a", "u8": b"a\0b"}.get(element, [values])
        nothing = shown[:0]
        assert table["x"].to_pylist() == [shown, nothing, shown]
        assert table["n"].to_pylist() == [7, 7, 7]
        left = bytes(size - 1) if element in ("s16", "enum") else b""
        assert table["surplus"].to_pylist() == [None, None, left or None]
        if element == "enum":
            assert table["x_name"].to_pylist() == [["A"], [], ["A"]]


def test_names_never_collide_in_whatever_case():
    types = Types()
    u32, u64 = types.integer("u32", 4), types.integer("u64", 8)
    inner = types.struct("inner", 4, ("b", u32, 0))
    enum = types.enum("e", A=1)
    plain = [("position", u32), ("Machine", u32), ("surplus", u32), ("a", inner), ("a_b", u32), ("A_B", u32), ("x", enum), ("x_name", u32), ("TS_NS", u32)]  # fmt: skip
    members = [(name, type_id, 32 * i) for i, (name, type_id) in enumerate(plain)]
    types.struct("top", 48, *members, ("ts_ns", u64, 320))
    names = bpf_columns.named(layout(Btf(types.blob()), "top"), bpf_rows.TAKEN)
    assert [(each.name, each.names) for each in names] == [
        ("record_position", None), ("record_Machine", None), ("record_surplus", None), ("a_b", None), ("a_b_", None),
        ("A_B__", None), ("x", "x_name"), ("x_name_", None), ("record_TS_NS", None), ("ts_ns", None),
    ]  # fmt: skip
    assert [each.is_time for each in names] == [False] * 9 + [True]
    table = decode(types.blob(), [struct.pack("<9I4xQ", *range(9), 1 << 63)])
    assert table["ts_ns"].to_pylist() == [-(1 << 63)]
    assert len({name.lower() for name in table.column_names}) == table.num_columns


@pytest.mark.parametrize("ts", [("u32", 4, 0), ("s64", 8, 1)])
def test_a_time_of_another_type_is_a_member_like_others(ts):
    types = Types()
    types.struct("top", 8, ("ts_ns", types.integer(*ts), 0))
    table = decode(types.blob(), [bytes([5]) + bytes(7)])
    assert (table["ts_ns"].to_pylist(), table["record_ts_ns"].to_pylist()) == ([None], [5])


def test_many_groups_share_their_words(monkeypatch):
    monkeypatch.setattr(bpf_rows, "_GROUP_BYTES", 1)
    types = Types()
    text, number = types.array(types.integer("char", 1, 1), 8), types.integer("u64", 8)
    raw = types.array(types.integer("u8", 1), 8)
    types.struct("top", 24, ("s", text, 0), ("n", number, 64), ("r", raw, 128))
    records = [text.ljust(8, b"\0") * 3 for text in (b"a", b"b", b"c", b"b")]
    table = decode(types.blob(), records)
    # Each group is in the memory of the one before.
    assert table["n"].to_pylist() == [97, 98, 99, 98]
    assert table["r"].to_pylist() == [each[:8] for each in records]
    column = table["s"]
    assert column.to_pylist() == ["a", "b", "c", "b"]
    assert column.num_chunks == 2
    assert all(chunk.dictionary.to_pylist() == ["a", "b", "c"] for chunk in column.chunks)


SOURCE = """
typedef unsigned int u32; typedef unsigned long long u64; typedef long long s64; typedef const volatile u32 odd;
enum state { RUNNING, SLEEPS = 2, GONE = 0x7fffffff };
struct inner { short a; struct { signed char b; unsigned char mac[6]; }; };
struct record {
  u64 ts_ns; u32 cpu; odd flags; char comm[16]; enum state state; _Bool on; unsigned char small; short pair[2];
  struct inner one; struct inner two[2]; s64 grid[2][3]; char names[2][5]; union { u32 x; u64 y; } either;
  u32 low : 5; u32 middle : 20; int high : 7; u64 wide : 41; struct record *next; enum state states[2]; s64 last;
} *use;
"""


class Anonymous(ctypes.Structure):
    _fields_ = (("b", ctypes.c_byte), ("mac", ctypes.c_ubyte * 6))


class Inner(ctypes.Structure):
    _anonymous_ = ("_",)
    _fields_ = (("a", ctypes.c_short), ("_", Anonymous))


class Either(ctypes.Union):
    _fields_ = (("x", ctypes.c_uint32), ("y", ctypes.c_uint64))


class Record(ctypes.Structure):
    _fields_ = (
        ("ts_ns", ctypes.c_uint64), ("cpu", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("comm", ctypes.c_char * 16),
        ("state", ctypes.c_uint32), ("on", ctypes.c_bool), ("small", ctypes.c_ubyte), ("pair", ctypes.c_short * 2),
        ("one", Inner), ("two", Inner * 2), ("grid", ctypes.c_int64 * 3 * 2), ("names", ctypes.c_char * 5 * 2),
        ("either", Either), ("low", ctypes.c_uint32, 5), ("middle", ctypes.c_uint32, 20), ("high", ctypes.c_int32, 7),
        ("wide", ctypes.c_uint64, 41), ("next", ctypes.c_uint64), ("states", ctypes.c_uint32 * 2), ("last", ctypes.c_int64),
    )  # fmt: skip


def section(elf, wanted):
    """Return the bytes of a section of a 64-bit little-endian object (include/uapi/linux/elf.h)."""
    at, size, count, names = struct.unpack_from("<Q", elf, 40)[0], *struct.unpack_from("<3H", elf, 58)
    heads = [struct.unpack_from("<2I4Q", elf, at + i * size) for i in range(count)]
    for name, _, _, _, begin, length in heads:
        start = heads[names][4] + name
        if elf[start : elf.index(b"\0", start)] == wanted:
            return elf[begin : begin + length]
    raise AssertionError(wanted)


def expected(record):
    states = {0: "RUNNING", 2: "SLEEPS", 0x7FFFFFFF: "GONE"}
    return {
        "ts_ns": ctypes.c_int64(record.ts_ns).value, "cpu": record.cpu, "flags": record.flags,
        "comm": record.comm.decode("utf-8", "replace"), "state": record.state, "state_name": states.get(record.state),
        "on": bytes(record)[Record.on.offset] != 0, "small": record.small, "pair": list(record.pair),
        "one_a": record.one.a, "one_b": record.one.b, "one_mac": bytes(record.one.mac),
        "two_a": [each.a for each in record.two], "two_b": [each.b for each in record.two],
        "two_mac": [bytes(each.mac) for each in record.two], "grid": [list(row) for row in record.grid],
        "names": [bytes(each).partition(b"\0")[0].decode("utf-8", "replace") for each in record.names],
        "either": bytes(record.either), "low": record.low, "middle": record.middle, "high": record.high,
        "wide": record.wide, "next": record.next, "states": list(record.states),
        "states_name": [states.get(each) for each in record.states], "last": record.last, "surplus": None,
    }  # fmt: skip


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_a_compiled_struct_of_every_shape_is_what_ctypes_says(tmp_path):
    (tmp_path / "a.c").write_text(SOURCE)
    subprocess.run(["clang", "-target", "bpf", "-g", "-O2", "-c", "a.c", "-o", "a.o"], cwd=tmp_path, check=True)
    blob = section((tmp_path / "a.o").read_bytes(), b".BTF")
    assert layout(Btf(blob), "record").size == ctypes.sizeof(Record)
    rng = np.random.default_rng(5)
    records = [bytes(ctypes.sizeof(Record)), b"\xff" * ctypes.sizeof(Record)]
    records += [rng.choice([0, 2, 65, 255], ctypes.sizeof(Record)).astype(np.uint8).tobytes() for _ in range(50)]
    table = decode(blob, records, "record")
    front = {each.name for each in bpf_rows.FRONT} - {"ts_ns"}
    rows = [{name: value for name, value in row.items() if name not in front} for row in table.to_pylist()]
    wanted = [expected(Record.from_buffer_copy(data)) for data in records]
    for got, want in zip(rows, wanted, strict=True):
        assert got == want
    assert [name for name in table.column_names if name not in front] == list(wanted[0])
