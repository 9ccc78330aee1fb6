"""List what was lost: kind, stream, positions, count (null = unknown) and its unit, reason, and who found it.

In the order in which the losses came to the log. A loss without a stream is one of the log itself: its positions are
offsets. Tables shorten ids and show the time of arrival in UTC; json and csv have every name whole, and times in ns.
"""

import argparse
from typing import Any

from consumers import render
from consumers.cli import add_format, add_lake
from consumers.commands.streams import SHOWN, shown
from consumers.lake.damage import exit_code
from consumers.lake.layout import open_lake
from consumers.views import run_query
from schemas.loss import LossUnit
from schemas.stream import Stream

_NAMES = ", ".join(Stream._fields)
_SQL = f"""
select {_NAMES}, kind, first_position, count, reason, found_by, unit, arrival_ns, topic, partition, "offset"
from losses order by arrival_ns, {_NAMES}, first_position
"""  # noqa: S608
_COLUMNS = ("arrived_utc", *SHOWN, "kind", "from", "count", "reason", "found_by")


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_lake(sub)
    add_format(sub)


def run(args: argparse.Namespace) -> int:
    """Print the losses in the order in which they came to the log."""
    storage = open_lake(args.lake, create=False)
    columns, rows = run_query(storage, _SQL)
    if args.format == "table":
        columns, rows = _COLUMNS, _for_people(rows)
    render.print_rows(columns, rows, args.format)
    return exit_code(storage)


def _for_people(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    size = len(Stream._fields)
    streams = shown([Stream(*row[:size]) for row in rows])
    table = []
    for stream, row in zip(streams, rows, strict=True):
        kind, first, count, reason, found_by, unit, arrival_ns = row[size : size + 7]
        many = render.grouped(count) + ("" if unit == LossUnit.POSITION else f" {unit}s")
        table.append((render.utc(arrival_ns), *stream, kind, first, many, reason, found_by))
    return table
