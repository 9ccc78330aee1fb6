"""The command in process, a lake and a log of two genuine kernel logs, and signal handlers as they were."""

import signal
from typing import NamedTuple

import pytest

from consumers.cli import main
from tests.consumers import _sample


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()


@pytest.fixture
def run(capfd, monkeypatch):
    """Call with the words of a command line; returns exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "120")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def call(*words):
        capfd.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as e:
            code = e.code
        return Done(code, *capfd.readouterr())

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def sample_lake(tmp_path_factory):
    """The sample's lake; for reading only."""
    path = tmp_path_factory.mktemp("commands") / "lake"
    _sample.build(path)
    return path


@pytest.fixture(scope="session")
def sample_log(tmp_path_factory):
    """The sample's log; for reading only."""
    return _sample.write_log(tmp_path_factory.mktemp("commands") / "log")


@pytest.fixture
def empty_lake(tmp_path):
    path = tmp_path / "empty"
    _sample.open_lake(path, create=True)
    return path
