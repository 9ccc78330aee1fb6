"""List the incidents that `alert` has stored, newest first; or show one whole: verdict, evidence, what was missing.

`when` it began is in UTC where the lake's clocks connect the kernel's with it, else the kernel's own time. WHEN is a
time in UTC, such as 2026-03-02T09:00:00, by the log's clock: an incident is listed if anything of it came in between.

for example:
  hypocenter incidents --lake /srv/lake --state open
  hypocenter incidents show 3f9ac2d1 --lake /srv/lake --html 3f9ac2d1.html
"""

import argparse
import difflib
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from consumers import render
from consumers.cli import add_format
from consumers.clocks.graph import BOOT, PRINTK
from consumers.export import scope
from consumers.incidents import page_html, page_text, stored, utc
from consumers.incidents.around import around
from consumers.incidents.incident import State
from consumers.incidents.page import length_text
from consumers.incidents.page_parts import page
from consumers.incidents.page_timeline import told
from consumers.incidents.utc import Utc
from consumers.lake.damage import exit_code
from consumers.lake.layout import open_lake
from consumers.lake.storage import Storage
from consumers.output import replacing
from consumers.reports.report import Kind, Seconds
from consumers.timeline.shown import seconds
from consumers.verdict.verdict import Owner
from schemas.command_line import positive_int
from schemas.errors import UsageError
from schemas.stream import Layer

#: Incidents that are listed, and rows of a timeline in text, unless --limit says otherwise.
LIMIT: Final = 200
ROWS: Final = 40
_NAMED_MAX: Final = 8
_COLUMNS: Final = ("id", "when", "vm_or_machine", "kind", "length", "owner", "confidence", "row", "state")
_LEFT_OUT: Final = ("topic", "partition", "offset")


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("--lake", type=Path, metavar="DIR", help="the lake's directory")
    sub.add_argument("--since", type=_when, metavar="WHEN", help="what went on from then on")
    sub.add_argument("--until", type=_when, metavar="WHEN", help="what began before then")
    sub.add_argument("--kind", choices=[*Kind], metavar="NAME", help=f"one of {', '.join(Kind)}")
    sub.add_argument("--owner", choices=[*Owner], metavar="NAME", help=f"alone or shared; one of {', '.join(Owner)}")
    sub.add_argument("--state", choices=[*State], metavar="NAME", help=f"one of {', '.join(State)}")
    sub.add_argument("--vm", metavar="NAME", help="of the VM that its host calls so")
    sub.add_argument("--machine", metavar="ID", help="of this machine; the beginning of an id is enough")
    sub.add_argument("--limit", type=positive_int, default=LIMIT, metavar="N", help=f"so many at most [{LIMIT}]")
    add_format(sub)
    words = sub.add_subparsers(dest="what", metavar="show")
    show = words.add_parser("show", help="one incident whole; the beginning of its id is enough")
    show.add_argument("id", metavar="ID", help="its id, or the beginning of it")
    # Behind the word as well as in front of it.
    show.add_argument("--lake", type=Path, default=argparse.SUPPRESS, metavar="DIR", help="the lake's directory")
    show.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help="log more")
    show.add_argument("--rows", type=positive_int, default=ROWS, metavar="N", help=f"of the timeline, in text [{ROWS}]")
    show.add_argument("--html", type=Path, metavar="FILE", help="write it as one page there, replaced if it is there")


def run(args: argparse.Namespace) -> int:
    """Print the list, or one incident."""
    if args.lake is None:
        raise UsageError("incidents needs --lake DIR")
    storage = open_lake(args.lake, create=False)
    if args.what == "show":
        return _show(storage, args)
    rows = stored.newest(storage)
    ids = stored.short_ids([row["incident_id"] for row in rows])
    if args.format == "table" and not rows:
        print("the lake has no incident: `hypocenter alert` finds and stores them")
        return exit_code(storage)
    found = _chosen(rows, args)
    more, found = len(found) - args.limit, found[: args.limit]
    _add_utc(storage, found)
    if args.format != "table":
        if found:
            render.print_rows([*found[0]], [[*row.values()] for row in found], args.format)
        return exit_code(storage)
    if not found:
        print(f"none of the lake's {len(rows):,} incidents is of that sort")
        return exit_code(storage)
    render.print_rows(_COLUMNS, [_shown(row, ids) for row in found], "table")
    if more > 0:
        print(f"{more:,} older ones are left out: narrow it, or raise --limit")
    return exit_code(storage)


def _show(storage: Storage, args: argparse.Namespace) -> int:
    found = stored.read(storage, args.id)
    lake = str(args.lake)
    beside = around(storage, found)
    whole = page(found, beside, told(storage, found, beside, lake), lake)
    out = io.StringIO()
    if args.html is None:
        page_text.write(whole, found.incident, args.rows, out)
        sys.stdout.write(out.getvalue())
        return exit_code(storage)
    page_html.write(whole, found.incident, "" if found.verdict is None else str(found.verdict.confidence), out)
    with replacing(args.html) as file:
        file.write(out.getvalue().encode())
    print(f"{args.html}: incident {found.incident.id}")
    return exit_code(storage)


def _chosen(rows: list[dict[str, Any]], args: argparse.Namespace) -> list[dict[str, Any]]:
    machines = {row["machine"] for row in rows} | {row["host"] for row in rows if row["host"]}
    if args.machine is not None and not any(name.startswith(args.machine) for name in machines):
        raise UsageError(_unknown("machine", args.machine, machines))
    vms = {row["vm"] for row in rows if row["vm"]}
    if args.vm is not None and args.vm not in vms:
        raise UsageError(_unknown("VM", args.vm, vms))
    return [row for row in rows if _fits(row, args)]


def _fits(row: dict[str, Any], args: argparse.Namespace) -> bool:
    owners = (row["owner"] or Owner.UNDETERMINED, row["shared"])
    return (
        (args.since is None or row["changed_ns"] >= args.since)
        and (args.until is None or row["opened_ns"] < args.until)
        and args.kind in (None, row["kind"], row["first_kind"])
        and (args.owner is None or args.owner in owners)
        and args.state in (None, row["state"])
        and args.vm in (None, row["vm"])
        and (args.machine is None or any(row[name].startswith(args.machine) for name in ("machine", "host")))
    )


# When each began in UTC: null where no clock connects its kernel's with that.
def _add_utc(storage: Storage, rows: Sequence[dict[str, Any]]) -> None:
    graph = utc.graph_of(storage, rows) if rows else None
    for row in rows:
        since = None
        if graph is not None and row["since_ns"] is not None:
            hosts = [row["host"]] if row["host"] else []
            clock = BOOT if row["layer"] == Layer.VIRTUAL_PLATFORM else PRINTK
            since = utc.of_kernel(graph, (row["machine"], row["boot_id"]), hosts, row["since_ns"], clock)
        row["since_utc_ns"] = since.ns if isinstance(since, Utc) else None
        row["since_utc_bound_ns"] = since.bound_ns if isinstance(since, Utc) else None
        for name in _LEFT_OUT:
            del row[name]


def _shown(row: dict[str, Any], ids: dict[str, str]) -> tuple[Any, ...]:
    if row["since_utc_ns"] is not None:
        when = render.utc(row["since_utc_ns"])
    elif row["since_ns"] is not None:
        when = f"kernel {seconds(row['since_ns'])[:-3]}"
    else:
        when = "unknown"
    high = row["duration_high_s"]
    length = "" if high is None else length_text(Seconds(row["duration_low_s"], high))
    owner = "not judged" if row["owner"] is None else row["owner"] + (f", {row['shared']}" if row["shared"] else "")
    where = row["vm"] or render.short_ids([row["machine"]])[row["machine"]]
    state = f"{row['state']}, {row['ended_by']}" if row["ended_by"] else row["state"]
    verdict = (row["confidence"] or "", row["row"] or "")
    return (ids[row["incident_id"]], when, where, row["kind"], length, owner, *verdict, state)


def _when(text: str) -> int:
    try:
        found = scope.when(text)
    except (ValueError, OverflowError):
        found = None
    if found is None or found.column == "ts_ns":
        raise argparse.ArgumentTypeError(f"a time in UTC like 2026-03-02T09:00:00.5, not {text!r:.60}")
    return found.ns


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    if not names:
        return f"no incident names a {what}, so none is called {name}"
    near = difflib.get_close_matches(name, names, n=_NAMED_MAX)
    listed = ", ".join((near or names)[:_NAMED_MAX]) + (", ..." if len(near or names) > _NAMED_MAX else "")
    return f"no incident is of {what} {name}; {f'did you mean {listed}?' if near else f'there is {listed}'}"
