"""Strict TOML into frozen dataclasses: an unknown key is an error that names it and the nearest valid one."""

import dataclasses
import difflib
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Final, TypeVar

from schemas.errors import UsageError

T = TypeVar("T")
_NAMES: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def load(path: Path, cls: type[T]) -> T:
    """Return `path` read into `cls`, a dataclass whose fields are dataclasses (the TOML tables).

    Raises:
        UsageError: the file is unreadable, is no TOML, or holds an unknown key or a value that its key does not take.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise UsageError(f"{path}: not TOML: {e}") from None
    try:
        return _build(cls, None, data, "")
    except UsageError as e:
        raise UsageError(f"{path}: {e}") from None


# What `data` does not say is as in `base`, where there is one: a table's defaults may differ from its type's.
def _build(cls: type[T], base: T | None, data: dict[str, Any], table: str) -> T:
    hints = typing.get_type_hints(cls)
    items = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in data.items():
        if key not in items:
            near = difflib.get_close_matches(key, items, n=1, cutoff=0.0)[0]
            raise UsageError(f"unknown key {table}{key}; the nearest valid one is {table}{near}")
        values[key] = _value(hints[key], _default(items[key]), value, f"{table}{key}")
    for name, item in items.items():
        if base is None and name not in values and _default(item) is dataclasses.MISSING:
            raise UsageError(f"{table}{name} is missing")
    try:
        return cls(**values) if base is None else dataclasses.replace(base, **values)  # type: ignore[type-var]
    except UsageError as e:
        raise UsageError(f"{table}{e}") from None


def _default(item: "dataclasses.Field[Any]") -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _value(hint: Any, default: Any, value: Any, name: str) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            if not isinstance(value, dict):
                raise UsageError(f"{name} is a table, not {value!r:.60}")
            return _build(option, default if isinstance(default, option) else None, value, f"{name}.")
        if typing.get_origin(option) is tuple and isinstance(value, list):
            item = typing.get_args(option)[0]
            if dataclasses.is_dataclass(item) and isinstance(item, type):
                return tuple(_value(item, None, each, f"{name}[{at}]") for at, each in enumerate(value))
            if all(isinstance(each, item) and not isinstance(each, bool) for each in value):
                return tuple(value)
        if isinstance(option, type) and isinstance(value, option) and isinstance(value, bool) == (option is bool):
            return value
        if option is Path and isinstance(value, str) and value and "\0" not in value:
            return Path(value)
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
    names = [_name(option) for option in options if option is not types.NoneType]
    raise UsageError(f"{name} is {' or '.join(names)}, not {value!r:.60}")


def _name(option: Any) -> str:
    item = (*typing.get_args(option), None)[0]
    if item is int:
        return "a list of whole numbers"
    return "a list of tables" if dataclasses.is_dataclass(item) else _NAMES.get(option, "a list of texts")
