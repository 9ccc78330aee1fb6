"""The command line of `hypocenter`: help, typos, exit codes, and which verb loads what."""

import gc
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from consumers import cli
from schemas import errors


def run(*words):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "120"}
    command = [sys.executable, "-m", "consumers.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def usage(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    return stopped.value.code, capsys.readouterr()


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_a_help_on_stdout_with_its_flags(verb, capsys):
    code, (out, err) = usage([verb, "--help"], capsys)
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: hypocenter {verb} ")
    assert "--verbose" in out
    assert max(map(len, out.splitlines())) <= 120


def test_the_top_help_has_every_verb_and_exit_code(capsys):
    code, (out, _) = usage(["--help"], capsys)
    assert code == 0
    assert all(re.search(rf"\n    {verb}\s", out) for verb in cli.VERBS)
    codes = {each.exit_code for each in vars(errors).values() if isinstance(each, type)}
    assert all(f"\n  {code} " in out for code in codes)


def test_the_version_is_that_of_the_project(capsys):
    code, (out, _) = usage(["--version"], capsys)
    assert code == 0
    assert out.startswith("hypocenter ")
    assert len(out.split()) >= 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: VERB"),
        (["aduit"], "VERB: there is no aduit; did you mean audit?"),
        (["xyz"], "VERB: there is no xyz; there is collect, query, audit, losses, status, tail, import, export"),
        (["audit", "--lkae", "x"], "there is no flag --lkae; did you mean --lake?"),
        (["audit", "--lak", "x"], "there is no flag --lak; did you mean --lake?"),
        (["audit", "--lkae=x"], "there is no flag --lkae; did you mean --lake?"),
        (["--lake", "x", "audit"], "there is no flag --lake"),
        (["audit"], "the following arguments are required: --lake"),
        (["audit", "--lake"], "argument --lake: expected one argument"),
        (["audit", "x", "--lake", "y"], "nothing takes 'x' here"),
        (["query", "--lake", "x"], "the following arguments are required: SQL"),
        (["query", "--lake", "x", "select 1", "--format", "jsn"], "--format: there is no jsn; did you mean json?"),
        (["export", "perfeto", "--lake", "x", "-o", "y"], "format: there is no perfeto; did you mean perfetto?"),
        (["export", "perfetto", "--lake", "x"], "the following arguments are required: -o/--output"),
        (
            ["export", "perfetto", "--lake", "x", "-o", "y", "--sinse", "1"],
            "there is no flag --sinse; did you mean --since?",
        ),
        (["export", "perfetto", "--lake", "x", "-o", "y", "--since", "noon"], "--since: a time in UTC like 2026-"),
        (["status", "--log", "x", "--kafka", "y"], "argument --kafka: not allowed with argument --log"),
    ],
)
def test_a_wrong_command_line_is_answered_on_stderr_with_exit_2(words, said, capsys):
    code, (out, err) = usage(words, capsys)
    assert (code, out) == (2, "")
    assert said in err
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.BadInputError("reason", "detail"), 65, "hypocenter: reason: detail\n"),
        (errors.UsageError("text"), 2, "hypocenter: text\n"),
        (errors.AccessError("text"), 77, "hypocenter: text\n"),
        (errors.UnavailableError("text"), 69, "hypocenter: text\n"),
        (errors.StorageError("text"), 74, "hypocenter: text\n"),
        (errors.LockedError("text"), 75, "hypocenter: text\n"),
        (errors.HypocenterError("text"), 1, "hypocenter: text\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_one_sentence_and_its_code(monkeypatch, capsys, error, code, said):
    def fail(_args):
        raise error

    module = SimpleNamespace(__doc__="Nothing.", add_arguments=lambda sub: None, run=fail)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)
    assert cli.main(["audit"]) == code
    assert capsys.readouterr() == ("", said)


def test_a_bug_is_not_hidden(monkeypatch):
    def fail(_args):
        raise ZeroDivisionError

    module = SimpleNamespace(__doc__="Nothing.", add_arguments=lambda sub: None, run=fail)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)
    with pytest.raises(ZeroDivisionError):
        cli.main(["audit"])


def test_help_loads_no_library():
    code = "import sys; from consumers.cli import parser; parser(); print(sorted({m.split('.')[0] for m in sys.modules} & {'duckdb', 'pyarrow', 'kafka', 'numpy'}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[]\n"


def test_the_module_runs_as_a_program(tmp_path):
    done = run("audit", "--lake", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not a lake" in done.stderr
