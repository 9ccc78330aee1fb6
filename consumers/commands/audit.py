"""Prove that every book closes: per stream, emitted = stored + duplicates + dead letters + lost.

Also verifies the chains of commits, and that every file they name is there with its rows. Exit 0 only if everything
holds. Files that are damaged are noted in the lake, and answers are without them from then on. Positions are counted,
in the surface's own numbering; `unknown` counts losses that nobody could count.
"""

import argparse
import logging
import time
from collections.abc import Iterable

from consumers import render
from consumers.cli import add_lake
from consumers.commands.streams import SHOWN, shown
from consumers.lake.audit import AuditReport, audit
from consumers.lake.damage import note
from consumers.lake.layout import HOUR_NS, hour_text, open_lake
from consumers.lake.storage import Storage
from schemas.errors import StorageError
from schemas.stream import Layer, Stream

log = logging.getLogger(__name__)
_LAYERS = frozenset(Layer)


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_lake(sub)
    sub.add_argument("--json", action="store_true", help="one JSON object, with every sum and whole names")
    sub.add_argument(
        "--deep",
        action="store_true",
        help="read every file: its hash, every stream's positions; of trace rings the kernel's count",
    )


def run(args: argparse.Namespace) -> int:
    """Print the books and what is wrong; 0 if nothing is."""
    storage = open_lake(args.lake, create=False)
    report = audit(storage, deep=args.deep)
    _note(storage, report)
    if args.json:
        render.print_json(report.to_json())
    else:
        print_books(report)
    return 0 if report.closes else 1


# Whoever may only read the lake can audit it all the same.
def _note(storage: Storage, report: AuditReport) -> None:
    try:
        note(storage, report.suspects, time.time_ns())
    except StorageError as e:
        log.warning("which files are damaged is not noted in the lake, and queries meet them again: %s", e)


def print_books(report: AuditReport) -> None:
    """Print the books as a table, then the problems and the verdict."""
    books = report.books
    streams = shown([_stream(book.name) for book in books])
    columns = {name: tuple(cells[i] for cells in streams) for i, name in enumerate(SHOWN)}
    if len({book.chain for book in books}) > 1:
        columns["partition"] = tuple("-".join(book.chain.rsplit("/", 1)) for book in books)
    columns |= {
        "emitted": _grouped(book.emitted for book in books),
        "stored": _grouped(book.stored for book in books),
        "duplicates": _grouped(book.duplicates for book in books),
        "dead": _grouped(book.dead_letters for book in books),
        "lost": _grouped(sum(book.lost.values()) for book in books),
    }
    if any(book.lost_events for book in books):
        columns["lost_events"] = _grouped(book.lost_events for book in books)
    if any(book.unknown_losses for book in books):
        columns["unknown"] = _grouped(book.unknown_losses for book in books)
    columns["closes"] = tuple("yes" if book.closes else "NO" for book in books)
    render.print_rows(list(columns), list(zip(*columns.values(), strict=True)), "table", whole="--json")
    if report.retired:
        rows, before = sum(report.retired.values()), hour_text(report.retired_before_ns // HOUR_NS)
        damaged = sum(report.retired_damaged.values())
        nobody = f", {damaged:,} of them in damaged files: of which streams nobody can say" if damaged else ""
        print(f"retired: {rows:,} rows of what came before {before}{nobody}")
    for problem in report.problems:
        print(f"problem: {problem}")
    verdict = "every book closes" if books else "no stream is stored here yet"
    print(f"emitted = stored + duplicates + dead + lost: {verdict if report.closes else 'NOT every book closes'}")


def _grouped(numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(map(render.grouped, numbers))


# A book's name joins what is not empty; a layer is a known word, so a slash in the machine's name does no harm.
def _stream(name: str) -> Stream:
    parts = name.split("/")
    at = next((i for i, part in enumerate(parts) if i > 1 and part in _LAYERS), None)
    if at is None:
        return Stream(name, "", "", "", "", "")
    surface, *rest = parts[at + 1 :] or [""]
    return Stream("/".join(parts[: at - 1]), parts[at - 1], parts[at], surface, "/".join(rest[:-1]), "".join(rest[-1:]))
