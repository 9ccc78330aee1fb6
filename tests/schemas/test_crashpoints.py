"""The table of crash points and the steps that are really marked: each names the other completely."""

import ast
import os
import signal
import subprocess
import sys

import pytest

from schemas.crashpoints import CRASH_POINTS
from tests.test_layout import PACKAGES, ROOT, sources


def marked():
    """Return the side and the name of every call of `crash_point` in the tree."""
    for package in PACKAGES:
        for path in sources(package):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "crash_point":
                    (name,) = node.args
                    assert isinstance(name, ast.Constant), f"{path}, line {node.lineno}: not a plain name"
                    yield package.removesuffix("s"), name.value


def test_every_point_is_in_the_table_and_every_row_of_it_is_a_point():
    assert set(marked()) == {(side, name) for side, names in CRASH_POINTS.items() for name in names}


def passed(wanted, *names):
    code = f"from schemas.crashpoints import crash_point; [crash_point(name) for name in {names}]"
    env = {"HYPOCENTER_CRASH_AT": wanted} if wanted else {}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("a", -signal.SIGKILL),
        ("a:2", -signal.SIGKILL),
        ("b:1", -signal.SIGKILL),
        ("a:3", 0),
        ("b:2", 0),
        ("c", 0),
        (None, 0),
    ],
)
def test_a_process_dies_at_the_passing_that_the_environment_names(wanted, code):
    assert passed(wanted, "a", "b", "a").wait(30) == code


def test_a_process_can_be_stopped_there_and_goes_on():
    process = passed("stop:a:2", "a", "a", "a")
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WSTOPSIG(status) == signal.SIGSTOP
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
