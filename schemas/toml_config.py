"""Strict TOML into frozen dataclasses: an unknown key is an error that names it and the nearest valid one."""

import dataclasses
import difflib
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from schemas.errors import UsageError

T = TypeVar("T")


def load(path: Path, cls: type[T]) -> T:
    """Return `path` read into `cls`, a dataclass whose fields are dataclasses (the TOML tables).

    Raises:
        UsageError: the file is unreadable, is no TOML, or holds an unknown key or a value of another type.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UsageError(f"{path}: not TOML: {e}") from None
    return _build(cls, data, f"{path}: ")


def _build(cls: type[T], data: dict[str, Any], where: str) -> T:
    hints = typing.get_type_hints(cls)
    names = [item.name for item in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values = {}
    for key, value in data.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.0)
            raise UsageError(f"{where}unknown key {key!r}; the nearest valid one is {near[0]!r}")
        values[key] = _value(hints[key], value, f"{where}{key}")
    try:
        return cls(**values)
    except TypeError as e:
        raise UsageError(f"{where}{e}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise UsageError(f"{where} is a table, not {type(value).__name__}")
        return _build(hint, value, f"{where}.")
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        origin = typing.get_origin(option)
        if origin is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        if isinstance(option, type) and isinstance(value, option) and isinstance(value, bool) == (option is bool):
            return value
        if option is Path and isinstance(value, str):
            return Path(value)
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
    names = " or ".join(getattr(option, "__name__", str(option)) for option in options if option is not type(None))
    raise UsageError(f"{where} wants {names}, not {value!r:.60}")
