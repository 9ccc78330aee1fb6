"""How long a partition is without a collector once another one takes it: by length of its history.

Lakes of 10, 1,000 and 10,000 commits. Measured: opening the chain, loading it, building the books, and the first commit
of the new owner; wall time in a process whose libraries are loaded, the lake's files in the page cache.
"""

import time

from benchmarks.base import Options, Reach, Row, log, scratch
from benchmarks.lakes import batch, build, open_chain, rows
from consumers.collector import Cut, PartitionCollector
from consumers.lake.layout import open_lake
from consumers.lake.writer import CommitWriter
from consumers.transport.base import Partition
from schemas.surfaces import TOPIC_LOG

_REACH = Reach(2.0, inclusive=False)


def run(options: Options) -> list[Row]:
    """Return the seconds of a takeover by history."""
    table = rows(20)
    found = []
    for commits in (10, 1000) if options.quick else (10, 1000, 10_000):
        log(f"  a history of {commits} commits")
        with scratch() as root:
            build(root / "lake", commits, table)
            storage = open_lake(root / "lake", create=False)
            values = []
            for turn in range(3 if options.quick else 5):
                start_s = time.perf_counter()
                chain = open_chain(storage)
                collector = PartitionCollector(
                    Partition(TOPIC_LOG, 0), chain, CommitWriter(storage), Cut(1 << 20, 1000, 10**9)
                )
                assert collector.position == (commits + turn) * 1000
                assert CommitWriter(storage).commit(chain, batch(table, commits + turn))
                values.append(time.perf_counter() - start_s)
        how = "open the chain, load it, build the books, first commit; wall"
        found.append(Row(f"takeover after {commits:,} commits", values, "s", _REACH, how))
    return found
