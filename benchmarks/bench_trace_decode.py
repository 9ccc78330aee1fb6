"""Raw trace pages to typed Parquet, beside trace-cmd's report of the same kind of events.

Pages are recorded once from an own tracing instance under pairs of processes that wake each other and sleep (events
sched_switch, sched_waking and all of irq, clock mono). They are decoded in runs as the collector gets them, 16 MiB of
pages at a time, and every table is written as a commit writes it; whole-process CPU. The peer reads its own recording
of the same load, because it cannot read pages.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.base import Options, Reach, Row, Skipped, log, scratch
from consumers.decode import ftrace_events, ftrace_format
from consumers.decode.ftrace_events import PageRun
from consumers.lake.parquet import write_table
from schemas.stream import Stream

_TRACEFS: Final = Path("/sys/kernel/tracing")
_EVENTS: Final = ("sched/sched_switch", "sched/sched_waking", "irq")
_PAGE_BYTES: Final = 4096
_RUN_PAGES: Final = 64
_COMMIT_RUNS: Final = 64
# Two ends of a pipe pair; every 50th message goes through a sleep, so that timers and their interrupts take part.
_LOAD: Final = """
import os, sys, time
a, b = os.pipe(), os.pipe()
child = os.fork()
os.sched_setaffinity(0, {int(sys.argv[1 if child else 2])})
count = 0
while True:
    if child:
        os.write(a[1], b"x"); os.read(b[0], 1)
        count += 1
        if count % 50 == 0: time.sleep(0.00005)
    else:
        os.write(b[1], os.read(a[0], 1))
"""


def run(options: Options) -> list[Row]:
    """Return events per second and core, bytes per event at rest, and the peer's rate."""
    if os.geteuid() != 0 or not (_TRACEFS / "instances").is_dir():
        raise Skipped("needs root and tracefs")
    with _instance("own", _EVENTS) as path, _load():
        time.sleep(2 if options.quick else 6)
        (path / "tracing_on").write_text("0")
        formats = _formats(path)
        cpus = sorted(int(each.name.removeprefix("cpu")) for each in (path / "per_cpu").iterdir())
        runs = [each for cpu in cpus for each in _runs(path, cpu)]
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
    with scratch() as path, _instance("peer", ()) as instance, _load():
        file = path / "trace.dat"
        events = [part for name in ("sched:sched_switch", "sched:sched_waking", "irq") for part in ("-e", name)]
        command = ["trace-cmd", "record", "-q", "-o", str(file), "-B", instance.name]
        command += ["-C", "mono", "-b", "65536", *events, "sleep", "2"]
        done = subprocess.run(_apart(path, instance, command), capture_output=True, text=True, check=False)
        if done.returncode:
            log(f"  trace-cmd record: {done.stderr.strip()[-200:]}")
            return []
        peers = [_report(file) for _ in range(1 if options.quick else 3)]
    times = [middle / each for middle, each in zip(sorted(rates)[len(rates) // 2 :], peers, strict=False)]
    return [
        Row("trace-cmd report", peers, "M events/s/core", None, "text only, its own recording of the same load"),
        Row("times trace-cmd report", times, "x", Reach(25, at_least=True), "to Parquet, against its text"),
    ]


# trace-cmd resets the function tracer's settings, which not every machine lets it, and which are not ours to reset: in
# a mount namespace of its own it finds plain files instead.
def _apart(path: Path, instance: Path, command: list[str]) -> list[str]:
    files = ("set_ftrace_filter", "set_ftrace_notrace", "set_ftrace_pid")
    names = [each / name for each in (_TRACEFS, instance) for name in files]
    names.append(Path("/proc/sys/kernel/ftrace_enabled"))
    (path / "plain").write_text("1\n")
    mounts = [f"mount --bind {path / 'plain'} {name}" for name in names if name.exists()]
    return ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh", *command]


def _report(file: Path) -> float:
    process = subprocess.Popen(["trace-cmd", "report", "-i", str(file)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = sum(b"]" in line for line in process.stdout)
    process.stdout.close()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return lines / (usage.ru_utime + usage.ru_stime) / 1e6


@contextmanager
def _instance(role: str, events: tuple[str, ...]) -> Iterator[Path]:
    path = _TRACEFS / "instances" / f"hypocenter-bench-{role}-{os.getpid()}"
    path.mkdir()
    # While a file of it is open, nobody who tidies up can remove it.
    held = os.open(path / "tracing_on", os.O_RDONLY)
    try:
        (path / "trace_clock").write_text("mono")
        (path / "buffer_size_kb").write_text("65536")
        for event in events:
            (path / "events" / event / "enable").write_text("1")
        yield path
    finally:
        (path / "tracing_on").write_text("0")
        (path / "events" / "enable").write_text("0")
        os.close(held)
        path.rmdir()


@contextmanager
def _load() -> Iterator[None]:
    cpus = sorted(os.sched_getaffinity(0))
    pairs = [(a, b) for a in cpus[:2] for b in cpus[:2] if a <= b]
    started = [
        subprocess.Popen([sys.executable, "-c", _LOAD, str(a), str(b)], start_new_session=True) for a, b in pairs
    ]
    try:
        yield
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _formats(path: Path) -> ftrace_format.Formats:
    events = path / "events"
    names = [line.partition(":") for line in (path / "set_event").read_text().split()]
    found = [ftrace_format.parse((events / system / name / "format").read_text(), system) for system, _, name in names]
    return ftrace_format.formats(ftrace_format.parse_header((events / "header_page").read_text()), found)


def _runs(path: Path, cpu: int) -> Iterator[PageRun]:
    stream = Stream("f" * 32, "b" * 32, "guest-kernel", "ftrace", f"bench/cpu{cpu}", "mono")
    fd = os.open(path / "per_cpu" / f"cpu{cpu}" / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
    number, pages = 0, []
    try:
        while page := _read(fd):
            pages.append(page)
            if len(pages) == _RUN_PAGES:
                yield PageRun(stream, cpu, number, _PAGE_BYTES, b"".join(pages), time.time_ns())
                number, pages = number + len(pages), []
    finally:
        os.close(fd)
    yield PageRun(stream, cpu, number, _PAGE_BYTES, b"".join(pages), time.time_ns())


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _PAGE_BYTES)
    except BlockingIOError:
        return b""
