"""The columns of one row as text: `name=value`, an enumeration by its name."""

from collections.abc import Collection, Mapping
from typing import Any, Final

_NAME: Final = "_name"


def shown(row: Mapping[str, Any], left_out: Collection[str]) -> str:
    """Return the columns of `row` that have a value, without those `left_out`; what cannot be printed is `?`."""
    parts = []
    for name, value in row.items():
        of = name.removesuffix(_NAME)
        if name in left_out or value is None or (of != name and of in row):
            continue
        named = row.get(f"{name}{_NAME}")
        text = value.hex() if isinstance(value, bytes) else str(value if named is None else named)
        parts.append(f"{name}={''.join(char if char.isprintable() else '?' for char in text)}")
    return " ".join(parts)
