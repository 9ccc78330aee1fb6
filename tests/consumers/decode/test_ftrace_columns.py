"""Typed columns of written events, in both byte orders."""

import struct

import pyarrow as pa
import pytest

from consumers.decode import ftrace_columns, ftrace_format, ftrace_names
from consumers.decode.ftrace_events import PageRun, decode
from tests.consumers.decode.ftrace_writer import Form
from tests.consumers.decode.test_ftrace_events import event_text, stream
from tests.consumers.decode.test_ftrace_format import STACK, line

FIELDS = (
    line("s8 small", 8, 1, 1)
    + line("bool on", 9, 1)
    + line("u16 half", 10, 2)
    + line("long big", 12, 8, 1)
    + line("void * where", 20, 8)
    + line("char comm[8]", 28, 8)
    + line("u16 pair[2]", 36, 4)
    + line("u8 mac[4]", 40, 4)
    + line("__data_loc char[] text", 44)
    + line("__rel_loc char[] rel", 48)
    + line("__data_loc s32[] numbers", 52, 4, 1)
    + line("unsigned int mode:3", 56, 4)
    + line("unsigned int tail[]", 60, 0)
)
PRINT = '"", __print_symbolic(REC->half, { 1, "one" }), __print_flags(REC->half & 6, "|", { 2, "two" }, { 4, "four" })'


@pytest.fixture(params=[False, True], ids=["little", "big"])
def form(request):
    return Form(big=request.param)


def table(form, *payloads, fields=FIELDS, print_fmt=PRINT, of=("s", "e")):
    event = ftrace_format.parse(event_text(of[1], 7, fields, print_fmt), of[0])
    header = ftrace_format.parse_header(form.header_text, big_endian=form.big)
    page = form.page(1, *(form.event(1, payload) for payload in payloads))
    found = decode([PageRun(stream(0), 0, 0, 4096, page)], ftrace_format.formats(header, [event]))
    for each in found.tables.values():
        each.validate(full=True)
    return found, found.tables[f"trace_{of[1]}"]


def payload(form, comm=b"task\0xyz", text=b"hello\0", half=1, at=None, tail=(5, 6)):
    """The variable parts lie behind the array at the end, so that is what it shows too."""
    numbers = struct.pack(f"{form.order}2i", -1, 2)
    text += bytes(-len(text) % 4)
    start = 60
    rest = text + numbers + struct.pack(f"{form.order}{len(tail)}I", *tail)
    head = struct.pack(
        f"{form.order}HBBibBHqQ8s2H4sIIII",
        7, 0x19, 0x21, 4242, -5, 1, half, -(1 << 40), (1 << 64) - 16, comm, 3, 65535, b"\1\2\3\xff",
        (at or (len(text) << 16 | start)), len(text) << 16 | (start - 52), 8 << 16 | (start + len(text)), 5,
    )  # fmt: skip
    assert len(head) == start
    return head + rest


def test_every_kind_of_field(form):
    _, found = table(form, payload(form))
    row = found.to_pylist()[0]
    text = [
        int.from_bytes(b"hell", "big" if form.big else "little"),
        int.from_bytes(b"o\0\0\0", "big" if form.big else "little"),
    ]
    assert {name: row[name] for name in found.column_names[-16:]} == {
        "preempt_count": 0x21,
        "small": -5,
        "on": True,
        "half": 1,
        "half_name": "one",
        "half_name_2": "",
        "big": -(1 << 40),
        "where": (1 << 64) - 16,
        "comm": "task",
        "pair": [3, 65535],
        "mac": b"\1\2\3\xff",
        "text": "hello",
        "rel": "hello",
        "numbers": [-1, 2],
        "mode": 5,
        "tail": [*text, (1 << 32) - 1, 2, 5, 6],
    }
    assert (row["pid"], row["flags"]) == (4242, 0x19)
    assert found.schema.field("where").type == pa.uint64()
    assert found.schema.field("small").type == pa.int8()


def test_callers_are_as_many_as_the_size_says_and_none_beyond_the_event(form):
    stated = [(2, 2), (3, 10), (10, 10), (20, 20), (0, 0), (0, 3), (-1, 3), (1 << 30, 3)]
    payloads = [
        form.payload(7, bytes(6) + struct.pack(f"{form.order}ii{there}Q", size, -1, *range(1, there + 1)))
        for size, there in stated
    ]
    found, rows = table(form, *payloads, fields=STACK, of=("ftrace", "kernel_stack"))
    wanted = [min(max(size, 0), there) for size, there in stated]
    assert rows["caller"].to_pylist() == [list(range(1, count + 1)) for count in wanted]
    assert rows["size"].to_pylist() == [size for size, _ in stated]
    assert (rows.schema.field("caller").type, found.short) == (pa.list_(pa.uint64()), {})


def test_raw_data_is_whole_whatever_its_bytes_are(form):
    data = [b"AB\0CD\0\xff\x80EF\0\0", bytes(4), b""]
    payloads = [form.payload(7, bytes(6) + struct.pack(f"{form.order}I", 5) + each) for each in data]
    fields = line("unsigned int id") + line("char buf[]", 12, 0)
    _, rows = table(form, *payloads, fields=fields, of=("ftrace", "raw_data"))
    assert rows.select(["id", "buf"]).to_pylist() == [{"id": 5, "buf": each} for each in data]
    assert rows.schema.field("buf").type == pa.binary()


def test_texts_are_cut_at_the_nul_and_what_is_no_utf8_is_replaced(form):
    comms = [b"a\0junk..", b"a\0other.", b"\xffb\0\0\0\0\0\0", "é".encode() + bytes(6), b"eightchr", bytes(8)]
    _, found = table(form, *(payload(form, comm) for comm in comms))
    assert found["comm"].to_pylist() == ["a", "a", "\ufffdb", "é", "eightchr", ""]
    assert found["comm"].chunk(0).dictionary.to_pylist() == ["a", "\ufffdb", "é", "eightchr", ""]


def test_names_and_numbers_without_one(form):
    _, found = table(form, *(payload(form, half=half) for half in (1, 2, 7, 1)))
    assert found["half_name"].to_pylist() == ["one", None, None, "one"]
    assert found["half_name_2"].to_pylist() == ["", "two", "two|four", ""]


def test_what_points_outside_its_event_is_null_and_counted(form):
    places = [4 << 16 | 0xFFFF, 0xFFFF << 16 | 60, 1 << 16 | 84, 0]
    found, rows = table(form, *(payload(form, at=at) for at in places), payload(form))
    assert rows["text"].to_pylist() == [None, None, None, "hello", "hello"]
    assert found.dangling == {("trace_e", "text"): 3}


def test_more_texts_than_a_table_of_them_begins_with(form):
    payloads = [payload(form, comm=f"{i:x}".encode().ljust(8, b"\0"))[:72] for i in range(50)]
    header = ftrace_format.parse_header(form.header_text, big_endian=form.big)
    event = ftrace_format.parse(event_text("e", 7, FIELDS, PRINT), "s")
    names = [f"{i:07x}" for i in range(3000)]
    payloads = [payload(form, comm=name.encode() + b"\0") for name in names]
    pages = [form.page(1, *(form.event(1, each) for each in payloads[i : i + 40])) for i in range(0, 3000, 40)]
    found = decode([PageRun(stream(0), 0, 0, 4096, b"".join(pages))], ftrace_format.formats(header, [event]))
    assert found.tables["trace_e"]["comm"].to_pylist() == names


def test_names_of_columns_that_are_taken(form):
    fields = line("int pid", 8) + line("int event_pid", 12) + line("int x", 16) + line("int x_name", 20)
    rest = struct.pack(f"{form.order}HBBi4i", 7, 0, 0, 9, 1, 2, 3, 4)
    _, found = table(form, rest, fields=fields, print_fmt='__print_symbolic(REC->x, { 3, "three" })')
    assert found.select(found.column_names[-5:]).to_pylist() == [
        {"event_pid": 1, "event_event_pid": 2, "x": 3, "x_name_": "three", "x_name": 4}
    ]


def test_machines_without_common_fields(form):
    text = (
        event_text("e", 7, line("u32 a", 8)).replace("common_pid", "other_pid").replace("common_flags", "other_flags")
    )
    event = ftrace_format.parse(text, "s")
    header = ftrace_format.parse_header(form.header_text, big_endian=form.big)
    page = form.page(1, form.event(1, form.payload(7, bytes(10))))
    found = decode([PageRun(stream(0), 0, 0, 4096, page)], ftrace_format.formats(header, [event])).tables["trace_e"]
    assert found.select(["pid", "flags"]).to_pylist() == [{"pid": None, "flags": None}]


def test_the_context_as_the_kernel_writes_it():
    assert ftrace_columns.context_text(0x01, 0x02) == "d..2."
    assert ftrace_columns.context_text(0x1C, 0x10) == ".nH.1"
    assert ftrace_columns.context_text(0x81, 0) == "D...."
    assert ftrace_columns.context_text(0x26, 0) == ".B..."
    assert ftrace_columns.context_text(0x40, 0xF) == "..zf."


def test_what_lies_elsewhere_is_stored_once_however_many_fields_point_at_it(form):
    fields = "".join(line(f"__data_loc u32[] a{i}", 8 + 4 * i) for i in range(3))
    word = 400 << 16 | 20
    data = form.payload(7, bytes(6) + struct.pack(f"{form.order}3I", word, word, word) + bytes(400))
    _, found = table(form, data, data, fields=fields)
    assert [found[f"a{i}"].null_count for i in range(3)] == [0, 2, 2]


def test_to_name_values_has_a_limit(form, monkeypatch):
    monkeypatch.setattr(ftrace_names, "NAMING_LOOKS_MAX", 3)
    print_fmt = '"", __print_flags(REC->a, "|", { 1, "x" }, { 2, "y" }), __print_symbolic(REC->b, { 1, "one" })'
    fields = line("u32 a", 8) + line("u32 b", 12)
    data = [form.payload(7, bytes(6) + struct.pack(f"{form.order}2I", a, 1)) for a in (1, 2)]
    _, few = table(form, data[0], data[0], fields=fields, print_fmt=print_fmt)
    assert few.select(["a_name", "b_name"]).to_pylist() == 2 * [{"a_name": "x", "b_name": "one"}]
    _, many = table(form, *data, fields=fields, print_fmt=print_fmt)
    assert many["a_name"].null_count == 2


def test_what_a_table_does_not_look_at_makes_no_values_of_it(form, monkeypatch):
    monkeypatch.setattr(ftrace_names, "NAMED_VALUES_MAX", 8)
    print_fmt = (
        '"", __print_flags(REC->a & (1U << 31), "|", { (1U << 31), "Q" }), '
        '__print_symbolic((REC->b >> 4) & 3, { 1, "one" }, { 3, "three" }), __print_symbolic(REC->c, { 1, "c" })'
    )
    fields = line("u32 a", 8) + line("s64 b", 16, 8, 1) + line("u32 c", 24)
    rows = [(i << 20, (-1) ** i * (i << 8 | (i % 4) << 4), i) for i in range(4096)]
    data = [form.payload(7, bytes(6) + struct.pack(f"{form.order}IxxxxqI", *row)) for row in rows]
    pages = [form.page(1, *(form.event(1, each) for each in data[i : i + 64])) for i in range(0, len(data), 64)]
    event = ftrace_format.parse(event_text("e", 7, fields, print_fmt), "s")
    header = ftrace_format.parse_header(form.header_text, big_endian=form.big)
    found = decode([PageRun(stream(0), 0, 0, 4096, b"".join(pages))], ftrace_format.formats(header, [event]))
    table = found.tables["trace_e"]
    assert table["a_name"].to_pylist() == ["Q" if a >> 31 else "" for a, _, _ in rows]
    assert table["b_name"].to_pylist() == [{1: "one", 3: "three"}.get(b >> 4 & 3) for _, b, _ in rows]
    assert table["c_name"].null_count == len(rows)


def test_arrays_of_texts_are_lists(form):
    texts = [("alpha", "be,ta"), ("", "é"), ("alpha", "alpha"), ("same", "alpha")]
    data = []
    for pair in texts:
        behind, words = b"", []
        for each in pair:
            words.append(len(each.encode() + b"\0") << 16 | (20 + len(behind)))
            behind += each.encode() + b"\0"
        data.append(form.payload(7, bytes(6) + struct.pack(f"{form.order}3I", *words, 9) + behind))
    outside = [form.payload(7, bytes(6) + struct.pack(f"{form.order}3I", 4 << 16 | at, 0, 9)) for at in (17, 0xFFFF)]
    fields = line("__data_loc char[][2] s", 8, 8) + line("u32 z", 16)
    found, rows = table(form, *data, *outside, fields=fields)
    assert rows["s"].to_pylist() == [*map(list, texts), None, None]
    assert (rows["z"].to_pylist(), rows.schema.field("s").type) == ([9] * 6, pa.list_(pa.string()))
    assert found.dangling == {("trace_e", "s"): 2}


def test_texts_of_an_array_are_stored_once_however_many_words_point_at_them(form):
    word = 400 << 16 | 40
    data = form.payload(7, bytes(6) + struct.pack(f"{form.order}8I", *[word] * 8) + b"x" * 400)
    _, few = table(form, data, data, fields=line("__data_loc char[][1] s", 8, 4))
    assert few["s"].to_pylist() == [["x" * 400]] * 2
    _, many = table(form, data, data, fields=line("__data_loc char[][8] s", 8, 32))
    assert many["s"].to_pylist() == [None, None]


def test_a_name_is_of_the_table_whose_condition_holds_in_the_row(form):
    print_fmt = (
        '"", (REC->isa == 1) ? __print_symbolic(REC->a & 0xffff, { 16, "RDTSC" }, { 48, "EPT" }) : '
        '__print_symbolic(REC->a, { 16, "write_cr0" }, { 0x400, "npf" }), '
        '(REC->isa == 1) ? __print_flags(REC->a & ~0xffff, " ", { 0x80000000, "FAILED" }) : ""'
    )
    fields = line("unsigned int a", 8) + line("u32 isa", 12)
    given = [(16, 1), (16, 2), (0x400, 2), (0x400, 1), (0x80000030, 1), (0x80000030, 2)]
    data = [form.payload(7, bytes(6) + struct.pack(f"{form.order}2I", *each)) for each in given]
    found, rows = table(form, *data, fields=fields, print_fmt=print_fmt)
    assert rows["a_name"].to_pylist() == ["RDTSC", "write_cr0", "npf", None, "EPT", None]
    assert rows["a_name_2"].to_pylist() == ["", None, None, "", "FAILED", None]
    assert (rows.column_names[-2:], found.dangling) == (["a_name_2", "isa"], {})


def test_what_is_chosen_has_the_same_limits(form, monkeypatch):
    print_fmt = '"", REC->b ? __print_symbolic(REC->a, { 1, "one" }) : __print_symbolic(REC->a, { 5000, "many" })'
    fields = line("u32 a", 8) + line("u32 b", 12)
    data = [form.payload(7, bytes(6) + struct.pack(f"{form.order}2I", *each)) for each in ((1, 1), (5000, 0), (1, 0))]
    _, rows = table(form, *data, fields=fields, print_fmt=print_fmt)
    assert rows["a_name"].to_pylist() == ["one", "many", None]
    monkeypatch.setattr(ftrace_names, "NAMING_LOOKS_MAX", 2)
    _, rows = table(form, *data, fields=fields, print_fmt=print_fmt)
    assert rows["a_name"].to_pylist() == [None, "many", None]
