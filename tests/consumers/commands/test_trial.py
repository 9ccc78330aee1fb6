"""The whole pipeline on this machine's real kernel log, as `make run` starts it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.surfaces import FRAME_TOPICS, TOPICS

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def kernel_log():
    if os.geteuid() != 0 or not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("needs root and a readable /dev/kmsg")


def test_it_ends_with_books_that_close_losses_and_an_example_that_works(run, tmp_path):
    done = run("trial", "--for", 1, "--lake", tmp_path / "lake", "--log", tmp_path / "log")
    assert done.code == 0
    assert done.lines[0] == f"1 s of this machine's kernel log, through {tmp_path / 'log'}, into {tmp_path / 'lake'}"
    assert "emitted = stored + duplicates + dead + lost: every book closes" in done.lines
    (example,) = re.findall(r'^hypocenter (query --lake \S+ ".*?")$', done.out, re.DOTALL | re.MULTILINE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "120"}
    command = f"{sys.executable} -m consumers.cli {example}"
    answer = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, env=environment).stdout
    assert done.out.endswith(answer)
    assert answer.splitlines()[-1].startswith("(5 rows")


def test_a_second_trial_goes_on_and_stores_nothing_twice(run, tmp_path):
    words = ("trial", "--for", 1, "--lake", tmp_path / "lake", "--log", tmp_path / "log")
    assert run(*words).code == run(*words).code == 0
    books = run("audit", "--lake", tmp_path / "lake", "--deep")
    assert books.code == 0
    assert len([line for line in books.lines if line.endswith("yes")]) == 1


@pytest.mark.broker
def test_through_kafka_it_has_a_lake_of_its_own(run, broker_factory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    address = broker_factory().bootstrap
    done = run("trial", "--for", 2, "--kafka", address)
    assert done.code == 0
    assert done.lines[0] == f"created on {address}, with 1 partition and 1 replica: {', '.join(TOPICS)}"
    assert done.lines[1] == f"2 s of this machine's kernel log, through {address}, into var/lake-kafka"
    assert "emitted = stored + duplicates + dead + lost: every book closes" in done.lines
    assert sorted(path.name for path in (tmp_path / "var" / "lake-kafka" / "commits").iterdir()) == sorted(FRAME_TOPICS)
    assert (tmp_path / "var" / "spool" / "shipped.json").exists()


def test_an_agent_that_cannot_start_ends_it_with_the_agents_code(run, tmp_path):
    (tmp_path / "log").write_text("no directory")
    done = run("trial", "--for", 1, "--lake", tmp_path / "lake", "--log", tmp_path / "log")
    assert done.code == 2
    assert "is no directory" in done.err


def test_a_log_that_is_in_use_is_exit_75(run, tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-m", "producers.cli", "run", "--log", tmp_path / "log"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "watching kmsg" in writer.stderr.readline()
        done = run("trial", "--for", 1, "--lake", tmp_path / "lake", "--log", tmp_path / "log")
    finally:
        writer.terminate()
        writer.communicate(timeout=20)
    assert done.code == 75
