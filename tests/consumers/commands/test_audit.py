import json
import re
from pathlib import Path

import pytest

from consumers.commands.audit import print_books
from consumers.lake.audit import AuditReport, Book
from tests.consumers import _sample


@pytest.fixture
def lake(tmp_path):
    _sample.build(tmp_path / "lake")
    return tmp_path / "lake"


def parquet(lake, table):
    (found,) = (lake / "data" / table).rglob("*.parquet")
    return Path(found)


def test_books_that_close_are_a_table_and_exit_0(run, sample_lake):
    done = run("audit", "--lake", sample_lake)
    assert done.code == 0
    assert done.lines == [
        "machine   boot      stream             emitted  stored  duplicates  dead  lost  closes",
        "--------  --------  -----------------  -------  ------  ----------  ----  ----  ------",
        "5f0c2a9b  c1f6a0de  guest-kernel/kmsg      422     312           0     0   110  yes",
        "b83e17d2  0d9e47b2  guest-kernel/kmsg      369     368           0     1     0  yes",
        "(2 rows)",
        "emitted = stored + duplicates + dead + lost: every book closes",
    ]


def test_json_has_whole_names_and_every_sum(run, sample_lake):
    report = json.loads(run("audit", "--lake", sample_lake, "--json", "--deep").out)
    assert report["closes"] is True
    assert report["problems"] == []
    assert [book["name"] for book in report["books"]] == [
        "/".join(filter(None, each)) for each in (_sample.HUNG, _sample.LOCKED)
    ]
    assert report["books"][0]["lost"] == {"overwrite": 110}
    for book in report["books"]:
        assert book["emitted"] == book["stored"] + book["duplicates"] + book["dead_letters"] + sum(
            book["lost"].values()
        )


def test_a_missing_file_is_a_problem_and_exit_1(run, lake):
    file = parquet(lake, "kmsg")
    file.unlink()
    done = run("audit", "--lake", lake)
    assert done.code == 1
    assert f"problem: {file.relative_to(lake)}: missing" in done.lines
    assert done.lines[-1].endswith("NOT every book closes")
    done = run("audit", "--lake", lake, "--json")
    assert (done.code, json.loads(done.out)["closes"]) == (1, False)


def test_only_deep_reads_every_byte(run, lake):
    file = parquet(lake, "kmsg")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert run("audit", "--lake", lake).code == 0
    done = run("audit", "--lake", lake, "--deep")
    assert done.code == 1
    assert "SHA-256" in done.out


def test_an_empty_lake_says_so(run, empty_lake):
    done = run("audit", "--lake", empty_lake)
    assert (done.code, done.lines[-1]) == (
        0,
        "emitted = stored + duplicates + dead + lost: no stream is stored here yet",
    )


def test_a_directory_that_is_no_lake_is_exit_2(run, tmp_path):
    done = run("audit", "--lake", tmp_path / "none")
    assert (done.code, done.out) == (2, "")
    said = "is not a lake: it has no lake.json; a collector makes one when it starts"
    assert done.err == f"hypocenter: {tmp_path / 'none'} {said}\n"


def book(**values):
    sums = {"first": 0, "next": 9, "stored": 9, "duplicates": 0, "contradicted": 0, "dead": 0, "lost": {}, "rows": 9}
    return Book(
        **{"name": "m/b/host/kmsg/printk", "chain": "log/0", "lost_events": 0, "unknown_losses": 0, **sums, **values}
    )


def test_partition_and_unknown_are_columns_only_where_they_say_something(capsys):
    print_books(AuditReport([book()]))
    assert capsys.readouterr().out.split()[3] == "emitted"
    print_books(
        AuditReport([book(unknown_losses=3), book(name="m/b/host/kmsg/restore-1/printk", chain="import.kmsg.x/0")])
    )
    head, _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "machine",
        "boot",
        "stream",
        "partition",
        "emitted",
        "stored",
        "duplicates",
        "dead",
        "lost",
        "unknown",
        "closes",
    ]
    assert first.split()[2:4] == ["host/kmsg", "log-0"]
    assert first.split()[-2] == "3"
    assert second.split()[2:4] == ["host/kmsg/restore-1", "import.kmsg.x-0"]


def test_a_book_that_does_not_close_is_marked(capsys):
    print_books(AuditReport([book(stored=8)]))
    out = capsys.readouterr().out
    assert out.splitlines()[2].endswith("NO")
    assert "NOT every book closes" in out


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("m/b/host/kmsg/printk", ("m", "b", "host/kmsg")),
        ("rack 7/m/b/guest-kernel/kmsg/restore-1/printk", ("rack 7/m", "b", "guest-kernel/kmsg/restore-1")),
        ("m/b/another-layer/kmsg/printk", ("m/b/another-layer/kmsg/printk", "", "")),
        ("m/b/host", ("m", "b", "host")),
    ],
)
def test_a_books_name_is_taken_apart(capsys, name, cells):
    print_books(AuditReport([book(name=name)]))
    shown = [cell for cell in cells if cell]
    assert re.split("  +", capsys.readouterr().out.splitlines()[2])[: len(shown) + 1] == [*shown, "9"]
