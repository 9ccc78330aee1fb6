import json
import re

import pytest

from consumers.lake.layout import open_lake
from consumers.views import run_query
from tests.consumers import _sample


@pytest.fixture
def lake(tmp_path):
    _sample.build(tmp_path / "lake", commits=5)
    return tmp_path / "lake"


def content(lake):
    return run_query(open_lake(lake, create=False), "select * from kmsg order by machine, seq")[1]


def files(lake):
    return len(list((lake / "data").rglob("*.parquet")))


def test_files_are_merged_then_deleted_and_the_rows_stay(run, lake):
    before, count = content(lake), files(lake)
    done = run("compact", "--lake", lake)
    assert done.code == 0
    assert done.lines[0].startswith("merged: ")
    assert "manifest 1" in done.lines[0]
    assert done.lines[1] == "deleted: nothing is old enough"
    assert content(lake) == before
    # What was replaced stays for readers, until its grace is over.
    assert files(lake) > count
    done = run("compact", "--lake", lake, "--grace-s", 0)
    assert done.lines[0] == "merged: nothing, no past hour has several small files"
    assert "replaced" in done.lines[1]
    assert files(lake) < count
    assert content(lake) == before
    assert run("audit", "--lake", lake, "--deep").code == 0


def test_a_damaged_file_is_named_and_what_is_beside_it_stays(run, lake, caplog):
    bad = min((lake / "data" / "kmsg").rglob("*.parquet"))
    bad.write_bytes(bad.read_bytes()[:-4] + b"LOST")
    for told in (1, 0):
        caplog.clear()
        done = run("compact", "--lake", lake)
        assert done.code == 74
        assert "damaged files left out: 1, `hypocenter audit` says which" in done.lines[0]
        assert caplog.text.count(str(bad.relative_to(lake))) == told
    assert bad.exists()
    done = run("audit", "--lake", lake)
    assert done.code == 1
    assert f"problem: {bad.relative_to(lake)}: its SHA-256 is not the one in its commit" in done.out
    # Its time comes as that of others does.
    done = run("compact", "--lake", lake, "--retention-hours", 24, "--grace-s", 0)
    assert done.code == 0
    assert ", 1 of them damaged, " in done.lines[0]
    assert not bad.exists()
    done = run("audit", "--lake", lake, "--deep")
    assert done.code == 0
    assert " of them in damaged files: of which streams nobody can say" in done.out


def test_an_hour_that_is_not_past_stays(run, lake):
    done = run("compact", "--lake", lake, "--lateness-s", 10**10)
    assert done.lines[0].startswith("merged: nothing")


@pytest.mark.parametrize("flag", ["--lateness-s", "--grace-s"])
@pytest.mark.parametrize("value", ["-1", "nan", "soon"])
def test_a_time_that_is_none_is_refused(run, lake, flag, value):
    done = run("compact", "--lake", lake, flag, value)
    assert done.code == 2
    assert f"argument {flag}: a number from 0 on, not '{value}'" in done.err


def test_no_lake_is_exit_2(run, tmp_path):
    assert run("compact", "--lake", tmp_path / "none").code == 2
    assert not (tmp_path / "none").exists()


def test_hours_over_the_retention_leave_and_the_audit_says_so(run, lake):
    count = sum(json.loads(run("audit", "--lake", lake, "--json").out)["rows"].values())
    done = run("compact", "--lake", lake, "--retention-hours", 24, "--grace-s", 0)
    assert done.code == 0
    assert re.fullmatch(
        rf"retired: what came before [0-9-]{{10}} [0-9:]{{5}} UTC: {count} rows in [0-9]+ files, [0-9,]+ bytes; manifest 1",
        done.lines[0],
    )
    assert done.lines[1].startswith("merged: nothing")
    assert content(lake) == []
    assert files(lake) == 0
    done = run("audit", "--lake", lake, "--deep")
    assert done.code == 0
    assert re.fullmatch(rf"retired: {count} rows of what came before [0-9-]{{10}} [0-9:]{{5}} UTC", done.lines[-2])
    again = run("compact", "--lake", lake, "--retention-bytes", 1)
    assert again.lines[0] == "retired: nothing, no past hour is over the retention"


def test_without_a_retention_nothing_is_said_of_it(run, lake):
    assert "retired" not in run("compact", "--lake", lake).out


@pytest.mark.parametrize(
    "flags",
    [
        ("--retention-hours", "0"),
        ("--retention-hours", "nan"),
        ("--retention-hours", "inf"),
        ("--retention-bytes", "0"),
    ],
)
def test_a_retention_that_is_none_is_refused_and_nothing_leaves(run, lake, flags):
    before = content(lake)
    done = run("compact", "--lake", lake, *flags)
    assert done.code == 2
    assert f"{flags[0].removeprefix('--').replace('-', '_')}" in done.err
    assert content(lake) == before
