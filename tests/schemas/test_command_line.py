import argparse
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from schemas.command_line import Parser, add_version, float_from_0, positive_float, positive_int


@pytest.fixture
def parser():
    top = Parser(prog="p")
    add_version(top)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    sub = verbs.add_parser("query")
    sub.add_argument("--lake", required=True)
    sub.add_argument("--layer", choices=("host", "guest"))
    sub.add_argument("--for", dest="for_s", type=float)
    sub.add_argument("sql", nargs="?")
    verbs.add_parser("audit")
    return top


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["qery"], "p: error: VERB: there is no qery; did you mean query?"),
        (["audit", "\udcff"], r"p: error: b'\xff' is no text in UTF-8"),
        (["query", "--lake", "a\udcff"], r"p: error: b'a\xff' is no text in UTF-8"),
        (["zz"], "p: error: VERB: there is no zz; there is query, audit"),
        (["query", "--lkae", "x"], "p query: error: there is no flag --lkae; did you mean --lake?"),
        (["query", "--la=x"], "p query: error: there is no flag --la; did you mean --lake?"),
        (["query", "--zzzzzz"], "p query: error: there is no flag --zzzzzz; there is -h, --help, --lake"),
        (
            ["query", "--lake", "x", "--layer", "ghost"],
            "p query: error: --layer: there is no ghost; did you mean host?",
        ),
        (["query", "--lake", "x", "a", "b"], "p query: error: nothing takes 'b' here"),
        (["--versoin"], "p: error: there is no flag --versoin; did you mean --version?"),
        (["query"], "p query: error: the following arguments are required: --lake"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_word(parser, capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(words)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_what_is_right_parses(parser):
    args = parser.parse_args(["query", "--lake=x", "--layer", "host", "--for", "-1", "-- sql comment\nselect 1"])
    assert (args.lake, args.layer, args.for_s, args.sql) == ("x", "host", -1.0, "-- sql comment\nselect 1")


def test_behind_two_dashes_nothing_is_a_flag(parser):
    assert parser.parse_args(["query", "--lake", "x", "--", "--sql"]).sql == "--sql"


@pytest.mark.parametrize(
    ("type_", "text", "wanted"),
    [
        (positive_int, "1", 1), (positive_int, "0", None), (positive_int, "1.5", None), (positive_int, "x", None),
        (positive_float, "0.5", 0.5), (positive_float, "0", None), (positive_float, "nan", None),
        (positive_float, "inf", None), (float_from_0, "0", 0.0), (float_from_0, "-1", None), (float_from_0, "nan", None),
        (float_from_0, "inf", None), (float_from_0, "", None),
    ],
)  # fmt: skip
def test_numbers_keep_to_their_range(type_, text, wanted):
    if wanted is None:
        with pytest.raises(argparse.ArgumentTypeError, match=f"not '{text}'"):
            type_(text)
    else:
        assert type_(text) == wanted


def process(body, *, unbuffered=False, **how):
    code = f"import sys\nfrom schemas.command_line import ended, open_streams\nopen_streams()\n{body}"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    environment.pop("COLUMNS", None)
    environment |= {"PYTHONUNBUFFERED": "1"} if unbuffered else {}
    how = {"stdout": subprocess.PIPE, **how}
    return subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False, env=environment, **how
    )


PRINTING = "def run():\n    print('x' * 100_000)\n    return 3\nsys.exit(ended('p', run))"


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_full_disk_behind_stdout_is_one_sentence(unbuffered):
    with Path("/dev/full").open("w") as full:
        done = process(PRINTING, stdout=full, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (74, "p: stdout: No space left on device\n")


@pytest.mark.parametrize("unbuffered", [False, True])
def test_whoever_has_seen_enough_ends_it_quietly(unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    done = process(PRINTING, stdout=writer, unbuffered=unbuffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("return 3", 3, ""),
        ("raise StorageError('the disk is broken')", 74, "p: the disk is broken\n"),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_how_it_ended_is_told_also_to_whom_that_has_seen_enough(body, code, said):
    reader, writer = os.pipe()
    os.close(reader)
    text = f"from schemas.errors import StorageError\ndef run():\n    print('x')\n    {body}\nsys.exit(ended('p', run))"
    done = process(text, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_terminal_is_as_wide_as_it_is():
    host, guest = pty.openpty()
    termios.tcsetwinsize(guest, (24, 63))
    done = process("import shutil\nsys.exit(shutil.get_terminal_size().columns)", stdout=guest)
    os.close(guest)
    os.close(host)
    assert done.returncode == 63


@pytest.mark.parametrize("unbuffered", [False, True])
def test_help_that_nobody_reads_is_no_traceback(unbuffered):
    body = "from schemas.command_line import Parser\nParser(prog='p', epilog='x' * 99).parse_args(['--help'])"
    with Path("/dev/full").open("w") as full:
        assert "Traceback" not in process(body, stdout=full, unbuffered=unbuffered).stderr


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_is_one_that_nobody_reads(closed):
    body = "print('out')\nprint('err', file=sys.stderr)\nsys.exit(sys.stderr.isatty() + 5)"
    assert process(body, preexec_fn=lambda: os.close(closed)).returncode == 5


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("PermissionError(13, 'Permission denied', 'var/log')", 74, "p: var/log: Permission denied\n"),
        ("OSError(5, 'Input/output error')", 74, "p: Input/output error\n"),
        ("BrokenPipeError(32, 'Broken pipe')", 74, "p: Broken pipe\n"),
        ("RuntimeError('Query interrupted')", 130, ""),
        ("KeyboardInterrupt()", 130, ""),
    ],
)
def test_how_it_ends_with_what_was_printed_before(error, code, said, unbuffered):
    done = process(
        f"def run():\n    print('row ä')\n    raise {error}\nsys.exit(ended('p', run))", unbuffered=unbuffered
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "row ä\n", said)
