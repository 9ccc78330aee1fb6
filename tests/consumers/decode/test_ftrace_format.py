"""Format files: those of a kernel, odd ones, and hostile ones.

A million mutated ones: HYPOCENTER_FUZZ_FORMATS=1000000 python -m pytest -k mutated tests/consumers/decode
"""

import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from consumers.decode import ftrace_events, ftrace_format
from consumers.decode.ftrace_events import PageRun
from consumers.decode.ftrace_format import Kind, Place, formats, parse, parse_header
from schemas.errors import BadInputError
from schemas.stream import Stream
from tests.consumers.decode.ftrace_writer import Form
from tests.consumers.decode.test_ftrace_events import event_text, tick

FUZZ_FORMATS = int(os.environ.get("HYPOCENTER_FUZZ_FORMATS", "20000"))


def line(what, offset=8, size=4, signed=0):
    return f"\tfield:{what};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n"


def one(what, size=4, long_bytes=8):
    return parse(event_text("e", 1, line(what, size=size)), "s", long_bytes).fields[0]


@pytest.mark.parametrize(
    ("what", "size", "kind", "place", "element"),
    [
        ("unsigned int flags", 4, Kind.INTEGER, Place.FIXED, 4),
        ("enum zone_type idx", 4, Kind.INTEGER, Place.FIXED, 4),
        ("bool on", 1, Kind.BOOL, Place.FIXED, 1),
        ("char state", 1, Kind.INTEGER, Place.FIXED, 1),
        ("const void * p", 8, Kind.POINTER, Place.FIXED, 8),
        ("const char *const *argv", 8, Kind.POINTER, Place.FIXED, 8),
        ("struct page *page", 4, Kind.POINTER, Place.FIXED, 4),
        ("char comm[16]", 16, Kind.TEXT, Place.FIXED, 1),
        ("char comm[TASK_COMM_LEN]", 16, Kind.TEXT, Place.FIXED, 1),
        ("u8 mac[6]", 6, Kind.RAW, Place.FIXED, 1),
        ("unsigned long args[6]", 48, Kind.INTEGERS, Place.FIXED, 8),
        ("unsigned long args[N]", 48, Kind.INTEGERS, Place.FIXED, 8),
        ("struct in6_addr a", 16, Kind.RAW, Place.FIXED, 0),
        ("struct pair p", 8, Kind.RAW, Place.FIXED, 0),
        ("guid_t id", 16, Kind.RAW, Place.FIXED, 0),
        ("unsigned int mode:3", 4, Kind.BITS, Place.FIXED, 4),
        ("__data_loc char[] name", 4, Kind.TEXT, Place.DATA_LOC, 1),
        ("__data_loc char[] name", 2, Kind.TEXT, Place.DATA_LOC, 1),
        ("__data_loc u64[] name", 2, Kind.RAW, Place.FIXED, 0),
        ("__rel_loc char[] name", 4, Kind.TEXT, Place.REL_LOC, 1),
        ("__data_loc u64[] addrs", 4, Kind.INTEGERS, Place.DATA_LOC, 8),
        ("__data_loc cpumask_t mask", 4, Kind.INTEGERS, Place.DATA_LOC, 8),
        ("__data_loc u8[] buf", 4, Kind.RAW, Place.DATA_LOC, 1),
        ("__data_loc char[][3] names", 12, Kind.TEXTS, Place.DATA_LOC, 1),
        ("__data_loc char[][1] names", 4, Kind.TEXTS, Place.DATA_LOC, 1),
        ("__data_loc char[][2] names", 12, Kind.RAW, Place.FIXED, 0),
        ("__data_loc char[][65] names", 260, Kind.RAW, Place.FIXED, 0),
        ("__data_loc u32[][1] names", 4, Kind.RAW, Place.FIXED, 0),
        ("__rel_loc char[][2] names", 8, Kind.RAW, Place.FIXED, 0),
        ("__data_loc struct thing[] things", 4, Kind.RAW, Place.DATA_LOC, 1),
        ("char buf[]", 0, Kind.TEXT, Place.TAIL, 1),
        ("unsigned long args[]", 0, Kind.INTEGERS, Place.TAIL, 8),
    ],
)
def test_kinds_of_fields(what, size, kind, place, element):
    field = one(what, size)
    assert (field.kind, field.place, field.element_size) == (kind, place, element)


def test_a_long_of_four_bytes():
    assert one("__data_loc unsigned long[] m", long_bytes=4).element_size == 4
    assert one("unsigned long args[]", 0, long_bytes=4).element_size == 4


STACK = line("int size", 8, 4, 1) + line("unsigned long caller[8]", 16, 64)


@pytest.mark.parametrize(
    ("system", "name", "fields", "place", "least"),
    [
        ("ftrace", "kernel_stack", STACK, Place.TAIL, 16),
        ("ftrace", "kernel_stack", STACK.replace("[8]", "[]").replace("size:64", "size:0"), Place.TAIL, 16),
        # Of these the ring has what the format says.
        ("ftrace", "user_stack", STACK, Place.FIXED, 80),
        ("mine", "kernel_stack", STACK, Place.FIXED, 80),
        ("ftrace", "kernel_stack", STACK.replace("int size", "int count"), Place.FIXED, 80),
        ("ftrace", "kernel_stack", STACK + line("int behind", 80), Place.FIXED, 84),
    ],
)
def test_a_kernels_stack_has_as_many_callers_as_its_size_says(system, name, fields, place, least):
    event = parse(event_text(name, 4, fields), system)
    caller = event.fields[1]
    assert (caller.kind, caller.place, caller.element_size, event.size) == (Kind.INTEGERS, place, 8, least)
    assert caller.count is (event.fields[0] if place == Place.TAIL else None)


@pytest.mark.parametrize(
    ("system", "name", "kind"),
    [("ftrace", "raw_data", Kind.RAW), ("ftrace", "print", Kind.TEXT), ("mine", "raw_data", Kind.TEXT)],
)
def test_what_is_written_raw_is_no_text(system, name, kind):
    event = parse(event_text(name, 4, line("unsigned int id") + line("char buf[]", 12, 0)), system)
    buf = event.fields[1]
    assert (buf.kind, buf.place, buf.element_size, event.size) == (kind, Place.TAIL, 1, 12)


def test_an_event():
    event = tick()
    assert (event.id, event.system, event.name, event.size) == (7, "sys", "tick", 12)
    assert [field.name for field in event.common] == [
        "common_type",
        "common_flags",
        "common_preempt_count",
        "common_pid",
    ]
    assert [(field.name, field.type, field.signed) for field in event.fields] == [("pid", "int", True)]


@pytest.mark.parametrize("form", [Form(), Form(long_bytes=4, page_bytes=16384)])
def test_a_header(form):
    header = parse_header(form.header_text)
    assert (header.commit_offset, header.commit_bytes, header.data_offset) == (8, form.long_bytes, form.data_at)
    assert header.data_bytes == form.page_bytes - form.data_at


def test_events_of_one_name_are_told_apart_by_their_system():
    events = [parse(event_text("tick", i, line("int a")), system) for i, system in enumerate(("a", "b-c"))]
    others = [parse(event_text("unknown", 5, line("int a")), "x"), parse(event_text("tock", 6, line("int a")), "x")]
    names = formats(parse_header(Form().header_text), [*events, *others]).table_names
    assert names == {0: "trace_a_tick", 1: "trace_b_c_tick", 5: "trace_x_unknown", 6: "trace_tock"}


def test_every_table_has_a_name_of_its_own_that_sql_and_a_disk_take():
    long = "e" * 128
    told = [("a", "tick"), ("A", "Tick"), ("b", "x"), ("c", "x"), ("d", "b_x"), ("s" * 128, long), ("t" * 128, long)]
    events = [parse(event_text(name, i, line("int a")), system) for i, (system, name) in enumerate(told)]
    names = formats(parse_header(Form().header_text), events).table_names
    assert len(set(names.values())) == len(told)
    assert [names[i].rpartition("_")[0] for i in (0, 1)] == ["trace_a_tick", "trace_a_tick"]
    assert [names[i].rpartition("_")[0] for i in (2, 4)] == ["trace_b_x", "trace_b_x"]
    assert names[3] == "trace_c_x"
    assert all(name == name.lower() and len(name) <= 160 for name in names.values())
    # The same on a machine that has others beside them in another order.
    moved = [parse(event_text(name, 9 - i, line("int a")), system) for i, (system, name) in enumerate(told)]
    again = formats(parse_header(Form().header_text), moved[::-1]).table_names
    assert {9 - i: name for i, name in again.items()} == names


def test_an_id_that_two_events_claim_is_nobodys():
    told = [("a", 1), ("b", 2), ("c", 2), ("d", 3), ("d", 4)]
    events = [parse(event_text(name, number, line("int a")), "s") for name, number in told]
    found = formats(parse_header(Form().header_text), events)
    assert (set(found.events), found.table_names) == ({1, 4}, {1: "trace_a", 4: "trace_d"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name: x\nID: 1\n",
        event_text("e", 70000, line("int a")),
        event_text("e", "x", line("int a")),
        event_text("e", "²", line("int a")),
        event_text("../e", 1, line("int a")),
        event_text("e" * 200, 1, line("int a")),
        event_text("e", 1, line("int a") * 2),
        event_text("e", 1, line("int a", offset=65535)),
        event_text("e", 1, line("int a", size=99999999)),
        event_text("e", 1, line("int " + "a" * 500)),
        event_text("e", 1, "\tfield:int a; offset:x;\n"),
        event_text("e", 1, "".join(line(f"int a{i}") for i in range(300))),
        event_text("e", 1, "").replace("common_type;\toffset:0;\tsize:2", "common_type;\toffset:2;\tsize:4"),
        event_text("e", 1, line("int a", 8) + line("int b", 10)),
        event_text("e", 1, line("u8 a[]", 12, 0) + line("u8 b[]", 12, 0)),
        event_text("e", 1, "".join(line(f"unsigned long b{i}:1", 8, 8) for i in range(20))),
        event_text("e", 1, "".join(line(f"__data_loc char[] t{i}", 8 + 2 * i, 2) for i in range(9))),
        "x" * (ftrace_format.FORMAT_BYTES_MAX + 1),
    ],
)
def test_what_is_no_format_is_refused(text):
    with pytest.raises(BadInputError) as e:
        parse(text, "sys")
    assert e.value.reason == "format"


def test_what_is_no_header_is_refused():
    for text in (
        "",
        Form().header_text.replace("size:8", "size:3"),
        Form().header_text.replace("offset:16", "offset:2"),
    ):
        with pytest.raises(BadInputError):
            parse_header(text)


def mutated(random_, text):
    data = list(text)
    for _ in range(random_.choice((1, 3, 9))):
        at = random_.randrange(len(data))
        data[at : at + random_.choice((0, 1, 8))] = random_.choice(
            (
                "",
                "(",
                "{",
                '"',
                ";",
                "\n",
                "9",
                "0",
                "9" * 40,
                "[",
                ":",
                "\t",
                "REC->n",
                "é",
                "signed:1",
                "char",
                "[8]",
                "__rel_loc ",
            )
        )
    return "".join(data)


def fuzz(count, seed):
    """Return how many of so many mutated formats were taken; pages of their events are decoded, whatever is in them."""
    random_ = random.Random(seed)
    form, header = Form(), parse_header(Form().header_text)
    written = event_text(
        "e",
        1,
        line("char comm[16]", 8, 16)
        + line("__data_loc char[] n", 24)
        + line("u8 a[3]", 28, 3)
        + line("int s", 31, 4, 1)
        + line("__data_loc char[][2] m", 36, 8)
        + line("u16 q", 44, 2),
        '"%s", __print_flags(REC->n & (1 | 2), "|", { (1UL << 3), "A" }) : "0", __print_symbolic(REC->s, { 1, "B" }), '
        '(REC->q < 2) ? __print_symbolic(REC->s, { 1, "C" }) : REC->q & 8 ? __print_flags(REC->s, "", { 2, "D" }) : ""',
    )
    texts = [("s", written), ("ftrace", event_text("kernel_stack", 1, STACK))]
    # Long enough for most, and too short for some; what points elsewhere points anywhere.
    payloads = [form.payload(1, random_.randbytes(random_.choice((8, 30, 33, 44, 60)))) for _ in range(40)]
    pages = form.page(5, *(form.event(1, payload) for payload in payloads))
    stream, taken = Stream("m", "b" * 32, "guest-kernel", "ftrace", "set/cpu0", "mono"), 0
    for i in range(count):
        system, text = texts[i % 7 == 0]
        try:
            event = parse(mutated(random_, text), system)
        except BadInputError:
            continue
        assert event.size <= ftrace_format.PAYLOAD_BYTES_MAX
        taken += 1
        if i % 10 == 0:
            found = ftrace_events.decode([PageRun(stream, 0, 0, 4096, pages)], formats(header, [event]))
            assert sum(table.num_rows for table in found.tables.values()) == found.events == len(payloads)
    return taken


def test_mutated_formats_are_parsed_or_refused_and_read_nothing_outside():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    assert FUZZ_FORMATS // 10 < fuzz(FUZZ_FORMATS, seed) < FUZZ_FORMATS


def test_mutated_formats_with_every_index_checked(tmp_path):
    code = "from tests.consumers.decode.test_ftrace_format import fuzz; fuzz(5000, 1)"
    bounds = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={**os.environ, **bounds})


@pytest.mark.kernel
def test_every_event_of_this_kernel_is_read():
    root = Path("/sys/kernel/tracing/events")
    found = [parse(path.read_text(), path.parent.parent.name) for path in root.glob("*/*/format")]
    if not found:
        pytest.skip("needs root and tracefs")
    known = formats(parse_header((root / "header_page").read_text()), found)
    assert len(known.table_names) == len(found)
    assert sum(len(event.names) for event in found) > 100


@pytest.mark.parametrize(
    "what",
    [
        "field:" + " " * 60_000,
        "field:" + " " * 60_000 + ";\toffset:8;\tsize:4;",
        "field:int a;" + " " * 60_000,
        "field:int a;\toffset:8;" + "\t" * 60_000,
        " " * 60_000 + "field",
        "field:" + ("a " * 190) + ";\toffset:8;\tsize:4;",
        "field:" + ("[" * 380) + ";\toffset:8;\tsize:4;",
        "name: x" + " " * 60_000 + "y",
        "name:" + "\t" * 60_000,
        "field:__data_loc " + " " * 200 + "char[] a;\toffset:8;\tsize:4;",
    ],
)
def test_hostile_lines_take_no_time(what):
    start = time.process_time()
    with contextlib.suppress(BadInputError):
        parse(event_text("e", 1, what + "\n"), "s")
    assert time.process_time() - start < 0.5
