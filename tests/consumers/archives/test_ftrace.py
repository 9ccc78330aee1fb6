"""Copies of a tracefs instance: every form of page, what is missing, and what remains of a page."""

import pytest

from consumers.archives.base import Tags
from consumers.archives.ftrace import SavedInstance
from consumers.archives.store import store
from consumers.lake.layout import open_lake
from consumers.views import run_query
from schemas import ftrace
from schemas.errors import BadInputError, UsageError
from tests.consumers.archives import _saved
from tests.consumers.archives._trace_dat import page
from tests.consumers.decode import ftrace_kernel
from tests.consumers.decode.ftrace_writer import Form

FORMS = [Form(big, long_bytes, size) for big in (False, True) for long_bytes in (4, 8) for size in (4096, 65536)]
TAGS = Tags("m", "b", "host", "r")


def frames(path):
    return list(SavedInstance(path).frames(TAGS, 1, lambda done, total: None))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_pages_of_every_form_are_read_as_they_are(tmp_path, form):
    pages = [page(form, i, i + 1, missed=9 if i == 2 else None) for i in range(3)]
    path = _saved.write(tmp_path / "copy", form, {0: b"".join(pages), 11: page(form, 8)})
    described, first, second = frames(path)
    formats = ftrace.unpack_formats(described.body)
    assert (formats.byteorder, formats.word_bytes) == ("big" if form.big else "little", form.long_bytes)
    assert (formats.page_bytes, formats.clock) == (form.page_bytes, "mono")
    assert list(formats.events) == ["sys:tick"]
    assert described.stream.instance == "saved"
    assert [each.stream.instance for each in (first, second)] == ["saved/cpu0", "saved/cpu11"]
    assert bytes(ftrace.unpack(first.body).data) == b"".join(pages)
    assert [(loss.first_position, loss.count, loss.unit) for loss in first.losses] == [(2, 9, "event")]
    assert SavedInstance(path).machine == "copy"


def test_a_path_from_where_one_stands_is_read_like_any_other(tmp_path, monkeypatch):
    stats = "entries: 0\noverrun: 0\ncommit overrun: 0\nbytes: 7\ndropped events: 3\nread events: 9\n"
    path = _saved.write(tmp_path / "copy", Form(), {0: page(Form(), 1)}, stats={0: stats})
    monkeypatch.chdir(tmp_path)
    assert frames(path.relative_to(tmp_path)) == frames(path)


def test_the_texts_that_lie_beside_a_copy_are_of_its_description(tmp_path):
    path = _saved.write(tmp_path / "copy", Form(), {0: page(Form(), 1)})
    without = SavedInstance(path).digest
    (path / "printk_formats").write_text('0xffffffff8281aa07 : "thaw_processes"\n')
    described = frames(path)[0]
    assert ftrace.unpack_formats(described.body).printk_formats == '0xffffffff8281aa07 : "thaw_processes"\n'
    assert SavedInstance(path).digest != without


def test_the_size_of_a_page_is_the_instances_own(tmp_path):
    form = Form(page_bytes=8192)
    path = _saved.write(tmp_path / "copy", form, {0: page(form, 1) * 2}, subbuf_kib=8)
    (path / "events/header_page").write_text(Form().header_text)
    assert [each.count for each in frames(path)] == [1, 2]


@pytest.mark.parametrize("rest", [1, 15, 4095])
def test_what_remains_of_a_page_is_never_taken_for_one(tmp_path, rest):
    whole = page(Form(), 1)
    path = _saved.write(tmp_path / "copy", Form(), {0: whole + page(Form(), 2)[:rest]})
    _, first, second = frames(path)
    assert (first.first, first.next, second.first, second.next) == (0, 1, 1, 2)
    with pytest.raises(BadInputError, match=f"{rest} bytes of pages, 1 of 4096 stated"):
        ftrace.unpack(second.body)


def test_what_the_kernel_never_wrote_is_lost_behind_the_last_page(tmp_path):
    stats = "entries: 0\noverrun: 5\ncommit overrun: 2\nbytes: 7\ndropped events: 3\nread events: 9\n"
    path = _saved.write(tmp_path / "copy", Form(), {0: page(Form(), 1)}, stats={0: stats})
    *_, last = frames(path)
    assert (last.first, last.next, last.encoding) == (1, 1, "heartbeat")
    assert [(loss.kind, loss.count, loss.reason) for loss in last.losses] == [
        ("drop", 3, "dropped-events"),
        ("drop", 2, "commit-overrun"),
    ]


def test_without_a_clock_it_is_unknown_and_without_formats_events_are(tmp_path):
    path = _saved.write(tmp_path / "copy", Form(), {0: page(Form(), 1)}, clock=None, events={})
    described, pages = frames(path)
    assert (described.stream.clock, pages.stream.clock) == ("unknown", "unknown")
    assert ftrace.unpack_formats(described.body).events == {}


@pytest.mark.parametrize("big", [False, True])
def test_empty_pages_say_no_byte_order_and_do_no_harm(tmp_path, big):
    form = Form(big)
    path = _saved.write(tmp_path / "copy", form, {0: page(form) * 3 + page(form, 1), 1: b""})
    assert ftrace.unpack_formats(frames(path)[0].body).byteorder == ("big" if big else "little")


def test_more_formats_than_a_description_holds_are_those_of_what_occurs(tmp_path):
    form = Form()
    many = {f"sys/event_{i}": f"name: event_{i}\nID: {1000 + i}\nformat:\n" + "x" * 1000 for i in range(1500)}
    path = _saved.write(tmp_path / "copy", form, {0: page(form, 1)}, events={"sys/tick": _saved.TICK, **many})
    assert list(ftrace.unpack_formats(frames(path)[0].body).events) == ["sys:tick"]
    all_of_them = {name: text.replace(f"ID: {1000 + i}", "ID: 7") for i, (name, text) in enumerate(many.items())}
    path = _saved.write(tmp_path / "another", form, {0: page(form, 1)}, events=all_of_them)
    with pytest.raises(BadInputError, match="1,500 kinds of events occur"):
        frames(path)


def test_a_format_that_is_too_long_is_left_out(tmp_path):
    long = f"name: tock\nID: 8\nformat:\n{'x' * 70_000}"
    path = _saved.write(
        tmp_path / "copy", Form(), {0: page(Form(), 1)}, events={"sys/tick": _saved.TICK, "sys/tock": long}
    )
    assert list(ftrace.unpack_formats(frames(path)[0].body).events) == ["sys:tick"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"header": False}, "no events/header_page, and without it no page can be read"),
        ({"cpus": {}}, "no per_cpu/cpuN/trace_pipe_raw: no copy of an instance"),
        ({"cpus": {0: b"", 1: b""}}, "every trace_pipe_raw in it is empty"),
        ({"subbuf_kib": 3}, "pages of 3,072 bytes: no size of a sub-buffer"),
        ({"subbuf_kib": 1024}, "pages of 1,048,576 bytes"),
        ({"form": Form(page_bytes=5000)}, "pages of 5,000 bytes"),
    ],
)
def test_a_copy_that_cannot_be_read_is_said_in_one_sentence(tmp_path, changes, said):
    values = {"form": Form(), "cpus": {0: page(Form(), 1)}, **changes}
    path = _saved.write(tmp_path / "copy", **values)
    path.mkdir(exist_ok=True)
    with pytest.raises(BadInputError, match=said) as error:
        SavedInstance(path)
    assert "copy" in error.value.detail


def test_a_path_that_is_no_directory_is_named(tmp_path):
    with pytest.raises(UsageError, match="none: No such directory"):
        SavedInstance(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file: Not a directory"):
        SavedInstance(tmp_path / "file")


def test_it_is_recognised_by_its_content_wherever_it_lies(tmp_path):
    data = {0: page(Form(), 1)}
    same = [SavedInstance(_saved.write(tmp_path / name, Form(), data)).digest for name in ("a", "b")]
    other = [
        SavedInstance(_saved.write(tmp_path / "c", Form(), {0: page(Form(), 2)})).digest,
        SavedInstance(_saved.write(tmp_path / "d", Form(), {1: page(Form(), 1)})).digest,
        SavedInstance(_saved.write(tmp_path / "e", Form(), data, clock="[boot]")).digest,
        SavedInstance(_saved.write(tmp_path / "f", Form(), data, events={})).digest,
    ]
    assert same[0] == same[1]
    assert len({same[0], *other}) == 5


@pytest.mark.kernel
def test_a_copy_of_an_instance_of_this_kernel_has_what_its_counters_say(tmp_path):
    with ftrace_kernel.instance((), buffer_kb=256, clock="boot") as instance:
        (instance / "buffer_subbuf_size_kb").write_text("8")
        for system in ("sched", "raw_syscalls", "kmem"):
            (instance / "events" / system / "enable").write_text("1")
        ftrace_kernel.busy(0.3, tmp_path)
        (instance / "tracing_on").write_text("0")
        path = _saved.copy(instance, tmp_path / "copy")
        stats = {cpu: ftrace_kernel.stats(instance, cpu) for cpu in ftrace_kernel.cpus(instance)}
    archive = SavedInstance(path)
    stored = store(archive, TAGS._replace(run=archive.digest), tmp_path / "lake", 1, lambda done, total: None)
    written = sum(each["read events"] for each in stats.values())
    assert written > 1000
    assert sum(count for table, count in stored.rows.items() if table.startswith("trace_")) == written
    assert {"trace_sched_switch", "trace_sys_enter", "trace_kmalloc"} <= stored.rows.keys()
    assert stored.rows.keys().isdisjoint({"trace_unknown", "dead_letters"})
    overrun = sum(each["overrun"] for each in stats.values())
    assert overrun > 0
    sql = "select coalesce(sum(count), 0), count(*) - count(count) from losses"
    ((known, unknown),) = run_query(open_lake(tmp_path / "lake", create=False), sql)[1]
    # The kernel keeps no count where the page has no room for one: then only its own sum knows.
    assert known < overrun if unknown else known == overrun
