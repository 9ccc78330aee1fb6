"""Files of trace-cmd's, written here: every form, every cut, and what hostile ones do."""

import random
import tracemalloc
from collections import Counter

import pyarrow.parquet as pq
import pytest

from consumers.archives import trace, trace_dat_data
from consumers.archives.base import Tags
from consumers.archives.store import store
from consumers.archives.trace_dat import TraceDat
from consumers.decode import ftrace_format, registry
from consumers.decode.ftrace_format import Kind, Place
from consumers.lake.layout import open_lake
from consumers.lake.snapshot import snapshot
from schemas import ftrace
from schemas.errors import BadInputError, UsageError
from schemas.frame import encode
from tests.consumers.archives import _trace_dat as writer
from tests.consumers.archives import trace_cmd
from tests.consumers.archives._trace_dat import WRITERS, sample
from tests.consumers.decode.ftrace_writer import Form

FORMS = [Form(big, long_bytes, size) for big in (False, True) for long_bytes in (4, 8) for size in (4096, 16384)]
TAGS = Tags("m", "b", "host", "r")


@pytest.fixture
def opened(tmp_path):
    """Call with the content of a file for the archive that it is."""

    def call(content):
        path = tmp_path / "some.dat"
        path.write_bytes(content)
        return TraceDat(path)

    return call


def frames(archive):
    found = list(archive.frames(TAGS, 1, lambda done, total: None))
    for each in found:
        encode(each)  # holds it to the limits of a frame
    return found


class Seen:
    """What frames say, by stream."""

    def __init__(self, found):
        self.pages, self.dead, self.lost, self.events, self.unsure = {}, {}, {}, {}, set()
        for each in found:
            name = each.stream.instance
            for loss in each.losses:
                if loss.unit == "event":
                    self.events.setdefault(name, []).append((loss.kind, loss.first_position, loss.count, loss.reason))
                elif loss.count is None:
                    self.unsure.add(name)
                else:
                    self.lost[name] = self.lost.get(name, 0) + loss.count
            if each.encoding != ftrace.PAGES_ENCODING:
                continue
            try:
                registry.decoder_for(each.encoding, 1).check(each)
            except BadInputError:
                self.dead[name] = self.dead.get(name, 0) + each.next - each.first
                continue
            pages = ftrace.unpack(each.body)
            size = pages.page_bytes
            mine = self.pages.setdefault(name, {})
            mine.update({each.first + i: bytes(pages.data[i * size : (i + 1) * size]) for i in range(pages.count)})


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("version", WRITERS)
def test_every_page_comes_in_order_with_what_was_lost_before_it(opened, version, form):
    dat = sample(
        form, stats=("CPU: 1\nentries: 0\ndropped events: 4\n", "\nBuffer: second\n", "CPU: 0\ncommit overrun: 2\n")
    )
    archive = opened(WRITERS[version](dat))
    assert (archive.machine, archive.surface) == ("node-1", "ftrace")
    found = frames(archive)
    seen = Seen(found)
    want = {
        f"{name or 'top'}/cpu{cpu}": dict(enumerate(pages))
        for name, cpus in dat.buffers.items()
        for cpu, pages in cpus.items()
    }
    assert seen.pages == {name: pages for name, pages in want.items() if pages}
    assert (seen.dead, seen.lost, seen.unsure) == ({}, {}, set())
    assert seen.events == {
        "top/cpu1": [("overwrite", 0, 17, "ring-overrun"), ("drop", 2, 4, "dropped-events")],
        "second/cpu0": [("drop", 1, 2, "commit-overrun")],
    }
    described = [ftrace.unpack_formats(each.body) for each in found if each.encoding == ftrace.FORMATS_ENCODING]
    assert [each.events for each in described] == [{"ftrace:print": writer.OWN, "sys:tick": writer.TICK}] * 2
    for each in described:
        assert each.printk_formats == dat.printk
        assert (each.byteorder, each.word_bytes, each.page_bytes) == (
            "big" if form.big else "little",
            form.long_bytes,
            form.page_bytes,
        )
    assert {each.stream.clock for each in found} == {"mono"}


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize("lines", [0, 5000])
def test_constant_texts_are_none_or_as_many_as_a_description_has(opened, version, lines):
    text = '0xffffffff8281aa07 : "thaw_processes"\n' * lines
    described = frames(opened(WRITERS[version](sample(Form(), printk=text))))[0]
    found = ftrace.unpack_formats(described.body).printk_formats
    assert text.startswith(found)
    assert bool(found) is bool(lines)
    assert found.endswith("\n") or not found


@pytest.mark.parametrize("version", WRITERS)
def test_without_a_clock_it_is_unknown(opened, version):
    found = frames(opened(WRITERS[version](sample(Form(), clock=""))))
    assert {each.stream.clock for each in found} == {trace.UNKNOWN_CLOCK}


@pytest.mark.parametrize("version", WRITERS)
def test_a_clock_that_trace_cmd_converts_is_the_kernels(opened, version):
    found = frames(opened(WRITERS[version](sample(Form(), ring_clock="tsc2nsec"))))
    assert {each.stream.clock for each in found} == {"x86-tsc"}


def test_a_writer_that_knows_only_the_machines_pages_is_corrected_by_the_header(opened):
    form = Form(page_bytes=8192)
    dat = sample(form)
    content = writer.v7(dat._replace(buffers={"": dat.buffers[""]}))
    stated = b"mono\0" + dat.number(4, 8192)
    assert content.count(stated) == 1
    seen = Seen(frames(opened(content.replace(stated, b"mono\0" + dat.number(4, 4096)))))
    assert seen.pages == {f"top/cpu{cpu}": dict(enumerate(pages)) for cpu, pages in dat.buffers[""].items()}


@pytest.mark.parametrize(("rest", "clock"), [(b"[xyz]", "xyz"), (b"\xff" * 5, "mono"), (b"", "mono")])
def test_rubbish_where_the_clock_should_be_leaves_that_of_the_options(opened, rest, clock):
    dat = sample(Form(), ring_clock="local")
    content = writer.v6(dat._replace(buffers={"": dat.buffers[""]}))
    at = content.index(b"[local]") - 8
    content = content[:at] + dat.sized(8, rest).ljust(15, b"\0") + content[at + 15 :]
    assert {each.stream.clock for each in frames(opened(content))} == {clock}


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        (b"", "format", "does not begin as one"),
        (b"PERFILE2" + bytes(99), "format", "does not begin as one"),
        (writer.MAGIC + b"5\0" + bytes(99), "version", "version 5, and 6 and 7 can be read"),
        (writer.MAGIC + b"8\0" + bytes(99), "version", "version 8, and 6 and 7"),
        (writer.MAGIC + b"7" * 99, "format", "no text of at most 16 bytes"),
        (writer.MAGIC + b"6\0\2\x08" + bytes(99), "format", "byte order 2 and words of 8 bytes"),
        (writer.MAGIC + b"6\0\0\x05" + bytes(99), "format", "byte order 0 and words of 5 bytes"),
        (writer.v6(sample(Form()), kind=b"latency  \0"), "format", "of the type latency"),
        (writer.v6(sample(Form()), kind=b"something\0"), "format", "data of an unknown type"),
        (writer.v7(sample(Form())).replace(b"\0none\0\0", b"\0lzma\0\0"), "compression", "compressed by 'lzma'; zstd and zlib"),
        (writer.v7(sample(Form())._replace(buffers={})), "format", "has no buffer of pages"),
        (
            writer.v7(sample(Form())._replace(buffers={}), option_data=[b"\x16\0\x04\0\0\0abcd"]),
            "format",
            "of the type latency",
        ),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_said_in_one_sentence(opened, content, reason, said):
    with pytest.raises(BadInputError, match=said) as error:
        opened(content)
    assert error.value.reason == reason
    assert "some.dat" in error.value.detail


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.dat: No such file"):
        TraceDat(tmp_path / "none.dat")
    with pytest.raises(UsageError, match="Is a directory"):
        TraceDat(tmp_path)


# A cut in front of the pages is an error. One in them leaves every whole page; what is missing is counted.
@pytest.mark.parametrize("version", WRITERS)
def test_a_file_cut_off_anywhere(tmp_path, version):
    dat = sample(Form())
    content = WRITERS[version](dat)
    path = tmp_path / "cut.dat"
    path.write_bytes(content)
    whole = Seen(frames(TraceDat(path))).pages
    said, imports = [], 0
    # All places where a number or a text may end, and some in the pages, which are alike.
    places = [at for at in range(len(content) - 1, -1, -1) if any(content[at - 4 : at + 4]) or at % 512 == 0]
    for at in places:
        with path.open("r+b") as file:
            file.truncate(at)
        try:
            seen = Seen(frames(TraceDat(path)))
        except BadInputError as e:
            said.append(e.detail)
            continue
        imports += 1
        for name, pages in seen.pages.items():
            assert pages == {i: whole[name][i] for i in range(len(pages))}
        # Of version 7 the last buffer's options come behind it: what they do not say is not known to be missing.
        for name, pages in whole.items():
            known = len(seen.pages.get(name, ())) + seen.dead.get(name, 0) + seen.lost.get(name, 0)
            assert known == len(pages) or version != "v6" or name in seen.unsure
    assert all("cut.dat" in each for each in said)
    assert len(said) > 100
    assert imports > 20


def test_a_chunk_that_is_damaged_is_lost_with_its_pages_and_the_next_goes_on(opened):
    content = bytearray(writer.v7(sample(Form()), "zstd"))
    first = content.index(b"\x28\xb5\x2f\xfd", content.index(bytes(2000)))
    content[first] ^= 0xFF
    seen = Seen(frames(opened(bytes(content))))
    assert (seen.lost, seen.dead, seen.unsure) == ({"top/cpu0": 2}, {}, set())
    assert sorted(seen.pages["top/cpu0"]) == [2, 3, 4]


@pytest.mark.parametrize(
    ("compression", "stated"), [("zstd", 8192), ("zlib", 8192), ("zstd", 1 << 31), ("zlib", 1 << 31)]
)
def test_a_chunk_that_grows_past_what_it_states_or_may_take_is_not_built(opened, compression, stated):
    form = Form()
    dat = sample(form)._replace(buffers={"": {0: [bytes(64 << 20)]}})
    pack = writer.PACK[compression]
    content = bytearray(writer.v7(dat, compression))
    packed = pack(bytes(64 << 20))
    at = content.index(packed)
    content[at - 4 : at] = dat.number(4, stated)
    archive = opened(bytes(content))
    tracemalloc.start()
    seen = Seen(frames(archive))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen.lost == {"top/cpu0": stated // 4096}
    assert peak < 2 * trace_dat_data.CHUNK_BYTES_MAX


@pytest.mark.parametrize("compression", ["zstd", "zlib"])
def test_a_section_that_grows_past_what_may_be_is_refused(opened, compression):
    dat = sample(Form(), own=("name: big\n" + "x" * (40 << 20),))
    with pytest.raises(BadInputError, match="in one piece, at most"):
        opened(writer.v7(dat, compression))


def test_the_same_bytes_for_two_cpus_are_refused(opened):
    dat = sample(Form())
    content = writer.v6(dat)
    table = content.index(b"flyrecord\0") + 10
    second = content[:table] + content[table : table + 16] * 2 + content[table + 32 :]
    with pytest.raises(BadInputError, match="they overlap"):
        opened(second)


@pytest.mark.parametrize("name", ["a/b", "a\nb", "x" * 201, "top"])
@pytest.mark.parametrize("version", ["v6", "v7"])
def test_a_buffer_whose_name_no_stream_can_have_is_refused(opened, version, name):
    dat = sample(Form())
    with pytest.raises(BadInputError, match="no name, or that of two"):
        opened(
            WRITERS[version](dat._replace(buffers={"": dat.buffers[""], name: {0: [writer.page(Form(), 1)], 1: []}}))
        )


def test_options_that_lead_in_a_circle_end(opened):
    content = bytearray(writer.v7(sample(Form())))
    first = content.index(b"none\0\0") + 6
    content[-8:] = content[first : first + 8]
    assert len(Seen(frames(opened(bytes(content)))).pages) == 3


@pytest.mark.parametrize("version", WRITERS)
def test_hostile_files_are_an_error_or_frames_and_take_little_memory(tmp_path, version):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    random_ = random.Random(seed)
    content = WRITERS[version](sample(Form()))
    front = content.index(writer.page(Form(), 100, 200)[:24]) if version in ("v6", "v7") else len(content)
    path = tmp_path / "hostile.dat"
    tracemalloc.start()
    refused = 0
    for _ in range(400):
        data = bytearray(content)
        for _ in range(random_.choice((1, 1, 2, 4))):
            at = random_.randrange(12, front)
            size = random_.choice((1, 1, 2, 4, 8))
            data[at : at + size] = random_.choice((bytes(size), b"\xff" * size, random_.randbytes(size)))
        path.write_bytes(data)
        try:
            for number, each in enumerate(TraceDat(path).frames(TAGS, 1, lambda done, total: None)):
                encode(each)
                assert number < 1000
        except BadInputError:
            refused += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < refused < 400
    assert peak < 100 << 20


EVENTS = (
    "sched", "irq", "timer", "workqueue", "block", "net", "raw_syscalls", "kmem", "writeback", "task", "signal", "skb",
    "ipi", "cgroup", "filemap", "jbd2", "ext4", "power", "sock", "mmap", "syscalls/sys_enter_openat", "xfs", "btrfs",
)  # fmt: skip
SYSTEMS = {"sched", "irq", "timer", "workqueue", "block", "net", "raw_syscalls", "kmem", "writeback"}


def rows_by_cpu(archive, lake):
    """Import `archive` and return the rows of each CPU in order, each behind its place and its table's name."""
    store(archive, TAGS._replace(run=archive.digest), lake, 1, lambda done, total: None)
    storage = open_lake(lake, create=False)
    found = {}
    for table, files in snapshot(storage).files.items():
        for entry in files if table.startswith("trace_") else ():
            for row in pq.read_table(storage.local_path(entry.key), partitioning=None).to_pylist():
                found.setdefault(row["cpu"], []).append(
                    (row["page"], row["position"], table.removeprefix("trace_"), row)
                )
    return {cpu: sorted(each, key=lambda one: one[:2]) for cpu, each in found.items()}


@pytest.mark.kernel
def test_every_event_and_field_is_what_trace_cmd_says_it_is(tmp_path):
    path = trace_cmd.record(tmp_path, EVENTS)
    want, dropped = trace_cmd.report(path)
    assert dropped == {}
    archive = TraceDat(path)
    events = [ftrace_format.parse(text, name.partition(":")[0]) for name, text in archive._saved.events.items()]
    formats = {event.name: event for event in events}
    found = rows_by_cpu(archive, tmp_path / "lake")
    assert {cpu: len(each) for cpu, each in found.items()} == {cpu: len(each) for cpu, each in want.items()}
    seen, fields = Counter(), trace_cmd.Fields()
    for cpu, mine in found.items():
        for (_, pid, ts_ns, event, rest), (_, _, table, row) in zip(want[cpu], mine, strict=True):
            assert table in (event, f"{formats[event].system}_{event}")
            assert (row["pid"], row["ts_ns"]) == (pid, ts_ns), (row, rest)
            seen[event] += 1
            fields.check(formats[event], row, rest)
    print(dict(seen))
    assert len(seen) >= 20
    assert {formats[event].system for event in seen} >= SYSTEMS
    assert {(Kind.TEXT, Place.DATA_LOC), (Kind.TEXT, Place.FIXED), (Kind.INTEGERS, Place.FIXED)} <= fields.kinds
    # The same pages in every other form that this trace-cmd can write.
    same = Seen(frames(archive)).pages
    for name, flags in {
        "six": ("--file-version", "6"),
        "plain": ("--file-version", "7", "--compression", "none"),
    }.items():
        assert Seen(frames(TraceDat(trace_cmd.convert(path, f"{name}.dat", *flags)))).pages == same


@pytest.mark.kernel
def test_what_was_overwritten_while_trace_cmd_recorded_is_counted(tmp_path):
    path = trace_cmd.record(tmp_path, ("sched", "raw_syscalls", "kmem"), buffer_kib=16, busy_s=0.5)
    overrun = trace_cmd.overrun(path)
    events = Seen(frames(TraceDat(path))).events
    assert sum(overrun.values()) > 0
    for cpu, count in overrun.items():
        lost = [lost for _, _, lost, reason in events.get(f"top/cpu{cpu}", ()) if reason == "ring-overrun"]
        # The kernel keeps no count where the page has no room for one: then only its own sum knows.
        known = sum(each for each in lost if each is not None)
        assert known < count if None in lost else known == count
