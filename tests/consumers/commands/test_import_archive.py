import pytest

from consumers.archives import kmsg, store
from consumers.collector import Cut
from consumers.lake.layout import open_lake
from consumers.views import run_query
from tests.consumers._sample import DUMPS

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
    assert (again.code, again.out) == (0, f"{DUMP}: already imported, nothing to do\n")
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
