"""The `hypocenter` command: one verb, one file in `consumers/commands/`."""

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Final

from consumers import render
from schemas import logs
from schemas.errors import HypocenterError

VERBS: Final = {
    "collect": "store what the log holds into a lake, for ever or to the end",
    "query": "run SQL over exactly the committed rows",
    "audit": "prove that every stream's book closes",
    "losses": "list what was lost, where, and who found it",
    "status": "frontier, lag, coverage and last commit per partition",
    "tail": "follow decoded records as text",
    "import": "store a saved dump",
    "compact": "merge the small files of past hours",
    "topics": "create or verify Kafka's topics",
    "trial": "agent, collector and audit together for some seconds (what `make run` runs)",
}
_EPILOG: Final = """\
examples:
  hypocenter collect --lake /srv/lake --log /var/lib/hypocenter/log
  hypocenter query --lake /srv/lake "select seq, message from kmsg order by seq desc limit 10"
  hypocenter audit --lake /srv/lake

exit codes: 0 done, books close; 1 a book does not close; 2 wrong flag, config or directory; 65 bad input; 69 nobody
answers; 74 disk refuses; 75 directory in use; 77 a surface may not be read
"""


def parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Return the parser with every verb; only `chosen` has its flags, so that no other verb's libraries are loaded."""
    top = argparse.ArgumentParser(
        prog="hypocenter",
        description="Collect, store and question what Linux guests and hosts emit.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, summary in VERBS.items():
        sub = verbs.add_parser(verb, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if verb != chosen:
            continue
        module = importlib.import_module(f"consumers.commands.{'import_dump' if verb == 'import' else verb}")
        sub.description = module.__doc__
        sub.add_argument("--verbose", action="store_true", help="log more")
        module.add_arguments(sub)
        sub.set_defaults(func=module.run)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser(next((word for word in argv if word in VERBS), None)).parse_args(argv)
    logs.setup(verbose=args.verbose)
    try:
        code: int = args.func(args)
    except HypocenterError as e:
        print(f"hypocenter: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def add_lake(sub: argparse.ArgumentParser, what: str = "the lake's directory") -> None:
    """Add `--lake`, which every verb over a lake has."""
    sub.add_argument("--lake", type=Path, required=True, metavar="DIR", help=what)


def add_format(sub: argparse.ArgumentParser) -> None:
    """Add `--format`, which every verb that prints rows has."""
    sub.add_argument("--format", choices=render.FORMATS, default="table", help="how rows are printed [table]")


if __name__ == "__main__":
    sys.exit(main())
