"""Runs of pages to tables: written ones, and those of this kernel against the kernel's own text."""

import ctypes
import os
import re
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from consumers.decode import ftrace_events, ftrace_format
from consumers.decode.ftrace_columns import context_text
from consumers.decode.ftrace_events import PageFault, PageLoss, PageRun, decode
from consumers.decode.ftrace_format import Kind, Place
from consumers.decode.ftrace_pages import Fault
from schemas.stream import Stream
from tests.consumers.decode import ftrace_kernel
from tests.consumers.decode.ftrace_writer import Form

COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)
T = 5_000_000_000
FORM = Form()


def event_text(name, number, fields, print_fmt='""'):
    return f"name: {name}\nID: {number}\nformat:\n{COMMON}{fields}\nprint fmt: {print_fmt}\n"


def tick(number=7, name="tick"):
    return ftrace_format.parse(event_text(name, number, "\tfield:int pid;\toffset:8;\tsize:4;\tsigned:1;\n"), "sys")


def formats(*events):
    return ftrace_format.formats(ftrace_format.parse_header(FORM.header_text), events)


def payload(number, pid, value, flags=0):
    return FORM.payload(
        number, bytes((flags, 0x12)) + pid.to_bytes(4, "little", signed=True) + value.to_bytes(4, "little")
    )


def stream(cpu, boot="b" * 32):
    return Stream("m", boot, "guest-kernel", "ftrace", f"set/cpu{cpu}", "mono")


def test_rows_come_by_stream_page_and_position_with_their_columns_in_front():
    pages = [
        FORM.page(T + i, FORM.event(1, payload(7, 40 + i, i)), FORM.event(2, payload(7, -1, 9, 0x19))) for i in range(3)
    ]
    runs = [
        PageRun(stream(1), 1, 0, 4096, pages[0], 77),
        PageRun(stream(0), 0, 5, 4096, pages[2]),
        PageRun(stream(0), 0, 3, 4096, memoryview(pages[0] + pages[1])),
    ]
    found = decode(runs, formats(tick()))
    table = found.tables["trace_tick"]
    assert table.schema == ftrace_events.spec("trace_tick", table.schema).schema
    assert [each.name for each in ftrace_events.FRONT] == table.column_names[:-1]
    rows = table.to_pylist()
    assert [(r["cpu"], r["page"], r["position"]) for r in rows] == [(0, p, i) for p in (3, 4, 5) for i in (0, 1)] + [
        (1, 0, 0),
        (1, 0, 1),
    ]
    assert rows[2] == {
        **stream(0)._asdict(), "cpu": 0, "page": 4, "position": 0, "ts_ns": T + 2, "arrival_ns": 0, "pid": 41, "flags": 0,
        "preempt_count": 0x12, "event_pid": 1,
    }  # fmt: skip
    assert (rows[-1]["pid"], rows[-1]["flags"], rows[-1]["arrival_ns"]) == (-1, 0x19, 77)
    assert (found.pages, found.events, found.by_stream) == (4, 8, {stream(0): 6, stream(1): 2})


def test_what_no_format_describes_is_kept_raw_and_counted():
    short = FORM.payload(7, bytes(2))
    page = FORM.page(T, FORM.event(1, payload(7, 1, 2)), FORM.event(1, payload(900, 1, 2)), FORM.event(1, short))
    found = decode([PageRun(stream(0), 0, 0, 4096, page)], formats(tick()))
    assert found.tables["trace_tick"].num_rows == 1
    unknown = found.tables["trace_unknown"].select(["position", "event_id", "reason", "data"]).to_pylist()
    assert unknown == [
        {"position": 1, "event_id": 900, "reason": "unknown id", "data": payload(900, 1, 2)},
        {"position": 2, "event_id": 7, "reason": "short", "data": short},
    ]
    assert (found.events, found.unknown, found.short) == (3, {900: 1}, {"trace_tick": 1})


def test_losses_and_faults_name_their_page():
    good = FORM.event(1, payload(7, 1, 2))
    pages = [FORM.page(T, good, missed=12), FORM.page(T, good, missed=1, stored=False), FORM.page(T, good, bytes(16))]
    found = decode([PageRun(stream(2), 2, 10, 4096, b"".join(pages) + b"rest")], formats(tick()))
    assert found.losses == [PageLoss(stream(2), 2, 10, 12), PageLoss(stream(2), 2, 11, None)]
    assert found.faults == [
        PageFault(stream(2), 2, 13, Fault.TRUNCATED, 0, 0, b"rest"),
        PageFault(stream(2), 2, 12, Fault.ZEROED, 32, 1, pages[2]),
    ]
    assert found.tables["trace_tick"].num_rows == 3


def test_many_groups_and_page_sizes_give_one_table_with_one_dictionary(monkeypatch):
    monkeypatch.setattr(ftrace_events, "_GROUP_BYTES", 4096)
    large = Form(page_bytes=8192)
    runs = [PageRun(stream(i), i, 0, 4096, FORM.page(T, FORM.event(1, payload(7, i, i)))) for i in range(5)]
    runs.append(PageRun(stream(9), 9, 0, 8192, large.page(T, large.event(1, payload(7, 9, 9)))))
    table = decode(runs, formats(tick())).tables["trace_tick"]
    assert table["event_pid"].to_pylist() == [0, 1, 2, 3, 4, 9]
    assert table["instance"].to_pylist() == [f"set/cpu{i}" for i in (0, 1, 2, 3, 4, 9)]
    assert len({chunk.dictionary.to_pylist().__repr__() for chunk in table["instance"].chunks}) == 1


def test_no_pages_no_tables():
    assert decode([], formats(tick())).tables == {}
    assert decode([PageRun(stream(0), 0, 0, 4096, b"")], formats(tick())).events == 0


EVENTS = (
    "sched", "irq", "timer", "workqueue", "block", "net", "raw_syscalls", "kmem", "writeback", "task", "signal", "skb",
    "napi", "rcu", "ipi", "cgroup", "filemap", "jbd2", "ext4", "power", "sock", "tlb", "irq_vectors", "fib", "tcp", "udp",
    "mmap", "csd", "percpu", "syscalls/sys_enter_openat", "xfs", "btrfs", "filelock", "compaction", "rseq", "x86_fpu",
)  # fmt: skip
# The text shows something else under the field's name than the field.
NOT_THE_FIELD = {
    ("tlb_flush", "pages"),
}


@pytest.mark.kernel
def test_every_event_is_what_the_kernel_says_it_is(tmp_path):
    with ftrace_kernel.instance(EVENTS, buffer_kb=32768) as path:
        ftrace_kernel.busy(0.3, tmp_path)
        (path / "tracing_on").write_text("0")
        formats_ = ftrace_kernel.formats(path)
        seen, compared = Counter(), Counter()
        for cpu in ftrace_kernel.cpus(path):
            stats = ftrace_kernel.stats(path, cpu)
            want = list(ftrace_kernel.text(path, cpu))
            found = decode([ftrace_kernel.run(cpu, ftrace_kernel.pages(path, cpu))], formats_)
            lost = sum(loss.count for loss in found.losses)
            assert (found.faults, found.unknown, found.short, found.dangling) == ([], {}, {}, {})
            assert found.events == stats["entries"] == ftrace_kernel.stats(path, cpu)["read events"]
            assert lost == stats["overrun"]
            assert len(want) == found.events
            compare(want, found, formats_, seen, compared)
    print({name: (seen[name], sum(n for (event, _), n in compared.items() if event == name)) for name in seen})
    assert len(seen) >= 20
    assert len({event for event, _ in compared}) >= 20
    kinds = {(field.kind, field.place) for e in formats_.events.values() if e.name in seen for field in e.fields}
    assert {(Kind.TEXT, Place.DATA_LOC), (Kind.TEXT, Place.FIXED), (Kind.INTEGERS, Place.FIXED)} <= kinds


def compare(want, found, formats_, seen, compared):
    by_table = {event.id: event for event in formats_.events.values()}
    rows = [None] * len(want)
    places = []
    for number, event in by_table.items():
        table = found.tables.get(formats_.table_names[number])
        if table is not None:
            places += [((r["page"], r["position"]), event, r) for r in table.to_pylist()]
    places.sort(key=lambda each: each[0])
    assert len(places) == len(rows)
    for (_, pid, cpu, context, ts_us, name, rest), (_, event, row) in zip(want, places, strict=True):
        where = (name, rest, row)
        assert event.name == name, where
        assert (row["pid"], row["cpu"], context_text(row["flags"], row["preempt_count"])) == (pid, cpu, context), where
        # The kernel rounds to the nearest microsecond.
        assert abs(row["ts_ns"] - 1000 * ts_us) <= 500, where
        seen[name] += 1
        for field in event.fields:
            column = f"event_{field.name}" if f"event_{field.name}" in row else field.name
            if shown(field, row[column], row.get(f"{column}_name"), rest, name):
                compared[name, field.name] += 1


def shown(field, value, named, rest, event):
    """Assert that `name=` in the text is the value; False where the text does not say."""
    match = re.search(rf"(?:^|[ ,({{]){re.escape(field.name)}[=:] ?(?!=)(\S*)", rest)
    if match is None or (event, field.name) in NOT_THE_FIELD:
        return False
    text = match[1].rstrip(",)}")
    if field.kind == Kind.TEXT:
        assert rest[match.start(1) :].startswith(value), (event, field.name, value, rest)
        return True
    if field.kind not in (Kind.INTEGER, Kind.BOOL) or not re.fullmatch(r"-?(0x)?[0-9a-f]+", text):
        return named is not None and text.startswith(named)
    read = {int(text, base) for base, digits in ((16, "0-9a-f"), (10, "0-9"), (8, "0-7")) if fits(text, base, digits)}
    assert int(value) % (1 << 8 * field.size) in {each % (1 << 8 * field.size) for each in read}, (
        event,
        field.name,
        value,
        rest,
    )
    return True


def fits(text, base, digits):
    return re.fullmatch(rf"-?[{digits}]+", text.replace("0x", "") if base == 16 else text)


@pytest.mark.kernel
@pytest.mark.parametrize("pages_first", [0, 3])
def test_what_was_overwritten_is_counted_exactly(tmp_path, pages_first):
    with ftrace_kernel.instance(("sched", "raw_syscalls", "kmem"), buffer_kb=64) as path:
        ftrace_kernel.busy(0.3, tmp_path)
        parts = {cpu: ftrace_kernel.pages(path, cpu, most=pages_first) for cpu in ftrace_kernel.cpus(path)}
        ftrace_kernel.busy(0.3, tmp_path)
        (path / "tracing_on").write_text("0")
        formats_ = ftrace_kernel.formats(path)
        for cpu, first in parts.items():
            data = first + ftrace_kernel.pages(path, cpu)
            found = decode([ftrace_kernel.run(cpu, data)], formats_)
            stats = ftrace_kernel.stats(path, cpu)
            assert stats["overrun"] > 1000
            assert found.events == stats["read events"]
            known = [loss.count for loss in found.losses if loss.count is not None]
            full = [data[loss.page] for loss in found.losses if loss.count is None]
            # The kernel keeps no count where the page has no room for one: then only its own sum knows.
            assert all(int.from_bytes(page[8:12], "little") % (1 << 27) > 4080 - 8 for page in full)
            assert sum(known) < stats["overrun"] if full else sum(known) == stats["overrun"]
            assert (found.faults, found.unknown) == ([], {})


@pytest.mark.kernel
@pytest.mark.parametrize("kib", [8, 16, 64])
def test_larger_sub_buffers(tmp_path, kib):
    with ftrace_kernel.instance((), buffer_kb=2048) as path:
        (path / "buffer_subbuf_size_kb").write_text(str(kib))
        for event in ("sched", "raw_syscalls"):
            (path / "events" / event / "enable").write_text("1")
        ftrace_kernel.busy(0.2, tmp_path)
        (path / "tracing_on").write_text("0")
        formats_ = ftrace_kernel.formats(path)
        for cpu in ftrace_kernel.cpus(path):
            pages = ftrace_kernel.pages(path, cpu, kib * 1024)
            found = decode([ftrace_kernel.run(cpu, pages, kib * 1024)], formats_)
            stats = ftrace_kernel.stats(path, cpu)
            assert found.faults == []
            assert found.events == stats["read events"]
            known = [loss.count for loss in found.losses if loss.count is not None]
            # Of a page without room for a count only the kernel's own sum knows.
            whole = len(known) == len(found.losses)
            assert sum(known) == stats["overrun"] if whole else sum(known) < stats["overrun"]


def text_of(path, cpu):
    return (path / "per_cpu" / f"cpu{cpu}" / "trace").read_bytes().decode("utf-8", "replace")


@pytest.mark.kernel
def test_stacks_have_every_caller_that_the_kernel_says(tmp_path):
    with ftrace_kernel.instance(()) as path:
        for option in ("stacktrace", "sym-addr"):
            (path / "options" / option).write_text("1")
        (path / "events" / "sched" / "sched_switch" / "enable").write_text("1")
        ftrace_kernel.busy(0.2, tmp_path)
        (path / "tracing_on").write_text("0")
        formats_ = ftrace_kernel.formats(path, "ftrace:kernel_stack")
        lengths = Counter()
        for cpu in ftrace_kernel.cpus(path):
            whole = text_of(path, cpu).split("<stack trace>\n")[1:]
            want = [[int(at, 16) for at in re.findall(r"^ => .* <([0-9a-f]+)>$", each, re.MULTILINE)] for each in whole]
            found = decode([ftrace_kernel.run(cpu, ftrace_kernel.pages(path, cpu))], formats_)
            assert (found.faults, found.unknown, found.short) == ([], {}, {})
            if want:
                rows = found.tables["trace_kernel_stack"]
                assert rows["caller"].to_pylist() == want
                assert rows["size"].to_pylist() == [len(each) for each in want]
            lengths.update(map(len, want))
    print(lengths)
    assert max(lengths) > 8


@pytest.mark.kernel
def test_raw_data_is_every_byte_that_the_kernel_says():
    with ftrace_kernel.instance(()) as path:
        marker = os.open(path / "trace_marker_raw", os.O_WRONLY)
        for i, data in enumerate((b"AB\0CD\0\xff\x80EF", b"text", bytes(range(256)))):
            os.write(marker, i.to_bytes(4, sys.byteorder) + data)
        os.close(marker)
        (path / "tracing_on").write_text("0")
        want, rows = [], []
        for cpu in ftrace_kernel.cpus(path):
            told = re.findall(r": # ([0-9a-f]+) buf: ([0-9a-f ]*)$", text_of(path, cpu), re.MULTILINE)
            want += [(int(number, 16), bytes.fromhex(data)) for number, data in told]
            run = ftrace_kernel.run(cpu, ftrace_kernel.pages(path, cpu))
            found = decode([run], ftrace_kernel.formats(path, "ftrace:raw_data"))
            for table in found.tables.values():
                rows += [(row["id"], row["buf"]) for row in table.to_pylist()]
        assert rows == want
        assert len(want) == 3


@pytest.mark.kernel
def test_an_array_of_texts_of_a_probe_is_what_the_kernel_says():
    arguments = "s=+0({register}):string[3] z=+0(+0({register})):u8"
    with ftrace_kernel.probe("labs", arguments) as (labs, event), ftrace_kernel.instance((event,)) as path:
        for texts in ((b"alpha", b"be,ta", b""), ("é".encode(), b"x" * 60, b"alpha")):
            labs((ctypes.c_char_p * 3)(*texts))
        (path / "tracing_on").write_text("0")
        formats_ = ftrace_kernel.formats(path)
        (path / "events" / event / "enable").write_text("0")
        want, rows = [], []
        for cpu in ftrace_kernel.cpus(path):
            want += re.findall(r" s=\{(.*)\} z=(\d+)$", text_of(path, cpu), re.MULTILINE)
            found = decode([ftrace_kernel.run(cpu, ftrace_kernel.pages(path, cpu))], formats_)
            for table in found.tables.values():
                rows += [(row["s"], str(row["z"])) for row in table.to_pylist()]
        assert [(",".join(f'"{text}"' for text in s), z) for s, z in rows] == want
        assert len(want) >= 2


def test_random_bytes_are_no_error():
    rng = np.random.default_rng(3)
    event = ftrace_format.parse(
        event_text(
            "odd",
            7,
            "\tfield:__data_loc char[] s;\toffset:8;\tsize:4;\tsigned:0;\n"
            "\tfield:__rel_loc u16[] r;\toffset:12;\tsize:4;\tsigned:0;\n"
            "\tfield:char tail[];\toffset:16;\tsize:0;\tsigned:0;\n",
        ),
        "sys",
    )
    for _ in range(30):
        records = [FORM.event(1, FORM.payload(7, rng.bytes(int(rng.integers(2, 110))))) for _ in range(30)]
        found = decode([PageRun(stream(0), 0, 0, 4096, FORM.page(T, *records))], formats(event))
        for table in found.tables.values():
            table.validate(full=True)
        assert isinstance(found.tables["trace_odd"]["s"].chunk(0), pa.DictionaryArray)


@pytest.mark.kernel
def test_constant_texts_are_what_the_kernel_shows(tmp_path):
    with ftrace_kernel.instance(("rcu/rcu_utilization",)) as path:
        ftrace_kernel.busy(0.2, tmp_path)
        (path / "tracing_on").write_text("0")
        formats_ = ftrace_kernel.formats(path)
        seen = set()
        for cpu in ftrace_kernel.cpus(path):
            want = re.findall(r"rcu_utilization: (.*)$", text_of(path, cpu), re.MULTILINE)
            found = decode([ftrace_kernel.run(cpu, ftrace_kernel.pages(path, cpu))], formats_)
            names = found.tables["trace_rcu_utilization"]["s_name"].to_pylist() if found.tables else []
            assert names == want
            seen.update(names)
    assert len(seen) >= 4
