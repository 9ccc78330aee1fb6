r"""Write trace events as a file of another program: `export perfetto` makes a trace that ui.perfetto.dev opens.

One file has the events of one boot on one trace clock, in the order of each CPU's ring, and marks where some were lost.
Where the lake holds several machines, boots or clocks, the flags choose; an id may be cut to its beginning. WHEN is a
time in UTC, such as 2026-03-02T09:00:00, by which the log had the events (`arrival_ns`), or a whole number: ns on the
trace clock, as in the column `ts_ns`.

for example:
  hypocenter export perfetto --lake /srv/lake -o boot.pftrace
  hypocenter export perfetto --lake /srv/lake --machine 5f0c2a9b --instance sched \
      --since 2026-03-02T09:00:00 --until 2026-03-02T09:00:10 -o ten-seconds.pftrace
"""

import argparse
import logging
from pathlib import Path

from consumers.cli import add_lake
from consumers.export import perfetto, scope
from consumers.export.scope import Choice, When
from consumers.lake.damage import exit_code
from consumers.lake.layout import open_lake
from consumers.progress import ProgressBar
from consumers.views import connect

log = logging.getLogger(__name__)


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("format", choices=("perfetto",), help="what to write")
    add_lake(sub)
    sub.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the file; replaced if it is there"
    )
    sub.add_argument("--since", type=_when, metavar="WHEN", help="from then on [the first event]")
    sub.add_argument("--until", type=_when, metavar="WHEN", help="before then [to the last event]")
    sub.add_argument("--machine", metavar="ID", help="the machine; needed where there are several")
    sub.add_argument("--boot-id", metavar="ID", help="its boot; likewise")
    sub.add_argument("--clock", metavar="NAME", help="the trace clock; likewise")
    sub.add_argument("--instance", metavar="NAME", help="only this set of events, or one CPU of it: SET/cpuN")


def run(args: argparse.Namespace) -> int:
    """Write the file, and say what is in it."""
    storage = open_lake(args.lake, create=False)
    choice = Choice(args.machine, args.boot_id, args.clock, args.instance, args.since, args.until)
    connection = connect(storage)
    try:
        found = scope.find(connection, choice)
        report = perfetto.write(connection, found, args.output, ProgressBar("events"))
    finally:
        connection.close()
    for table, sets in found.twice.items():
        where = f"{table} of one CPU was recorded by the sets {' and '.join(sets)} at the same time"
        log.warning("%s: what both have recorded is in the file twice; --instance chooses one", where)
    for note in report.notes:
        log.warning("%s", note)
    what = [
        _many(report.events, "event"),
        _many(report.losses, "loss", "losses"),
        _many(report.records, "kernel log record"),
    ]
    print(f"{args.output}: {', '.join(what)} on {_many(len({ring.cpu for ring in found.rings}), 'CPU')}")
    seconds = (found.last_ns - found.first_ns) / 1e9
    print(
        f"machine {found.machine}, boot {found.boot_id}, clock {found.clock}: "
        f"{seconds:,.3f} s, {report.size_bytes:,} bytes"
    )
    return exit_code(storage)


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _when(text: str) -> When:
    try:
        return scope.when(text)
    except (ValueError, OverflowError):
        what = "a time in UTC like 2026-03-02T09:00:00.5, or a whole number of ns on the trace clock"
        raise argparse.ArgumentTypeError(f"{what}, not {text!r:.60}") from None
