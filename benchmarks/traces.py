"""Real trace pages: an own tracing instance under a load of processes that wake each other and sleep.

Recorded once and played again, later each time: the pages as the kernel wrote them, only their time is moved.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.base import Skipped
from consumers.decode import ftrace_format
from consumers.decode.ftrace_events import PageRun
from schemas import ftrace
from schemas.frame import Frame
from schemas.stream import Stream

TRACEFS: Final = Path("/sys/kernel/tracing")
EVENTS: Final = ("sched/sched_switch", "sched/sched_waking", "irq")
PAGE_BYTES: Final = 4096
RUN_PAGES: Final = 64
SET: Final = Stream("f" * 32, "b" * 32, "guest-kernel", "ftrace", "bench", "mono")
_RUN: Final = "5f1e2d3c-2f4e-4c1b-9d3a-5f1e2d3c4b5a"
# Two ends of a pipe pair; where it sleeps, every 50th message does, so that timers and their interrupts take part.
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
        if count % 50 == 0 and int(sys.argv[3]): time.sleep(0.00005)
    else:
        os.write(b[1], os.read(a[0], 1))
"""


class Recording(NamedTuple):
    """What a ring held when it was stopped: the kernel's texts, the pages of each CPU, and how long it took, in ns."""

    header_page: str
    texts: dict[str, str]
    runs: list[PageRun]
    span_ns: int

    def formats(self) -> ftrace_format.Formats:
        """Return the formats of its events."""
        found = [ftrace_format.parse(text, name.partition(":")[0]) for name, text in self.texts.items()]
        return ftrace_format.formats(ftrace_format.parse_header(self.header_page), found)


def record(seconds: float, *, plain: bool = False) -> Recording:
    """Record the load for `seconds`.

    Raises:
        Skipped: this needs root and tracefs.
    """
    if os.geteuid() != 0 or not (TRACEFS / "instances").is_dir():
        raise Skipped("needs root and tracefs")
    with instance("own", EVENTS) as path, load(plain=plain):
        time.sleep(seconds)
        (path / "tracing_on").write_text("0")
        events = path / "events"
        names = (path / "set_event").read_text().split()
        texts = {name: (events / name.replace(":", "/") / "format").read_text() for name in names}
        cpus = sorted(int(each.name.removeprefix("cpu")) for each in (path / "per_cpu").iterdir())
        runs = [each for cpu in cpus for each in _runs(path, cpu) if each.data]
        return Recording((events / "header_page").read_text(), texts, runs, _span_ns(runs))


def replayed(recording: Recording, times: int) -> Iterator[Frame]:
    """Yield the frames that an agent would send if the recording had happened `times` times, one after the other."""
    described = ftrace.pack_formats(
        ftrace.Formats(recording.header_page, "mono", PAGE_BYTES, "little", 8, recording.texts)
    )
    yield Frame(SET, _RUN, 0, 0, 1, 1, "ftrace-formats", 1, described)
    pages = {
        run.stream: sum(len(each.data) for each in recording.runs if each.stream == run.stream) // PAGE_BYTES
        for run in recording.runs
    }
    numbers = dict.fromkeys(pages, 0)
    # CPU by CPU in turn, as their pages come.
    by_turn = sorted(recording.runs, key=lambda run: (run.first_page, run.stream))
    for turn in range(times):
        for run in by_turn:
            first, count = turn * pages[run.stream] + run.first_page, len(run.data) // PAGE_BYTES
            body = ftrace.head(count, PAGE_BYTES) + _later(run.data, turn * recording.span_ns)
            number = numbers[run.stream]
            numbers[run.stream] += 1
            yield Frame(
                run.stream, _RUN, number, first, first + count, count, "ftrace", 1, body,
                realtime_ns=run.arrival_ns, descriptor=ftrace.descriptor(described),
            )  # fmt: skip


@contextmanager
def instance(role: str, events: tuple[str, ...]) -> Iterator[Path]:
    """Give an instance with `events` on the clock mono; it is removed at the end."""
    path = TRACEFS / "instances" / f"hypocenter-bench-{role}-{os.getpid()}"
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
def load(*, plain: bool = False) -> Iterator[None]:
    """Keep pairs of processes waking each other on two CPUs; `plain`: each pair on one CPU, and none sleeps."""
    cpus = sorted(os.sched_getaffinity(0))
    pairs = [(a, b) for a in cpus[:2] for b in cpus[:2] if (a == b if plain else a <= b)]
    started = [
        subprocess.Popen([sys.executable, "-c", _LOAD, str(a), str(b), str(int(not plain))], start_new_session=True)
        for a, b in pairs
    ]
    try:
        yield
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# trace-cmd resets the function tracer's settings, which not every machine lets it, and which are not ours to reset: in
# a mount namespace of its own it finds plain files instead.
def apart(path: Path, peer: Path, command: list[str]) -> list[str]:
    """Return `command`, a trace-cmd that records into the instance `peer`, run apart; `path` is a scratch folder."""
    files = ("set_ftrace_filter", "set_ftrace_notrace", "set_ftrace_pid")
    names = [each / name for each in (TRACEFS, peer) for name in files]
    names.append(Path("/proc/sys/kernel/ftrace_enabled"))
    (path / "plain").write_text("1\n")
    mounts = [f"mount --bind {path / 'plain'} {name}" for name in names if name.exists()]
    return ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh", *command]


def _runs(path: Path, cpu: int) -> Iterator[PageRun]:
    stream = SET._replace(instance=f"{SET.instance}/cpu{cpu}")
    fd = os.open(path / "per_cpu" / f"cpu{cpu}" / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
    number, pages = 0, []
    try:
        while page := _read(fd):
            pages.append(page)
            if len(pages) == RUN_PAGES:
                yield PageRun(stream, cpu, number, PAGE_BYTES, b"".join(pages), time.time_ns())
                number, pages = number + len(pages), []
    finally:
        os.close(fd)
    yield PageRun(stream, cpu, number, PAGE_BYTES, b"".join(pages), time.time_ns())


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, PAGE_BYTES)
    except BlockingIOError:
        return b""


# By the time at the head of every page: a span longer than any of one CPU, so that no time comes twice.
def _span_ns(runs: list[PageRun]) -> int:
    times = np.concatenate([_times(run.data) for run in runs])
    return int(times.max() - times.min()) + 1_000_000


def _times(data: bytes) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    return np.frombuffer(data, "<u8").reshape(-1, PAGE_BYTES // 8)[:, 0]


def _later(data: bytes, shift_ns: int) -> bytes:
    words = np.frombuffer(data, "<u8").reshape(-1, PAGE_BYTES // 8).copy()
    words[:, 0] += np.uint64(shift_ns)
    return words.tobytes()
