"""From a surface's name to its source: `producers/NAME.py`, or `producers/NAME/source.py` where that is a folder.

It offers `open_sources` and `check`, and `verify` where its configuration names what may not be there.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from producers.source import Source
from schemas.config import Config
from schemas.stream import Stream
from schemas.surfaces import surface


class Known(NamedTuple):
    """What the log remembers of a stream: its next position and the last frame's number."""

    next: int
    number: int


class Identity(NamedTuple):
    """Whose streams the sources emit."""

    machine: str
    boot_id: str
    layer: str


class Opening(NamedTuple):
    """What a surface is opened with: whose streams, where the log ends in each, and the whole configuration.

    `state_dir` is a folder that outlives the agent, for what is worth nothing without the log; None where none does.
    """

    identity: Identity
    known: Mapping[Stream, Known]
    config: Config
    state_dir: Path | None = None


def open_sources(name: str, opening: Opening) -> list[Source]:
    """Return the sources of the surface `name`, each at the position where the log ends.

    Raises:
        UsageError: no such surface, or its configuration is refused.
        AccessError: the machine does not let us read it.
    """
    module = _module(name)
    sources: list[Source] = module.open_sources(opening)
    return sources


def check(name: str) -> str:
    """Return one sentence about an available surface.

    Raises:
        AccessError: not available; the message says what is missing and how to get it.
    """
    module = _module(name)
    sentence: str = module.check()
    return sentence


def verify(name: str, config: Config) -> None:
    """Verify that what `config` names for an available surface is there: events, clocks, programs.

    Raises:
        UsageError: something is not; the message names it and the nearest.
    """
    asked = getattr(_module(name), "verify", None)
    if asked is not None:
        asked(config)


def _module(name: str) -> ModuleType:
    module = importlib.import_module(f"producers.{surface(name).name.replace('-', '_')}")
    return importlib.import_module(f"{module.__name__}.source") if hasattr(module, "__path__") else module
