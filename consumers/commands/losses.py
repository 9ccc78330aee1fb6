"""List what was lost: kind, stream, positions, count (null = unknown), reason, and who found it."""

import argparse

from consumers import render
from consumers.cli import add_format, add_lake
from consumers.lake.layout import open_lake
from consumers.views import run_query

_SQL = """
select kind, machine, boot_id, layer, surface, instance, first_position, count, reason, found_by
from losses order by arrival_ns, machine, boot_id, layer, surface, instance, first_position
"""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_lake(sub)
    add_format(sub)


def run(args: argparse.Namespace) -> int:
    """Print the losses in the order in which they came to the log."""
    columns, rows = run_query(open_lake(args.lake, create=False), _SQL)
    render.print_rows(columns, rows, args.format)
    return 0
