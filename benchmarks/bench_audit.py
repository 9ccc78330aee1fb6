"""How long `audit` takes over 10 million rows in 1,000 commits (and over as many rows in files already compacted).

One file of 10,000 kmsg rows in each commit; wall time of the function, libraries loaded, files in the page cache.
"""

import time

from benchmarks.base import Options, Reach, Row, log, scratch
from benchmarks.lakes import build, rows
from consumers.lake.audit import audit

_REACH = Reach(1.0, inclusive=False)


def run(options: Options) -> list[Row]:
    """Return the seconds of an audit."""
    commits = 200 if options.quick else 1000
    table = rows(10_000)
    with scratch() as root:
        log(f"  making {commits} commits")
        storage = build(root / "lake", commits, table)
        values = []
        for _ in range(3 if options.quick else 5):
            start_s = time.perf_counter()
            report = audit(storage)
            values.append(time.perf_counter() - start_s)
            assert report.closes, report.problems[:3]
    what = f"audit of {commits * 10_000:,} rows"
    return [Row(what, values, "s", _REACH, f"wall of audit(), {commits:,} commits of one file each, footers read")]
