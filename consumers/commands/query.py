"""Run SQL (DuckDB) over exactly the committed rows: one view per table.

tables: kmsg, incidents, losses, coverage, dead_letters, artifacts; of a host topology_*, vcpu_time, vcpu_exits, vmm_*,
qmp_*, relay_*; procfs_*, clock_*; and trace_EVENT for each kind of trace event, bpf_PROGRAM for each BPF program.
`show tables` lists them, `describe kmsg` shows a table's columns; consumers/TABLES.md says what each means and has
worked queries. Times are integers in ns: `make_timestamp_ns(captured_ns)` shows one in UTC.
"""

import argparse
from typing import Final

from consumers import render
from consumers.cli import add_format, add_lake
from consumers.lake.damage import exit_code
from consumers.lake.layout import open_lake
from consumers.views import answering

#: The columns of a plan, which is a drawing of many lines.
_PLAN: Final = ["explain_key", "explain_value"]


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_lake(sub)
    sub.add_argument("sql", metavar="SQL", help="one statement that reads")
    add_format(sub)


def run(args: argparse.Namespace) -> int:
    """Print the answer; 74 where it is without damaged files."""
    storage = open_lake(args.lake, create=False)
    with answering(storage, args.sql) as (columns, rows):
        if args.format == "table" and list(columns) == _PLAN:
            for _, plan in rows:
                print(*map(render.printable, plan.splitlines()), sep="\n")
        else:
            render.print_rows(columns, rows, args.format)
    return exit_code(storage)
