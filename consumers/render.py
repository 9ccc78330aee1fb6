"""Rows as text: an aligned table for people, JSON lines and CSV for programs."""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

FORMATS: Final = ("table", "json", "csv")
_CELL_MAX: Final = 120


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]], form: str, out: TextIO | None = None) -> None:
    """Print `rows` under `columns` to `out` in one of `FORMATS`."""
    out = out or sys.stdout
    if form == "json":
        for row in rows:
            out.write(json.dumps(dict(zip(columns, map(_plain, row), strict=True)), ensure_ascii=False) + "\n")
    elif form == "csv":
        writer = csv.writer(out)
        writer.writerow(columns)
        writer.writerows([_plain(value) for value in row] for row in rows)
    else:
        _print_table(columns, list(rows), out)


def count(number: int) -> str:
    """Return `number` with thin groups, for people."""
    return f"{number:,}"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)


def _print_table(columns: Sequence[str], rows: list[Sequence[Any]], out: TextIO) -> None:
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    right = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(columns))]
    for line in ([*columns], ["-" * width for width in widths], *cells):
        parts = [text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right, strict=True)]
        out.write("  ".join(parts).rstrip() + "\n")
    out.write(f"({len(rows)} row{'' if len(rows) == 1 else 's'})\n")


# One line per row whatever the record holds, and nothing that moves a terminal's cursor.
def _cell(value: Any) -> str:
    if value is None:
        return "null"
    plain = _plain(value)
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    text = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return text if len(text) <= _CELL_MAX else text[: _CELL_MAX - 1] + "…"
