import json
import os
import re
import subprocess
import sys

import pytest

from consumers.decode import registry
from tests.consumers import _sample


def test_every_form_gives_the_same_rows(run, sample_lake):
    sql = "select seq, fields['DEVICE'] as device from kmsg where fields is not null order by machine, seq limit 1"
    assert run("query", "--lake", sample_lake, sql).lines == [
        "seq  device",
        "---  ----------------",
        "183  +acpi:PNP0A08:00",
        "(1 row)",
    ]
    assert json.loads(run("query", "--lake", sample_lake, sql, "--format", "json").out) == {
        "seq": 183,
        "device": "+acpi:PNP0A08:00",
    }
    assert run("query", "--lake", sample_lake, sql, "--format", "csv").out == "seq,device\n183,+acpi:PNP0A08:00\n"


@pytest.mark.parametrize("verb", ["explain", "explain analyze"])
def test_a_plan_is_drawn_line_by_line(run, sample_lake, verb):
    lines = run("query", "--lake", sample_lake, f"{verb} select seq from kmsg where level < 3").lines
    assert len(lines) > 4
    assert any("READ_PARQUET" in line for line in lines)
    assert not any("\\n" in line or "…" in line for line in lines)


def test_every_column_of_every_table_is_valid_json(run, sample_lake):
    for table in ("kmsg", "losses", "coverage", "dead_letters"):
        done = run("query", "--lake", sample_lake, f"select * from {table}", "--format", "json")
        rows = [json.loads(line) for line in done.lines]
        assert rows
        assert all(row["machine"] in (_sample.HUNG.machine, _sample.LOCKED.machine) for row in rows)


def test_a_wrong_column_is_one_readable_text_and_exit_2(run, sample_lake):
    done = run("query", "--lake", sample_lake, "select seqq from kmsg")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        'hypocenter: Binder Error: Referenced column "seqq" not found in FROM clause!\n'
        '  Candidate bindings: "seq"\n'
        "  LINE 1: select seqq from kmsg\n"
        "                 ^^^^\n"
        "  `describe kmsg` shows a table's columns, `show tables` the tables\n"
    )


def test_a_statement_may_begin_with_a_comment(run, sample_lake):
    assert run("query", "--lake", sample_lake, "-- how many\nselect count(*) as n from kmsg").lines[2] == "680"


def test_rows_too_wide_for_a_table_are_printed_one_value_a_line(run, sample_lake):
    done = run("query", "--lake", sample_lake, "select * from kmsg order by machine, seq limit 2")
    assert done.lines[0] == "--- row 1"
    assert f"machine      {_sample.HUNG.machine}" in done.lines
    assert done.lines[-1] == "(2 rows)"


def test_a_reader_that_has_seen_enough_is_no_error(sample_lake):
    sql = "select a.seq, a.message from kmsg a, range(500)"
    command = [sys.executable, "-m", "consumers.cli", "query", "--lake", sample_lake, sql, "--format", "json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (0, b"")


def test_rows_are_utf_8_whatever_the_locale(sample_lake):
    command = [
        sys.executable,
        "-m",
        "consumers.cli",
        "query",
        "--lake",
        sample_lake,
        "select 'ü→' as t",
        "--format",
        "json",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "ascii"}
    out = subprocess.run(command, capture_output=True, env=environment, check=True).stdout
    assert json.loads(out.decode("utf-8")) == {"t": "ü→"}


@pytest.mark.parametrize("verb", [("query", "select count(*) from kmsg"), ("losses",), ("status",), ("clocks",)])
def test_a_file_that_is_gone_is_the_disk_and_not_the_caller(run, tmp_path, verb):
    _sample.build(tmp_path / "lake")
    wanted = {"query": "kmsg", "losses": "losses", "status": "coverage", "clocks": "coverage"}[verb[0]]
    for file in (tmp_path / "lake" / "data" / wanted).rglob("*.parquet"):
        file.unlink()
    done = run(verb[0], "--lake", tmp_path / "lake", *verb[1:])
    assert done.code == 74
    assert "the lake cannot be read" in done.err
    assert "`hypocenter audit --deep` says what is wrong" in done.err


def test_a_file_of_the_callers_that_is_not_there_is_the_caller(run, sample_lake, tmp_path):
    done = run("query", "--lake", sample_lake, f"select * from read_csv('{tmp_path}/none.csv')")
    assert done.code == 2


@pytest.mark.parametrize("sql", ["describe", "show tables", "select relname from pg_class", "from sqlite_master"])
def test_whoever_asks_for_the_tables_gets_all(run, sample_lake, sql):
    assert "kmsg" in run("query", "--lake", sample_lake, sql).out
    assert "procfs_disk" in run("query", "--lake", sample_lake, sql).out


def test_the_help_names_every_table_or_its_kind(run):
    text = run("query", "--help").out
    named = re.search(r"tables: (.*?)`show tables`", text, re.DOTALL)[1]
    # `qmp_*` and `bpf_PROGRAM` stand for many.
    kinds = [re.sub(r"\*|[A-Z]+", r"\\w+", word) for word in re.findall(r"\b[a-z]+_?\w*\*?", named)]
    tables = [spec.name for spec in registry.tables()]
    assert [name for name in tables if not any(re.fullmatch(kind, name) for kind in kinds)] == []


def test_an_answer_without_a_damaged_file_says_so_and_is_exit_74(run, tmp_path, caplog):
    _sample.build(tmp_path / "lake")
    (file,) = (tmp_path / "lake" / "data" / "losses").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    verbs = [("query", "select count(*) from losses"), ("losses",)]
    assert [run(verb, "--lake", tmp_path / "lake", *words).code for verb, *words in verbs] == [74, 74]
    assert run("audit", "--lake", tmp_path / "lake").code == 1
    for verb, *words in verbs:
        done = run(verb, "--lake", tmp_path / "lake", *words)
        assert done.code == 74
        assert "(0 rows)" in done.out or " 0\n" in done.out
        assert re.search(r"without \d+ rows of losses, as data/losses/.* is damaged", caplog.text)
        caplog.clear()
    assert run("query", "--lake", tmp_path / "lake", "select count(*) from kmsg").code == 0
