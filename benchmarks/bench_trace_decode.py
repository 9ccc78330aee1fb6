"""Raw trace pages to typed Parquet, beside trace-cmd's report of the same kind of events.

Pages are recorded once from an own tracing instance under pairs of processes that wake each other and sleep (events
sched_switch, sched_waking and all of irq, clock mono). They are decoded in runs as the collector gets them, 64 MiB of
pages at a time, and every table is written as a commit writes it; whole-process CPU. At rest they lie as compaction
leaves them when their hour is over: the files of a table in one. The peer reads its own recording of the same load,
because it cannot read pages. How many bytes an event takes is above all how regular its times are, so that is measured
under a second load too, of pairs that each stay on one CPU and never sleep.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.base import Options, Reach, Row, log, median, scratch
from benchmarks.traces import apart, instance, load, record
from consumers.decode import ftrace_events, ftrace_format
from consumers.decode.ftrace_events import PageRun
from consumers.lake.merge import merge_files
from consumers.lake.parquet import write_table

# As many bytes of pages as the collector puts into one commit.
_COMMIT_RUNS: Final = 256


def run(options: Options) -> list[Row]:
    """Return events per second and core, bytes per event at rest, and the peer's rate."""
    recording = record(2 if options.quick else 6)
    runs, formats = recording.runs, recording.formats()
    found = ftrace_events.decode(runs, formats)
    names = {name: table.num_rows for name, table in found.tables.items()}
    log(f"  {found.events:,} events in {found.pages:,} pages: {names}")
    # The first time memory comes from the system, which a collector's does but once.
    written = [_write(runs, formats) for _ in range(3 if options.quick else 7)]
    rates = [found.events / (each.decode_s + each.write_s) / 1e6 for each in written]
    decoding = [found.events / each.decode_s / 1e6 for each in written]
    rested = [_rest(runs, formats) for _ in range(1 if options.quick else 3)]
    fresh, sizes = (
        [each.size_bytes / found.events for each in written],
        [each.size_bytes / found.events for each in rested],
    )
    merging = [each.merge_s / found.events * 1e9 for each in rested]
    how = "sched_switch, sched_waking and irq events, one process, user and system CPU"
    rows = [
        Row("trace pages to Parquet", rates, "M events/s/core", Reach(10, at_least=True), how),
        Row("trace pages to Arrow columns", decoding, "M events/s/core", None, how),
        Row("bytes per trace event, fresh", fresh, "B", None, "Parquet files as commits write them, all columns"),
        Row("bytes per trace event at rest", sizes, "B", Reach(1.8), "the same when their hour has been compacted"),
        Row("to compact a trace event", merging, "ns", None, "read, ordered and written; the digest is not part of it"),
    ]
    return rows + _peer(options, rates, sizes) + _plain(options)


def _plain(options: Options) -> list[Row]:
    recording = record(2 if options.quick else 6, plain=True)
    formats = recording.formats()
    events = ftrace_events.decode(recording.runs, formats).events
    sizes = [_rest(recording.runs, formats).size_bytes / events]
    peers = [] if shutil.which("trace-cmd") is None else [peer.file_bytes for peer in _reports(1, plain=True)]
    how = "pairs that stay on one CPU and never sleep"
    return [
        Row("bytes per trace event at rest, plain load", sizes, "B", Reach(1.8), how),
        Row(
            "bytes per event in trace.dat, plain load",
            peers,
            "B",
            None,
            "trace-cmd record, compressed as it does by default",
        ),
    ]


class _Written(NamedTuple):
    decode_s: float
    write_s: float
    size_bytes: int
    files: dict[str, list[str]]


class _Rested(NamedTuple):
    merge_s: float
    size_bytes: int


def _write(runs: list[PageRun], formats: ftrace_format.Formats, at: Path | None = None) -> _Written:
    decode_s = write_s = 0.0
    size_bytes = 0
    files: dict[str, list[str]] = {}
    with scratch() as path:
        commit_runs = max(1, min(_COMMIT_RUNS, len(runs) // 2))  # one file alone is not compacted
        for first in range(0, len(runs), commit_runs):
            start = time.process_time()
            tables = ftrace_events.decode(runs[first : first + commit_runs], formats).tables
            middle = time.process_time()
            for name, table in tables.items():
                spec = ftrace_events.spec(name, table.schema)
                file = (at or path) / f"{name}-{first}.parquet"
                size_bytes += write_table(table, spec, file).size_bytes
                files.setdefault(name, []).append(str(file))
            decode_s, write_s = decode_s + middle - start, write_s + time.process_time() - middle
            del tables, table  # as a collector lets go of what it has committed, before it decodes more
    return _Written(decode_s, write_s, size_bytes, files)


def _rest(runs: list[PageRun], formats: ftrace_format.Formats) -> _Rested:
    size_bytes = 0
    with scratch() as path:
        files = _write(runs, formats, path).files
        start = time.process_time()
        for name, sources in files.items():
            if len(sources) > 1:
                size_bytes += merge_files(sources, name, path / f"{name}.parquet").size_bytes
            else:
                size_bytes += Path(sources[0]).stat().st_size
        return _Rested(time.process_time() - start, size_bytes)


class _Report(NamedTuple):
    """Of one recording of the peer: millions of events it tells per second, and bytes of file per event."""

    rate: float
    file_bytes: float


def _peer(options: Options, rates: list[float], sizes: list[float]) -> list[Row]:
    if shutil.which("trace-cmd") is None:
        return [Row("trace-cmd report", [float("nan")], "M events/s/core", None, "trace-cmd is not installed")]
    found = _reports(1 if options.quick else 3)
    peers, files = [each.rate for each in found], [each.file_bytes for each in found]
    times = [middle / each for middle, each in zip(sorted(rates)[len(rates) // 2 :], peers, strict=False)]
    return [
        Row("trace-cmd report", peers, "M events/s/core", None, "text only, its own recording of the same load"),
        Row("times trace-cmd report", times, "x", Reach(25, at_least=True), "to Parquet, against its text"),
        Row("bytes per event in trace.dat", files, "B", None, "trace-cmd record, compressed as it does by default"),
        Row("at rest to trace.dat", [median(sizes) / each for each in files], "ratio", Reach(0.5), "bytes per event"),
    ]


def _reports(count: int, *, plain: bool = False) -> list[_Report]:
    with scratch() as path, instance("peer", ()) as peer, load(plain=plain):
        file = path / "trace.dat"
        events = [part for name in ("sched:sched_switch", "sched:sched_waking", "irq") for part in ("-e", name)]
        command = ["trace-cmd", "record", "-q", "-o", str(file), "-B", peer.name]
        command += ["-C", "mono", "-b", "65536", *events, "sleep", "2"]
        done = subprocess.run(apart(path, peer, command), capture_output=True, text=True, check=False)
        if done.returncode:
            log(f"  trace-cmd record: {done.stderr.strip()[-200:]}")
            return []
        return [_report(file) for _ in range(count)]


def _report(file: Path) -> _Report:
    process = subprocess.Popen(["trace-cmd", "report", "-i", str(file)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = sum(b"]" in line for line in process.stdout)
    process.stdout.close()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return _Report(lines / (usage.ru_utime + usage.ru_stime) / 1e6, file.stat().st_size / lines)
