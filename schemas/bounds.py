"""What a key of the configuration may be: stated beside the field, checked for every instance, however it was made."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import field, fields
from typing import Any, Final, NamedTuple

from schemas import limits
from schemas.errors import UsageError

_RULE: Final = "rule"


class Rule(NamedTuple):
    """`allows` judges a value; `says` completes the sentence "KEY is ..."; a `secret` value is not repeated in it."""

    allows: Callable[[Any], bool]
    says: str
    secret: bool = False


def key(default: Any, rule: Rule) -> Any:
    """Return the dataclass field of a key with this default and rule; the rule is not asked about None."""
    return field(default=default, metadata={_RULE: rule})


def check(config: Any) -> None:
    """Hold every value of the dataclass instance `config` against its rule; call it from `__post_init__`.

    Raises:
        UsageError: one breaks it; the sentence begins with the key.
    """
    for item in fields(config):
        rule, value = item.metadata.get(_RULE), getattr(config, item.name)
        if rule is not None and value is not None and not rule.allows(value):
            raise UsageError(f"{item.name} is {rule.says}" + ("" if rule.secret else f", not {_shown(value)}"))


def within(low: float, high: float, unit: str) -> Rule:
    """Return the rule for a finite number of `unit` from `low` to `high`."""
    return Rule(
        lambda value: math.isfinite(value) and low <= value <= high,
        f"from {_number(low)} to {_number(high)} {unit}",
    )


def one_of(names: Iterable[str | int]) -> Rule:
    """Return the rule for one of `names`."""
    known = tuple(names)
    return Rule(lambda value: value in known, f"one of {', '.join(map(str, known))}")


def some_of(names: Iterable[str]) -> Rule:
    """Return the rule for a list of `names`, at least one, none twice."""
    known = tuple(names)
    return Rule(
        lambda values: bool(values) and set(values) <= set(known) and len(set(values)) == len(values),
        f"a list of at least one of {', '.join(known)}, none twice",
    )


def matching(pattern: str, says: str) -> Rule:
    """Return the rule for a text that `pattern` matches as a whole."""
    compiled = re.compile(pattern)
    return Rule(lambda value: compiled.fullmatch(value) is not None, says)


def each_matching(pattern: str, says: str) -> Rule:
    """Return the rule for a list of texts that `pattern` matches, none twice."""
    compiled = re.compile(pattern)
    return Rule(
        lambda values: all(compiled.fullmatch(value) for value in values) and len(set(values)) == len(values), says
    )


def each_within(low: int, high: int, count_max: int, what: str) -> Rule:
    """Return the rule for a list of at most `count_max` whole numbers from `low` to `high`, none twice."""
    return Rule(
        lambda values: (
            len(values) <= count_max
            and all(low <= value <= high for value in values)
            and len(set(values)) == len(values)
        ),
        f"a list of at most {count_max} {what}, none twice",
    )


def tag() -> Rule:
    """Return the rule for a text that becomes a tag of a stream: what a frame can carry, and not empty."""
    return Rule(
        lambda value: 0 < len(value.encode()) <= limits.TEXT_BYTES_MAX and "\x00" not in value,
        f"a text of 1 to {limits.TEXT_BYTES_MAX} bytes without NUL",
    )


def _number(value: float) -> str:
    return f"{int(value):,}".replace(",", " ") if value == int(value) else f"{value:g}"


def _shown(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
