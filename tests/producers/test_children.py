import importlib
import sys

import pytest

from producers import children


def test_a_child_is_a_module_of_the_tree_run_by_the_same_interpreter():
    words = ["--log", "a log"]
    assert children.command("producers.ship", *words) == [sys.executable, "-m", "producers.ship", *words]


@pytest.mark.parametrize(
    ("words", "module", "left"),
    [
        ([], "producers.cli", []),
        (["run", "--child=x"], "producers.cli", ["run", "--child=x"]),
        (["--child=producers.relay.ship", "--log", "d"], "producers.relay.ship", ["--log", "d"]),
    ],
)
def test_an_archive_runs_the_agent_or_the_child_that_is_asked_for(monkeypatch, words, module, left):
    monkeypatch.setattr(sys, "argv", ["agent.pyz", *words])
    monkeypatch.setattr(importlib.import_module(module), "main", lambda: 7)
    assert children.run() == 7
    assert sys.argv == ["agent.pyz", *left]
