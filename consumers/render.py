"""Rows as text: an aligned table for people, JSON lines and CSV for programs.

A table fits the terminal, or 120 columns where there is none (the variable COLUMNS overrides both): long texts are cut
and end in `…`; rows with too many columns for that are printed one value a line, uncut. Its columns are as wide as the
rows of the first stretch need, and grow with later ones, so that a long answer begins at once and takes no memory.
"""

import csv
import datetime as dt
import decimal
import itertools
import json
import math
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TextIO

FORMATS: Final = ("table", "json", "csv")
_WIDTH: Final = 120
#: Texts are not cut shorter than this to make a table fit.
_TEXT_WIDTH_MIN: Final = 12
#: Rows that are laid out together.
_STRETCH_ROWS: Final = 10_000
_SHORT_ID: Final = 8
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d.*")
_NUMBER: Final = re.compile(r"-?\d{1,3}(,\d{3})*")
_ID: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def print_rows(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    form: str,
    out: TextIO | None = None,
    *,
    whole: str = "--format json",
) -> None:
    """Print `rows` under `columns` to `out` in one of `FORMATS`; `whole` is the flag that gives what a table cuts."""
    out = out or sys.stdout
    if form == "json":
        names = list(_distinct(columns))
        for row in rows:
            out.write(json.dumps(dict(zip(names, map(_plain, row), strict=True)), ensure_ascii=False) + "\n")
    elif form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_flat(value) for value in row] for row in rows)
    else:
        _print_table(columns, iter(rows), out, whole)


def print_json(value: Any) -> None:
    """Print `value` as one JSON object."""
    write_json(value, sys.stdout)


def write_json(value: Any, out: TextIO) -> None:
    """Write `value` as one JSON object to `out`."""
    json.dump(value, out, indent=2)
    out.write("\n")


def printable(text: str) -> str:
    r"""Return `text` as one line in which every character can be seen: others stand as `\n`, `\x1b`, `\u202e`."""
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def grouped(number: int | None) -> str:
    """Return `number` with its thousands apart."""
    return "null" if number is None else f"{number:,}"


def utc(ns: int) -> str:
    """Return CLOCK_REALTIME `ns` as a UTC time to the second."""
    return f"{dt.datetime.fromtimestamp(ns // 1_000_000_000, dt.UTC):%Y-%m-%d %H:%M:%S}"


def short_ids(values: Iterable[str]) -> dict[str, str]:
    """Return what stands for each of `values`: of an id as many of its first characters as tell it from the others.

    Ids are those of machines and boots; any other name stands for itself.
    """
    names = set(values)
    ids = sorted(name for name in names if _ID.fullmatch(name))
    size = _SHORT_ID
    while len({name[:size] for name in ids}) < len(ids):
        size += 1
    return {name: name[:size] if name in ids else name for name in names}


def _distinct(columns: Sequence[str]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for name in columns:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}_{seen[name]}"


# As JSON values: JSON has no NaN.
def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, decimal.Decimal)):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, (dt.datetime, dt.date, dt.time)) else str(value)


# As one cell; a map or list is its JSON.
def _flat(value: Any) -> Any:
    plain = _plain(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, (dict, list)) else plain


# One line whatever the record holds, and nothing that moves a terminal's cursor.
def _cell(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value if isinstance(value, (float, decimal.Decimal, dt.datetime)) else _flat(value))
    return printable(text)


def _escape(char: str) -> str:
    return {"\n": "\\n", "\t": "\\t"}.get(char) or (
        f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"
    )


def _print_table(columns: Sequence[str], rows: Iterator[Sequence[Any]], out: TextIO, whole: str) -> None:
    count, cut, upright = 0, False, False
    widths = [len(name) for name in columns]
    limit = shutil.get_terminal_size((_WIDTH, 24)).columns
    while (some := list(itertools.islice(rows, _STRETCH_ROWS))) or not count:
        cells = [[_cell(value) for value in row] for row in some]
        numeric = [_numeric([row[i] for row in some]) for i in range(len(columns))]
        fixed = [number or all(_TIME.fullmatch(row[i]) for row in cells) for i, number in enumerate(numeric)]
        widths = [max([width, *map(len, column)]) for width, *column in zip(widths, *cells, strict=True)]
        fit = None if upright else _fit(widths, fixed, limit)
        upright = fit is None and bool(some)
        if upright:
            _print_upright(columns, cells, count + 1, out)
        else:
            head = [] if count else [[*columns], ["-" * width for width in fit or widths]]
            for line in (*head, *cells):
                parts = [_pad(*cell) for cell in zip(line, fit or widths, numeric, strict=True)]
                out.write("  ".join(parts).rstrip() + "\n")
            cut = cut or fit not in (None, widths)
        count += len(some)
        if len(some) < _STRETCH_ROWS:
            break
    note = f"; … is cut text, {whole} has all of it" if cut else ""
    out.write(f"({count} row{'' if count == 1 else 's'}{note})\n")


def _print_upright(columns: Sequence[str], cells: list[list[str]], first: int, out: TextIO) -> None:
    width = max(map(len, columns))
    for number, row in enumerate(cells, first):
        out.write(f"--- row {number}\n")
        out.writelines(f"{name.ljust(width)}  {cell}".rstrip() + "\n" for name, cell in zip(columns, row, strict=True))


def _pad(text: str, width: int, numeric: bool) -> str:
    if len(text) > width:
        return text[: width - 1] + "…"
    return text.rjust(width) if numeric else text.ljust(width)


# Numbers, also those that `grouped` has made readable.
def _numeric(values: list[Any]) -> bool:
    known = [value for value in values if value is not None and value != "null"]
    return bool(known) and all(
        (isinstance(value, (int, float, decimal.Decimal)) and not isinstance(value, bool))
        or (isinstance(value, str) and _NUMBER.fullmatch(value))
        for value in known
    )


# The widths with the longest texts cut as far as `limit` needs; None where that is not enough.
def _fit(widths: list[int], fixed: list[bool], limit: int) -> list[int] | None:
    room = limit - 2 * (len(widths) - 1)
    for level in (max(widths), *range(limit, _TEXT_WIDTH_MIN - 1, -1)):
        cut = [width if whole else min(width, level) for width, whole in zip(widths, fixed, strict=True)]
        if sum(cut) <= room:
            return cut
    return None
