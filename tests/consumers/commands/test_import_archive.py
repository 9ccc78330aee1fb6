import pytest

from consumers.archives import kmsg, store, trace
from consumers.collector import Cut
from consumers.lake.layout import open_lake
from consumers.views import run_query
from tests.consumers._sample import DUMPS
from tests.consumers.archives import _saved
from tests.consumers.archives._trace_dat import TICK, Dat, T, page, tick, v6, v7
from tests.consumers.decode.ftrace_writer import Form

DUMP = DUMPS / "hung-task.kmsg"


@pytest.fixture
def lake(tmp_path):
    return tmp_path / "lake"


def query(lake, sql):
    return run_query(open_lake(lake, create=False), sql)[1]


def test_a_dump_is_stored_once_however_often_it_is_imported(run, lake):
    done = run("import", "kmsg", DUMP, "--lake", lake)
    assert done.code == 0
    assert done.lines[0] == f"{DUMP}: 422 rows of kmsg, 0 rows of losses, 0 rows of dead_letters"
    again = run("import", "kmsg", DUMP, "--lake", lake)
    ((boot_id,),) = query(lake, "select distinct boot_id from kmsg")
    told = f"{DUMP}: already imported, nothing to do: machine hung-task, boot {boot_id}, layer guest-kernel\n"
    assert (again.code, again.out) == (0, told)
    assert query(lake, "select machine, layer, min(seq), max(seq), count(*) from kmsg group by all") == [
        ("hung-task", "guest-kernel", 0, 421, 422)
    ]
    assert query(lake, "select message from kmsg where seq = 356") == [
        ("INFO: task hyplab_hold:137 blocked for more than 5 seconds.",)
    ]
    assert run("audit", "--lake", lake, "--deep").code == 0


def test_its_tags_can_be_said(run, lake):
    run("import", "kmsg", DUMP, "--lake", lake, "--machine", "m", "--boot-id", "b", "--layer", "host")
    assert query(lake, "select distinct machine, boot_id, layer from kmsg") == [("m", "b", "host")]


def test_an_import_that_was_interrupted_goes_on_where_it_was(run, lake, monkeypatch):
    commit, commits = store._commit, []

    def interrupted(collector):
        if len(commits) == 2:
            raise KeyboardInterrupt
        commits.append(collector.position)
        commit(collector)

    with monkeypatch.context() as patched:
        patched.setattr(store, "_CUT", Cut(bytes_max=1, rows_max=1 << 60, age_ns=1 << 60))
        patched.setattr(kmsg, "_FRAME_RECORDS", 50)
        patched.setattr(store, "_commit", interrupted)
        assert run("import", "kmsg", DUMP, "--lake", lake).code == 130
        assert query(lake, "select count(*) from kmsg") == [(100,)]
        patched.setattr(store, "_commit", commit)
        assert run("import", "kmsg", DUMP, "--lake", lake).code == 0
    assert query(lake, "select count(*), count(distinct seq) from kmsg") == [(422, 422)]
    assert run("audit", "--lake", lake, "--deep").code == 0


def test_an_import_goes_on_under_the_names_that_it_has_and_no_others(run, lake, monkeypatch, tmp_path):
    def interrupted(collector):
        collector.commit()
        raise KeyboardInterrupt

    named = ("--machine", "one", "--boot-id", "b", "--layer", "host")
    with monkeypatch.context() as patched:
        patched.setattr(store, "_CUT", Cut(bytes_max=1, rows_max=1 << 60, age_ns=1 << 60))
        patched.setattr(kmsg, "_FRAME_RECORDS", 50)
        patched.setattr(store, "_commit", interrupted)
        assert run("import", "kmsg", DUMP, "--lake", lake, *named).code == 130
        assert query(lake, "select count(*) from kmsg") == [(50,)]
        patched.undo()
        patched.setattr(kmsg, "_FRAME_RECORDS", 50)
        for other in (("--machine", "two"), ("--boot-id", "c"), ("--machine", "one", "--layer", "guest-kernel")):
            refused = run("import", "kmsg", DUMP, "--lake", lake, *other)
            assert refused.code == 2
            assert f"under other names, and can have no second ones: {' '.join(named)}" in refused.err
        assert query(lake, "select count(*) from kmsg") == [(50,)]
        # A copy has another name of its own, which nobody said.
        copied = tmp_path / "two.kmsg"
        copied.write_bytes(DUMP.read_bytes())
        done = run("import", "kmsg", copied, "--lake", lake, "--layer", "host")
    assert (done.code, done.lines[1]) == (0, f"machine one, boot b, into {lake}")
    assert query(lake, "select machine, boot_id, layer, count(*) from kmsg group by all") == [("one", "b", "host", 422)]
    assert run("import", "kmsg", DUMP, "--lake", lake, "--machine", "two").code == 2
    assert run("audit", "--lake", lake, "--deep").code == 0


def test_a_jump_of_the_numbers_is_a_loss_and_a_torn_record_a_dead_letter(run, lake, tmp_path):
    dump = tmp_path / "some.kmsg"
    dump.write_bytes(b"6,10,1,-;a\n6,11,2,-;b\n6,15,3,-;c\ntorn\n6,17,4,-;d\n")
    done = run("import", "kmsg", dump, "--lake", lake)
    assert done.lines[0].endswith(": 4 rows of kmsg, 1 rows of losses, 1 rows of dead_letters")
    assert query(lake, "select kind, first_position, count, reason, found_by from losses") == [
        ("gap", 12, 3, "missing-in-dump", "import")
    ]
    assert query(lake, "select position, reason, head from dead_letters") == [(16, "record", b"torn\n")]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty: "), (b"[    0.000000] Linux version 6.1\n" * 2000, "the output of dmesg has lost what they say")],
)
def test_a_file_of_another_sort_is_exit_65_and_no_lake_is_made(run, lake, tmp_path, content, said):
    (tmp_path / "file").write_bytes(content)
    done = run("import", "kmsg", tmp_path / "file", "--lake", lake)
    assert (done.code, done.out) == (65, "")
    assert said in done.err
    assert not lake.exists()


@pytest.mark.parametrize(("name", "said"), [("none", "No such file"), (".", "Is a directory")])
def test_a_path_that_is_no_file_is_exit_2(run, lake, tmp_path, name, said):
    done = run("import", "kmsg", tmp_path / name, "--lake", lake)
    assert done.code == 2
    assert said in done.err


def test_a_layer_or_surface_that_does_not_exist_names_the_nearest(run, lake):
    assert (
        "--layer: there is no guest-kernal; did you mean guest-kernel?"
        in run("import", "kmsg", DUMP, "--lake", lake, "--layer", "guest-kernal").err
    )
    assert "there is no ksmg; did you mean kmsg?" in run("import", "ksmg", DUMP, "--lake", lake).err


@pytest.mark.parametrize("flag", ["--machine", "--boot-id"])
@pytest.mark.parametrize("tag", ["", "x" * 256])
def test_a_tag_that_no_frame_can_carry_is_exit_2(run, lake, flag, tag):
    done = run("import", "kmsg", DUMP, "--lake", lake, flag, tag)
    assert done.code == 2
    assert f"{flag} is a text of 1 to 255 bytes" in done.err
    assert not lake.exists()


@pytest.fixture(params=["ftrace", "trace-dat"])
def saved(request, tmp_path):
    """The words that import one archive of trace events: two pages of cpu 0, one of cpu 1 that tells of losses."""
    top = {0: [page(FORM, 1, 2), page(FORM, 3, at=50)], 1: [page(FORM, 4, missed=7)]}
    if request.param == "ftrace":
        path = _saved.write(tmp_path / "one.copy", FORM, {cpu: b"".join(pages) for cpu, pages in top.items()})
    else:
        path = tmp_path / "one.dat"
        path.write_bytes(v7(Dat(FORM, {"": top}, {"sys": (TICK,)}), "zstd"))
    return "import", request.param, path


FORM = Form(page_bytes=16384)
BY_KIND = {"ftrace": ("one.copy", "saved"), "trace-dat": ("node-1", "top")}


def test_saved_trace_events_are_rows_once_however_often_they_are_imported(run, lake, saved):
    done = run(*saved, "--lake", lake)
    machine, name = BY_KIND[saved[1]]
    assert (
        done.lines[0]
        == f"{saved[2]}: 4 rows of trace_tick, 1 rows of artifacts, 1 rows of losses, 0 rows of dead_letters"
    )
    assert done.lines[1].startswith(f"machine {machine}, boot ")
    again = run(*saved, "--lake", lake)
    assert again.code == 0
    assert again.out.startswith(f"{saved[2]}: already imported, nothing to do: machine ")
    where = "machine, layer, surface, instance, cpu, clock, page, position, ts_ns, value, pid"
    place = (machine, "guest-kernel", "ftrace")
    assert query(lake, f"select {where} from trace_tick order by cpu, page, position") == [
        (*place, f"{name}/cpu0", 0, "mono", 0, 0, T + 1, 1, 9),
        (*place, f"{name}/cpu0", 0, "mono", 0, 1, T + 2, 2, 9),
        (*place, f"{name}/cpu0", 0, "mono", 1, 0, T + 51, 3, 9),
        (*place, f"{name}/cpu1", 1, "mono", 0, 0, T + 1, 4, 9),
    ]
    assert query(lake, "select instance, kind, first_position, count, unit, reason, found_by from losses") == [
        (f"{name}/cpu1", "overwrite", 0, 7, "event", "ring-overrun", "import")
    ]
    assert run("audit", "--lake", lake, "--deep").code == 0


def test_an_import_of_trace_events_that_was_interrupted_goes_on_where_it_was(run, lake, saved, monkeypatch):
    commit, commits = store._commit, []

    def interrupted(collector):
        if len(commits) == 2:
            raise KeyboardInterrupt
        commits.append(collector.position)
        commit(collector)

    with monkeypatch.context() as patched:
        patched.setattr(store, "_CUT", Cut(bytes_max=1, rows_max=1 << 60, age_ns=1 << 60))
        patched.setattr(trace, "BODY_BYTES", 16384)
        patched.setattr(store, "_commit", interrupted)
        assert run(*saved, "--lake", lake).code == 130
        assert query(lake, "select count(*) from trace_tick") == [(2,)]
        patched.setattr(store, "_commit", commit)
        # The rest needs the description that is in the lake already.
        assert run(*saved, "--lake", lake).code == 0
    assert query(lake, "select count(*), count(distinct value) from trace_tick") == [(4, 4)]
    assert query(lake, "select count(*) from dead_letters") == [(0,)]
    assert run("audit", "--lake", lake, "--deep").code == 0


def test_their_tags_can_be_said(run, lake, saved):
    run(*saved, "--lake", lake, "--machine", "m", "--boot-id", "b", "--layer", "host")
    assert query(lake, "select distinct machine, boot_id, layer from trace_tick") == [("m", "b", "host")]


def test_what_remains_of_a_page_is_a_dead_letter_and_the_books_close(run, lake, tmp_path):
    path = _saved.write(tmp_path / "copy", FORM, {0: page(FORM, 1) + page(FORM, 2)[:5000]})
    done = run("import", "ftrace", path, "--lake", lake)
    assert done.lines[0].endswith("1 rows of trace_tick, 1 rows of artifacts, 0 rows of losses, 1 rows of dead_letters")
    assert query(lake, "select instance, position, reason, detail, size_bytes from dead_letters") == [
        ("saved/cpu0", 1, "body", "5000 bytes of pages, 1 of 16384 stated", 5008)
    ]
    assert run("audit", "--lake", lake, "--deep").code == 0


def test_a_file_cut_off_in_its_pages_is_imported_and_what_is_missing_is_counted(run, lake, tmp_path):
    content = v6(Dat(FORM, {"": {0: [page(FORM, i) for i in range(5)]}}, {"sys": (TICK,)}))
    (tmp_path / "cut.dat").write_bytes(content[: -3 * 16384 - 100])
    run("import", "trace-dat", tmp_path / "cut.dat", "--lake", lake)
    assert query(lake, "select count(*), max(page) from trace_tick") == [(1, 0)]
    assert query(lake, "select kind, first_position, count, reason, unit from losses") == [
        ("gap", 2, 3, "archive-cut-off", "position")
    ]
    assert query(lake, "select position, reason from dead_letters") == [(1, "body")]
    assert run("audit", "--lake", lake, "--deep").code == 0


@pytest.mark.parametrize("size", [4096, 1 << 17, 1 << 19])
def test_pages_of_every_size_that_a_kernel_has_become_rows(run, lake, tmp_path, size):
    form = Form(page_bytes=size)
    path = _saved.write(tmp_path / "copy", form, {0: form.page(T, *[tick(form, i) for i in range(size // 16 - 2)])})
    run("import", "ftrace", path, "--lake", lake)
    assert query(lake, "select count(*), max(value) from trace_tick") == [(size // 16 - 2, size // 16 - 3)]


def test_of_many_tables_the_largest_are_named(run, lake, tmp_path):
    texts = [TICK.replace("name: tick\nID: 7", f"name: t{i}\nID: {20 + i}") for i in range(14)]
    events = [tick(FORM, 1, number=20 + i) for i in range(14) for _ in range(i + 1)]
    (tmp_path / "many.dat").write_bytes(v6(Dat(FORM, {"": {0: [FORM.page(T, *events)]}}, {"sys": texts})))
    said = run("import", "trace-dat", tmp_path / "many.dat", "--lake", lake).lines[0].split(": ")[1].split(", ")
    assert said[:2] == ["14 rows of trace_t13", "13 rows of trace_t12"]
    assert said[10:] == ["11 rows of 5 more tables", "0 rows of losses", "0 rows of dead_letters"]
    assert sum(int(each.split()[0]) for each in said) == sum(range(1, 15)) + 1


def test_an_archive_of_another_version_is_exit_65_and_no_lake_is_made(run, lake, tmp_path):
    (tmp_path / "old.dat").write_bytes(v6(Dat(FORM, {"": {0: []}}, {}), version=b"5"))
    done = run("import", "trace-dat", tmp_path / "old.dat", "--lake", lake)
    assert (done.code, done.out) == (65, "")
    assert (
        done.err == f"hypocenter: version: {tmp_path / 'old.dat'} is a trace.dat version 5, and 6 and 7 can be read\n"
    )
    assert not lake.exists()


def test_rows_of_one_import_do_not_know_of_another(run, lake, tmp_path):
    for value in (1, 2):
        (tmp_path / f"{value}.dat").write_bytes(v6(Dat(FORM, {"": {0: [page(FORM, value)]}}, {"sys": (TICK,)})))
        run("import", "trace-dat", tmp_path / f"{value}.dat", "--lake", lake)
    assert query(lake, "select value, page from trace_tick order by value") == [(1, 0), (2, 0)]
    assert query(lake, "select count(distinct boot_id) from trace_tick") == [(2,)]
    assert run("audit", "--lake", lake, "--deep").code == 0
