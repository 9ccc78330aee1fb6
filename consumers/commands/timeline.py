r"""List what all layers emitted between two times: a VM's guest and what its hosts say of it, or one machine.

Each row has its time on one clock with the error bound, and its own time. `~` marks a row whose bounds overlap those of
a row of another clock: which came first is undetermined. Rows are `not comparable` where nothing connects their clock,
or it was not read; they stand where they arrived in the log. Losses, and spans in which a stream was not watched, are
rows too. Trace events are counted and samples of vCPUs summed up, unless --each.

WHEN is a time in UTC, such as 2026-03-02T09:00:00, or a whole number: ns on --clock.

for example:
  hypocenter timeline --lake /srv/lake --vm web-7 --since 2026-03-02T09:00:20 --until 2026-03-02T09:00:30
  hypocenter timeline --lake /srv/lake --vm web-7 --since 2026-03-02T09:00 --until 2026-03-02T09:01 \
      --format html -o web-7.html
"""

import argparse
import io
import sys
from pathlib import Path
from typing import Any, Final

from consumers import render
from consumers.cli import add_lake
from consumers.clocks.graph import CLOCKS, REALTIME
from consumers.export import scope
from consumers.export.scope import When
from consumers.lake.damage import exit_code
from consumers.lake.layout import open_lake
from consumers.output import replacing
from consumers.timeline import page
from consumers.timeline.build import HOST, Choice, Timeline, build
from consumers.timeline.entries import Entry, Order
from consumers.timeline.shown import at, bound, cut, head, own_time
from schemas.command_line import positive_int

#: Rows that are shown unless --limit says otherwise.
LIMIT: Final = 2000
_COLUMNS: Final = ("at", "bound", "", "layer", "stream", "own_time", "what")


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_lake(sub)
    whose = sub.add_mutually_exclusive_group(required=True)
    whose.add_argument("--vm", metavar="NAME", help="the VM that its host calls so, or that has this uuid")
    whose.add_argument("--machine", metavar="ID", help="this machine; the beginning of an id is enough")
    sub.add_argument("--since", type=_when, required=True, metavar="WHEN", help="from then on")
    sub.add_argument("--until", type=_when, required=True, metavar="WHEN", help="to then")
    sub.add_argument(
        "--clock",
        choices=(HOST, *CLOCKS),
        default=REALTIME,
        metavar="NAME",
        help=f"whose time is shown: realtime, UTC by the host's clock; {HOST}, the host's CLOCK_BOOTTIME; or one of the"
        f" VM or machine itself: {', '.join(CLOCKS[1:])} [realtime]",
    )
    sub.add_argument("--each", action="store_true", help="each trace event and sample of a vCPU as a row of its own")
    sub.add_argument("--limit", type=positive_int, default=LIMIT, metavar="N", help=f"so many rows at most [{LIMIT}]")
    sub.add_argument("--format", choices=("text", "json", "html"), default="text", help="text, JSON or one page [text]")
    sub.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write it there, replaced if it is there [stdout]"
    )


def run(args: argparse.Namespace) -> int:
    """Print the timeline, or write it."""
    choice = Choice(args.vm, args.machine, args.since, args.until, args.clock, args.each)
    storage = open_lake(args.lake, create=False)
    found = build(storage, choice, args.limit)
    out = io.StringIO()
    if args.format == "html":
        page.write(found, out)
    elif args.format == "json":
        render.write_json(_as_json(found), out)
    else:
        _write_text(found, out)
    if args.output is None:
        sys.stdout.write(out.getvalue())
        return exit_code(storage)
    with replacing(args.output) as file:
        file.write(out.getvalue().encode())
    print(f"{args.output}: {len(found.entries):,} rows")
    return exit_code(storage)


def _as_json(found: Timeline) -> dict[str, Any]:
    window = found.window
    return {
        "title": found.scope.title,
        "axis": None if window.axis is None else window.axis._asdict(),
        "since_ns": window.start_ns,
        "until_ns": found.until_ns,
        "left_out": found.left_out,
        "notes": found.notes,
        "rows": [_row(entry) for entry in found.entries],
    }


def _row(entry: Entry) -> dict[str, Any]:
    placed = entry.bound_ns is not None
    return {
        "at_ns": entry.at_ns,
        "bound_ns": entry.bound_ns,
        "until_at_ns": entry.until_at_ns,
        "order": entry.order.value,
        "comparable": placed,
        "reason": entry.reason or None,
        "kind": entry.kind.value,
        **entry.stream._asdict(),
        "position": entry.position if entry.position >= 0 else None,
        "own_clock": entry.clock,
        "own_ns": entry.ts_ns,
        "own_until_ns": entry.until_ns,
        "arrival_ns": entry.arrival_ns,
        "level": entry.level,
        "text": entry.text,
    }


def _write_text(found: Timeline, out: io.StringIO) -> None:
    window = found.window
    out.writelines(line + "\n" for line in (head(found), *found.notes))
    out.write("\n")
    rows = [
        (
            at(entry.at_ns, window.axis),
            bound(entry),
            {Order.KNOWN: "", Order.UNDETERMINED: "~", Order.ARRIVAL: "?"}[entry.order],
            entry.stream.layer,
            "/".join(part for part in (entry.stream.surface, entry.stream.instance) if part),
            own_time(entry),
            entry.text,
        )
        for entry in found.entries
    ]
    render.print_rows(_COLUMNS, rows, "table", out, whole="--format json")
    if found.left_out:
        out.write(cut(found) + "\n")


def _when(text: str) -> When:
    try:
        return scope.when(text)
    except (ValueError, OverflowError):
        what = "a time in UTC like 2026-03-02T09:00:00.5, or a whole number of ns on --clock"
        raise argparse.ArgumentTypeError(f"{what}, not {text!r:.60}") from None
