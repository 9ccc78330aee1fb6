"""Prove that every book closes: per stream, emitted = stored + duplicates + dead letters + accounted losses.

Also verifies the commit chains, and that every file they name is there with its rows. Exit 0 only if everything holds.
"""

import argparse
import json
import sys

from consumers import render
from consumers.cli import add_lake
from consumers.lake.audit import AuditReport, audit
from consumers.lake.layout import open_lake


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_lake(sub)
    sub.add_argument("--json", action="store_true", help="one JSON object")
    sub.add_argument("--deep", action="store_true", help="read every file: its hash, and every stream's positions")


def run(args: argparse.Namespace) -> int:
    """Print the books and what is wrong; 0 if nothing is."""
    report = audit(open_lake(args.lake, create=False), deep=args.deep)
    if args.json:
        json.dump(report.to_json(), sys.stdout, indent=2)
        print()
    else:
        print_books(report)
    return 0 if report.closes else 1


def print_books(report: AuditReport) -> None:
    """Print the books as a table, then the problems and the verdict."""
    columns = ("stream", "emitted", "stored", "duplicates", "dead letters", "lost", "unknown", "closes")
    rows = [
        (
            book.name,
            book.emitted,
            book.stored,
            book.duplicates,
            book.dead_letters,
            sum(book.lost.values()),
            book.unknown_losses,
            "yes" if book.closes else "NO",
        )
        for book in report.books
    ]
    render.print_rows(columns, rows, "table")
    for problem in report.problems:
        print(f"problem: {problem}")
    print("emitted = stored + duplicates + dead letters + lost: ", end="")
    print("every book closes" if report.closes else "NOT every book closes")
