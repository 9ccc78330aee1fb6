"""What a commit costs beside the encoding: put files, fsync files and folders, create the commit.

`CommitWriter.commit` on a local disk, wall time, less the time inside `write_table`. One file, as usual, and three
files (a heartbeat and a loss in the batch). The disk is whatever holds the temporary directory.
"""

import time
from typing import Any

import pyarrow as pa

from benchmarks.base import Options, Reach, Row, percentile, scratch
from benchmarks.lakes import batch, open_chain, rows
from benchmarks.text import stream
from consumers.decode.heartbeat import SPEC as COVERAGE
from consumers.lake import writer as writer_module
from consumers.lake.layout import open_lake
from consumers.lake.parquet import FileStats, write_table
from consumers.lake.tables import TABLES
from consumers.lake.writer import CommitWriter

_REACH = Reach(5.0)


def run(options: Options) -> list[Row]:
    """Return p50 and p99 of the overhead."""
    commits, repeats = (60, 2) if options.quick else (200, 3)
    found = []
    for name, extra in (("1 file", {}), ("3 files", _extra_tables())):
        runs = [_overheads_ms(commits, extra) for _ in range(repeats)]
        how = f"wall of {commits} commits of 2,000 rows in {name}, less the encoding; median of each run"
        found.append(Row(f"commit overhead p50, {name}", [percentile(each, 50) for each in runs], "ms", _REACH, how))
        how = "the same, 99th of 100"
        found.append(Row(f"commit overhead p99, {name}", [percentile(each, 99) for each in runs], "ms", None, how))
    return found


def _overheads_ms(commits: int, extra: dict[str, pa.Table]) -> list[float]:
    table = rows(2000)
    encoding_s = 0.0

    def timed(*args: Any) -> FileStats:
        nonlocal encoding_s
        start_s = time.perf_counter()
        try:
            return write_table(*args)
        finally:
            encoding_s += time.perf_counter() - start_s

    found = []
    writer_module.write_table = timed  # type: ignore[assignment,attr-defined]
    try:
        with scratch() as root:
            storage = open_lake(root / "lake", create=True)
            chain, writer = open_chain(storage), CommitWriter(storage)
            for number in range(commits):
                made = batch(table, number)
                made.tables.update(extra)
                encoding_s, start_s = 0.0, time.perf_counter()
                assert writer.commit(chain, made)
                found.append((time.perf_counter() - start_s - encoding_s) * 1000)
    finally:
        writer_module.write_table = write_table  # type: ignore[attr-defined]
    return found


def _extra_tables() -> dict[str, pa.Table]:
    tags = {**stream(1)._asdict(), "arrival_ns": 1_764_000_000_000_000_000, "topic": "t", "partition": 0, "offset": 0}
    beat = pa.Table.from_pylist([tags], schema=COVERAGE.schema)
    loss = pa.Table.from_pylist([tags], schema=TABLES["losses"].schema)
    return {"coverage": beat, "losses": loss}
