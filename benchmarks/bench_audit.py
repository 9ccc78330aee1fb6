"""How long `audit` takes over 10 million rows in 1,000 commits.

One file of 10,000 kmsg rows in each commit, all in the page cache; wall time of the function with its libraries loaded,
and of the whole command.
"""

import subprocess
import time

from benchmarks.base import Options, Reach, Row, log, scratch
from benchmarks.lakes import build, rows
from benchmarks.processes import finish, ours, start
from consumers.lake.audit import audit

_REACH = Reach(1.0, inclusive=False)


def run(options: Options) -> list[Row]:
    """Return the seconds of an audit."""
    commits = 200 if options.quick else 1000
    table = rows(10_000)
    with scratch() as root:
        log(f"  making {commits} commits")
        storage = build(root / "lake", commits, table)
        values, commands = [], []
        for _ in range(3 if options.quick else 5):
            start_s = time.perf_counter()
            report = audit(storage)
            values.append(time.perf_counter() - start_s)
            assert report.closes, report.problems[:3]
            start_s = time.perf_counter()
            finish(start(ours("consumers.cli", "audit", "--lake", str(root / "lake")), stdout=subprocess.DEVNULL))
            commands.append(time.perf_counter() - start_s)
    what = f"audit of {commits * 10_000:,} rows"
    return [
        Row(what, values, "s", _REACH, f"wall of audit(), {commits:,} commits of one file each, footers read"),
        Row(f"{what}, whole command", commands, "s", None, "wall of `hypocenter audit`, with the start of Python"),
    ]
