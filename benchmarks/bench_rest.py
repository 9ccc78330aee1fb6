"""Bytes of one kernel log record at rest: Parquet file size by rows.

Frames of realistic kernel text of one machine, 500 records each as at 20,000/s, are decoded and written as the
collector does: once as one commit of ten seconds (200,000 rows), once as the small commit of a quiet machine.
"""

from benchmarks.base import Options, Reach, Row, log, scratch
from benchmarks.text import frames, records
from consumers.decode import kmsg as decoder
from consumers.decode.base import FrameIn
from consumers.lake.parquet import write_table
from consumers.transport.base import Partition


def run(options: Options) -> list[Row]:
    """Return the bytes per row for commits of two sizes."""
    source = f"text from {options.captures.name}" if options.captures else "text from templates"
    found = []
    for count, reach in ((200_000, Reach(25)), (10_000, None)):
        sizes = [_bytes_per_row(options, count, seed) for seed in range(1, 3 if options.quick else 4)]
        how = f"Parquet file of a commit of {count:,} rows, {source}, every number varied"
        found.append(Row("bytes per kmsg row at rest", sizes, "B", reach, how))
    return found


def _bytes_per_row(options: Options, count: int, seed: int) -> float:
    lines = list(records(count, options.captures, seed=seed))
    log(f"  {sum(map(len, lines)) / count:.0f} bytes per record as the kernel gives it")
    items = [
        FrameIn(frame, frame.realtime_ns + 30_000_000, Partition("hypocenter.log", 0), offset)
        for offset, frame in enumerate(frames(lines, seed, 500))
    ]
    with scratch() as path:
        stats = write_table(decoder.decode_many(items).tables["kmsg"], decoder.SPEC, path / "rows.parquet")
    return stats.size_bytes / count
