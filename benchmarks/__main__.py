"""`python -m benchmarks [NAME ...] [--quick]`: run the benchmarks and print one table."""

import argparse
import importlib
import pkgutil
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import benchmarks
from benchmarks.base import Options, Row, Skipped, log, median
from schemas.errors import HypocenterError

_PREFIX = "bench_"
_HEAD = ("benchmark", "min / median / max", "unit", "reach", "met", "how")


def names() -> list[str]:
    """Return the names of all benchmarks."""
    found = (each.name for each in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name.removeprefix(_PREFIX) for name in found if name.startswith(_PREFIX))


def main() -> int:
    """Run what the command line names, all without a name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--captures", type=Path, metavar="DIR", help="recorded *.kmsg files as the source of text")
    parser.add_argument(
        "--soak-s", type=float, default=0.0, metavar="S", help="load the agent so long, watch its memory"
    )
    parser.add_argument("--histories", type=int, default=0, metavar="N", help="compare clocks in so many random ones")
    args = parser.parse_args()
    unknown = set(args.names) - set(names())
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    if args.histories < 0:
        parser.error(f"--histories is a number from 0 on, not {args.histories}")
    # So that what was set and started for a measurement is put back and ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = Options(args.quick, args.captures, args.soak_s, args.histories)
    rows: list[tuple[str, ...]] = []
    for name in args.names or names():
        log(f"{name} ...")
        module = importlib.import_module(f"benchmarks.{_PREFIX}{name}")
        try:
            rows += [_cells(row) for row in module.run(options)]
        except Skipped as e:
            rows.append((name, "not measured", "", "", "", str(e)))
        except (AssertionError, RuntimeError, OSError, subprocess.SubprocessError, HypocenterError) as e:
            rows.append((name, "FAILED", "", "", "", f"{type(e).__name__}: {e}"))
    _print(rows)
    return 0


def _cells(row: Row) -> tuple[str, ...]:
    if not row.values:
        return (row.what, "not measured", "", "", "", row.how)
    middle = median(row.values)
    figure = " / ".join(_number(value) for value in (min(row.values), middle, max(row.values)))
    if len(row.values) == 1:
        figure = _number(middle)
    met = "" if row.reach is None else ("yes" if row.reach.met(middle) else "NO")
    return (row.what, figure, row.unit, "" if row.reach is None else str(row.reach), met, row.how)


def _number(value: float) -> str:
    if value != 0 and abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"


# The last column takes what the terminal leaves, and goes on below.
def _print(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in [_HEAD, *rows]) for i in range(len(_HEAD) - 1)]
    used = sum(widths) + 2 * len(widths)
    room = max(40, shutil.get_terminal_size((200, 24)).columns - used)
    for row in [_HEAD, tuple("-" * len(text) for text in _HEAD), *rows]:
        lines = _wrapped(row[-1], room)
        head = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False))
        print(f"{head}  {lines[0]}")
        for line in lines[1:]:
            print(" " * used + line)


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines


if __name__ == "__main__":
    sys.exit(main())
