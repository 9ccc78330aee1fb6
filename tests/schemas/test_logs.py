import json
import logging
import subprocess
import sys

import pytest

from schemas import logs


def record(text="broker away", *, at_s=0.0, level=logging.ERROR, name="kafka", exc_info=None):
    made = logging.LogRecord(name, level, "", 0, "%s", (text,), exc_info)
    made.created = 1000 + at_s
    return made


@pytest.fixture
def said():
    """Say a record; returns its text, None when it is held back."""
    seldom = logs.Seldom()
    return lambda *args, **kwargs: (
        (made := record(*args, **kwargs)) and (made.getMessage() if seldom.filter(made) else None)
    )


def test_the_same_trouble_is_said_once_a_minute_with_how_often_it_was_held_back(said):
    assert [said(at_s=at_s) for at_s in range(60)] == ["broker away"] + [None] * 59
    assert said(at_s=60) == "broker away (59 times more since)"
    assert said(at_s=61) is None
    assert said(at_s=121) == "broker away (1 times more since)"
    assert said(at_s=300) == "broker away"


def test_other_texts_levels_and_loggers_are_not_held_back(said):
    for _ in range(2):
        said()
    assert said("another") == "another"
    assert said(level=logging.WARNING) == "broker away"
    assert said(name="consumers") == "broker away"


def test_information_and_our_own_tracebacks_always_pass(said):
    assert [said(level=logging.INFO) for _ in range(3)] == ["broker away"] * 3
    bug = (ValueError, ValueError(), None)
    assert [said(name="producers", exc_info=bug) for _ in range(2)] == ["broker away"] * 2


@pytest.mark.parametrize("verbose", [False, True])
def test_a_client_librarys_traceback_is_for_the_curious(verbose):
    made = record(name="kafka.net.transport", exc_info=(ValueError, ValueError(), None))
    assert logs.Seldom(verbose=verbose).filter(made)
    assert (made.exc_info is not None) is verbose


def test_what_is_remembered_is_bounded(said):
    for i in range(1000):
        said(f"text {i}")
    assert said("text 0") == "text 0"
    assert said("text 999") is None


CODE = """
import logging, sys
from schemas import logs
logs.setup(verbose=len(sys.argv) > 1)
log = logging.getLogger("consumers.x")
log.info("one %d", 1)
log.debug("detail")
for _ in range(3):
    log.error("broken")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("bug")
logging.getLogger("kafka.net").warning("chatter")
logging.getLogger("kafka.net.connection").error("said twice")
"""


@pytest.mark.parametrize("verbose", [False, True])
def test_messages_are_json_lines_on_stderr_where_there_is_no_terminal(verbose):
    command = [sys.executable, "-c", CODE, *(["-v"] if verbose else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    quiet = ["one 1", "broken", "bug"]
    assert [line["message"] for line in lines] == (
        ["one 1", "detail", "broken", "bug", "chatter", "said twice"] if verbose else quiet
    )
    assert {line["level"] for line in lines} >= {"INFO", "ERROR"}
    assert "ZeroDivisionError" in next(line for line in lines if line["message"] == "bug")["exception"]
