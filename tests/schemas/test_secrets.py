"""A secret is the environment's, or an error that names key and variable."""

import pytest

from schemas.errors import UsageError
from schemas.secrets import secret


def test_it_is_what_the_variable_holds(monkeypatch):
    monkeypatch.setenv("PASS", "x y")
    assert secret("a.key", "PASS") == "x y"


def test_none_or_an_empty_one_is_said(monkeypatch):
    monkeypatch.setenv("PASS", "")
    for name in ("PASS", "MISSING_VARIABLE", None):
        with pytest.raises(UsageError, match=f"a.key names the environment variable {name}, which is not set"):
            secret("a.key", name)
