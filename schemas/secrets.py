"""Secrets come from the environment alone: a key of the configuration names the variable that holds one."""

import os
from typing import Final

from schemas.bounds import Rule, matching
from schemas.errors import UsageError

VARIABLE: Final[Rule] = matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")._replace(secret=True)


def secret(name: str, variable: str | None) -> str:
    """Return the secret that the key `name` says is in the environment's `variable`.

    Raises:
        UsageError: the variable is not set, or empty.
    """
    value = os.environ.get(variable or "")
    if not value:
        raise UsageError(f"{name} names the environment variable {variable}, which is not set")
    return value
