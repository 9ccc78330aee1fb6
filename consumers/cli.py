"""The `hypocenter` command: one verb, one file in `consumers/commands/`."""

import argparse
import gc
import importlib
import os
import sys
from pathlib import Path
from typing import Final

from consumers import render
from schemas import logs
from schemas.command_line import Parser, add_version, ended, open_streams

VERBS: Final = {
    "collect": "store what the log holds into a lake, for ever or to the end",
    "query": "run SQL over exactly the committed rows",
    "audit": "prove that every stream's book closes",
    "losses": "list what was lost, where, and who found it",
    "status": "frontier, lag, coverage and last commit per partition",
    "tail": "follow decoded records as text",
    "import": "store an archive: a dump of the kernel log, or trace events that were saved",
    "export": "write trace events as a file that Perfetto opens",
    "clocks": "how far one clock is ahead of another, how exactly that is known",
    "incidents": "list the incidents that were stored, or show one whole, with verdict and evidence",
    "timeline": "what all layers emitted between two times, in one list, with error bounds",
    "alert": "find incidents in the kernel logs that arrive, tell Alertmanager, store them",
    "verdict": "judge a stored incident again: which layer owned it, by which evidence",
    "triage": "say what stood still in saved kernel logs, and what their text can and cannot say about why",
    "compact": "merge the small files of past hours",
    "topics": "create or verify Kafka's topics",
    "trial": "agent, collector and audit together for some seconds",
}
# What libraries read when they are loaded. NumPy starts threads for linear algebra, which nobody asks for here: they
# spin for a tenth of a second. Arrow's own allocator gives memory back after 10 ms, and the kernel must clear it anew.
_SETTINGS: Final = {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
_EPILOG: Final = """\
`hypocenter VERB --help` shows a verb's flags.

examples:
  hypocenter trial --for 10
  hypocenter collect --lake /srv/lake --log /var/lib/hypocenter/log
  hypocenter query --lake /srv/lake "select seq, message from kmsg order by seq desc limit 10"
  hypocenter audit --lake /srv/lake

exit codes:
  0   done; for audit: every book closes; for triage: something was found
  1   a book does not close, or a bug; for triage: nothing was found
  2   wrong flag, config, SQL or directory
  65  the input is no such thing; for triage: a file cannot be read to its end
  69  no broker or log answers
  74  the disk refuses; or an answer is without damaged files, which stderr names
  75  another process owns the directory
  77  a surface may not be read
  130 interrupted
"""


def parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Return the parser with every verb; only `chosen` has its flags, so that no other verb's libraries are loaded."""
    top = Parser(
        prog="hypocenter",
        description="Collect, store and question what Linux guests and hosts emit.",
        epilog=_EPILOG,
    )
    add_version(top)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, summary in VERBS.items():
        sub = verbs.add_parser(verb, help=summary)
        if verb != chosen:
            continue
        module = importlib.import_module(f"consumers.commands.{'import_archive' if verb == 'import' else verb}")
        sub.description = module.__doc__
        module.add_arguments(sub)
        sub.add_argument("--verbose", action="store_true", help="log more")
        sub.set_defaults(func=module.run)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    open_streams()
    argv = sys.argv[1:] if argv is None else argv
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    # Libraries make a hundred thousand objects that stay: not to be searched for garbage while they come, nor later.
    gc.disable()
    try:
        args = parser(next((word for word in argv if word in VERBS), None)).parse_args(argv)
    finally:
        gc.freeze()
        gc.enable()
    logs.setup(verbose=args.verbose)
    return ended("hypocenter", lambda: args.func(args))


def add_lake(sub: argparse.ArgumentParser, what: str = "the lake's directory") -> None:
    """Add `--lake`, which every verb over a lake has."""
    sub.add_argument("--lake", type=Path, required=True, metavar="DIR", help=what)


def add_format(sub: argparse.ArgumentParser) -> None:
    """Add `--format`, which every verb that prints rows has."""
    sub.add_argument(
        "--format",
        choices=render.FORMATS,
        default="table",
        help="a table for people, one JSON object a line, or CSV [table]",
    )


if __name__ == "__main__":
    sys.exit(main())
