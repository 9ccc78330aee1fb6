"""Raw trace pages to typed Parquet, beside trace-cmd's report of the same kind of events.

Pages are recorded once from an own tracing instance under pairs of processes that wake each other and sleep (events
sched_switch, sched_waking and all of irq, clock mono). They are decoded in runs as the collector gets them, 16 MiB of
pages at a time, and every table is written as a commit writes it; whole-process CPU. The peer reads its own recording
of the same load, because it cannot read pages.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks.base import Options, Reach, Row, log, scratch
from benchmarks.traces import apart, instance, load, record
from consumers.decode import ftrace_events, ftrace_format
from consumers.decode.ftrace_events import PageRun
from consumers.lake.parquet import write_table

_COMMIT_RUNS: Final = 64


def run(options: Options) -> list[Row]:
    """Return events per second and core, bytes per event at rest, and the peer's rate."""
    recording = record(2 if options.quick else 6)
    runs, formats = recording.runs, recording.formats()
    found = ftrace_events.decode(runs, formats)
    names = {name: table.num_rows for name, table in found.tables.items()}
    log(f"  {found.events:,} events in {found.pages:,} pages: {names}")
    rates, sizes, decoding = [], [], []
    for _ in range(2 if options.quick else 5):
        decode_s, write_s, size_bytes = _measure(runs, formats)
        rates.append(found.events / (decode_s + write_s) / 1e6)
        decoding.append(found.events / decode_s / 1e6)
        sizes.append(size_bytes / found.events)
    how = "sched_switch, sched_waking and irq events, one process, user and system CPU"
    rows = [
        Row("trace pages to Parquet", rates, "M events/s/core", Reach(10, at_least=True), how),
        Row("trace pages to Arrow columns", decoding, "M events/s/core", None, how),
        Row("bytes per trace event at rest", sizes, "B", Reach(1.8), "Parquet files of one commit, all columns"),
    ]
    return rows + _peer(options, rates)


def _measure(runs: list[PageRun], formats: ftrace_format.Formats) -> tuple[float, float, int]:
    decode_s = write_s = 0.0
    size_bytes = 0
    with scratch() as path:
        for first in range(0, len(runs), _COMMIT_RUNS):
            start = time.process_time()
            tables = ftrace_events.decode(runs[first : first + _COMMIT_RUNS], formats).tables
            middle = time.process_time()
            for name, table in tables.items():
                spec = ftrace_events.spec(name, table.schema)
                size_bytes += write_table(table, spec, path / f"{name}-{first}.parquet").size_bytes
            decode_s, write_s = decode_s + middle - start, write_s + time.process_time() - middle
    return decode_s, write_s, size_bytes


def _peer(options: Options, rates: list[float]) -> list[Row]:
    if shutil.which("trace-cmd") is None:
        return [Row("trace-cmd report", [float("nan")], "M events/s/core", None, "trace-cmd is not installed")]
    with scratch() as path, instance("peer", ()) as peer, load():
        file = path / "trace.dat"
        events = [part for name in ("sched:sched_switch", "sched:sched_waking", "irq") for part in ("-e", name)]
        command = ["trace-cmd", "record", "-q", "-o", str(file), "-B", peer.name]
        command += ["-C", "mono", "-b", "65536", *events, "sleep", "2"]
        done = subprocess.run(apart(path, peer, command), capture_output=True, text=True, check=False)
        if done.returncode:
            log(f"  trace-cmd record: {done.stderr.strip()[-200:]}")
            return []
        peers = [_report(file) for _ in range(1 if options.quick else 3)]
    times = [middle / each for middle, each in zip(sorted(rates)[len(rates) // 2 :], peers, strict=False)]
    return [
        Row("trace-cmd report", peers, "M events/s/core", None, "text only, its own recording of the same load"),
        Row("times trace-cmd report", times, "x", Reach(25, at_least=True), "to Parquet, against its text"),
    ]


def _report(file: Path) -> float:
    process = subprocess.Popen(["trace-cmd", "report", "-i", str(file)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = sum(b"]" in line for line in process.stdout)
    process.stdout.close()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return lines / (usage.ru_utime + usage.ru_stime) / 1e6
