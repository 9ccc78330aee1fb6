"""Names of trace events: which there are, which a pattern means, what their `format` files say.

Source: Documentation/trace/events.rst; the files are `events/<system>/<event>/{enable,filter,format}`.
"""

import contextlib
import difflib
import fnmatch
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from schemas import ftrace, limits
from schemas.errors import UsageError

# Written by the kernel itself into any ring (trace_printk, trace_marker, stack traces); they have no `enable` file.
_KERNELS_OWN: Final = "ftrace"
_OWN_MAX: Final = 64
_FIELD: Final = re.compile(r"^\s*field:[^;]*?\b(\w+)(?:\[[^\]]*\])?;", re.MULTILINE)
# What a comparison begins with; what is in quotes is none of it. Every event has the generic ones.
_COMPARED: Final = re.compile(r"(?:^|\(|!(?!=)|&&|\|\|)\s*([A-Za-z_]\w*)")
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_GENERIC: Final = ("CPU", "cpu", "COMM", "comm", "STACKTRACE", "stacktrace")


def names(events: Path) -> list[str]:
    """Return every event that can be enabled, as `system:name`, sorted."""
    found = []
    for system in _folders(events):
        if system != _KERNELS_OWN:
            found += [f"{system}:{name}" for name in _folders(events / system)]
    return sorted(found)


def resolve(patterns: Iterable[str], known: list[str]) -> list[str]:
    """Return the events of `known` that any of `patterns` means, sorted.

    Raises:
        UsageError: a pattern means none; the message has the nearest that means one.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        matched = [pattern] if pattern in known else fnmatch.filter(known, pattern)
        if not matched:
            systems = sorted({name.partition(":")[0] + ":*" for name in known})
            near = nearest(pattern, systems if pattern.endswith(":*") else known)
            raise UsageError(f"there is no event {pattern}: the nearest is {near}")
        chosen.update(matched)
    if len(chosen) > limits.TRACE_EVENTS_MAX - _OWN_MAX:
        raise UsageError(f"{len(chosen)} events are too many for one set: share them out")
    return sorted(chosen)


def resolve_filters(filters: Iterable[str], chosen: list[str]) -> dict[str, str]:
    """Return the expression for each event of `chosen` that one of `filters` (`system:event=expression`) means.

    Raises:
        UsageError: a filter is for no event of the set, or two are for one.
    """
    expressions: dict[str, str] = {}
    for each in filters:
        pattern, _, expression = each.partition("=")
        matched = fnmatch.filter(chosen, pattern)
        if not matched:
            near = nearest(pattern, chosen)
            raise UsageError(f"filter {each}: the set has no event {pattern}, the nearest is {near}")
        for event in matched:
            if event in expressions:
                raise UsageError(f"filter {each}: there is another one for {event}")
            expressions[event] = expression.strip()
    return expressions


def read_formats(events: Path, chosen: Iterable[str]) -> dict[str, str]:
    """Return the text of the `format` file of each event of `chosen` that is there, and of the kernel's own."""
    own = [f"{_KERNELS_OWN}:{name}" for name in _folders(events / _KERNELS_OWN)]
    formats = {}
    for event in (*own, *chosen):
        with contextlib.suppress(OSError):  # gone with its module
            formats[event] = (events / event.replace(":", "/") / "format").read_text("utf-8", "replace")
    return formats


def read_printk_formats(tracefs: Path) -> str:
    """Return what the kernel's pointers to constant text point at, empty where it does not say."""
    try:
        return ftrace.whole_lines((tracefs / "printk_formats").read_text("utf-8", "replace"))
    except OSError:
        return ""


def marks(events: Path, chosen: Iterable[str]) -> tuple[int, ...]:
    """Return one number for each event, another one when it was taken away and came again; 0 while it is not there.

    It is the inode number of the event's folder, which tracefs makes anew for each event that is registered.
    """
    found = []
    for event in chosen:
        try:
            found.append((events / event.replace(":", "/")).stat().st_ino)
        except OSError:
            found.append(0)
    return tuple(found)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the word of `known` that looks most like `word`."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1) or difflib.get_close_matches(word, words, n=1, cutoff=0.0)
    return near[0] if near else "none"


def field_names(text: str) -> list[str]:
    """Return the names of the fields in the text of a `format` file, in order."""
    return _FIELD.findall(text)


def field_hint(expression: str, fields: list[str]) -> str:
    """Return what to say of the first word in a filter that is no field: the nearest that is; empty where all are."""
    words = _COMPARED.findall(_QUOTED.sub("''", expression))
    unknown = next((word for word in words if word not in (*fields, *_GENERIC)), None)
    return f"; there is no field {unknown}, the nearest is {nearest(unknown, fields)}" if unknown else ""


def _folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())
