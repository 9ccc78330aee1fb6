"""Trace events for tests: a load on chosen CPUs, the agent with its row, and a reader of what it wrote to its log.

Run as a program it is `hypocenter-agent` with the surface ftrace.
"""

import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from schemas import surfaces
from schemas.surfaces import SURFACES, TOPIC_TRACE, Surface

ROOT = Path(__file__).resolve().parents[3]
TRACEFS = Path("/sys/kernel/tracing")
ROW = Surface("ftrace", TOPIC_TRACE, "ftrace", 1, "mono", "page", "trace events, as raw ring pages")
#: Of one pair of processes that wake each other: about 6 events a round trip.
_PING_PONG = """
import os, sys
cpu, rounds = int(sys.argv[1]), int(sys.argv[2])
os.sched_setaffinity(0, {cpu})
a, b = os.pipe(), os.pipe()
if os.fork() == 0:
    for _ in range(rounds):
        os.read(a[0], 1); os.write(b[1], b"x")
    os._exit(0)
for _ in range(rounds):
    os.write(a[1], b"x"); os.read(b[0], 1)
os.wait()
"""


def register():
    """Add the surface's row to the table, until it stands there."""
    SURFACES.setdefault(ROW.name, ROW)
    return surfaces.surface(ROW.name)


def busy(rounds, cpus=(0, 1)):
    """Let a pair on each of `cpus` wake each other `rounds` times."""
    command = [sys.executable, "-c", _PING_PONG]
    running = [subprocess.Popen([*command, str(cpu), str(rounds)]) for cpu in cpus]
    assert [each.wait() for each in running] == [0] * len(running)


def instances():
    names = [path.name for path in (TRACEFS / "instances").iterdir()]
    return sorted(name for name in names if re.fullmatch(r"hypocenter-[a-z]+-\d+(-\d\d?)?", name))


def events_in(page):
    """Count the data records of one page: the shortest walk that the format allows, written apart from any decoder."""
    commit = int.from_bytes(page[8:16], sys.byteorder)
    at, end, count = 16, 16 + (commit & ((1 << 27) - 1)), 0
    while at < end:
        (word,) = struct.unpack_from("=I", page, at)
        kind = word & 31
        if kind in (30, 31):
            at += 8
        elif kind == 29:
            if word >> 5 == 0:
                break
            (length,) = struct.unpack_from("=I", page, at + 4)
            at += 4 + length
        else:
            count += 1
            if kind:
                at += 4 + 4 * kind
            else:
                (length,) = struct.unpack_from("=I", page, at + 4)
                at += 4 + (length + 3 & ~3)
    assert at <= len(page)
    return count


def stats(path):
    """Return the numbers of a `stats` file."""
    pairs = (line.partition(":") for line in path.read_text().splitlines())
    return {key: float(value) for key, _, value in pairs}


def settings():
    """Return the content of every top-level setting of tracefs, and what is enabled anywhere in it."""
    names = [
        *("buffer_size_kb", "buffer_subbuf_size_kb", "buffer_percent", "current_tracer", "set_event", "set_event_pid"),
        *("trace_clock", "trace_options", "tracing_cpumask", "tracing_on"),
        *("dynamic_events", "saved_cmdlines_size", "error_log", "events/enable"),
    ]
    found = {name: (TRACEFS / name).read_text() for name in names if (TRACEFS / name).exists()}
    found["instances"] = instances()
    found["mounts"] = [line for line in Path("/proc/self/mounts").read_text().splitlines() if "tracefs" in line]
    return found


class AgentProcess:
    """A real agent that reads `surface` into the log directory `log`; its messages are in `err`."""

    def __init__(self, log, *flags, err=None, surface="ftrace"):
        self.err_path = err or log.with_suffix(".err")
        command = [sys.executable, "-m", __spec__.name, "run", "--surface", surface, "--log", str(log)]
        with self.err_path.open("ab") as file:
            self.process = subprocess.Popen([*command, *flags], cwd=ROOT, stderr=file)

    def started(self):
        deadline = time.monotonic() + 20
        while b"watching" not in self.err_path.read_bytes():
            assert self.process.poll() is None, self.err_path.read_text()
            assert time.monotonic() < deadline, self.err_path.read_text()
            time.sleep(0.02)
        return self

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        assert code == 0, self.err_path.read_text()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    register()
    from producers.cli import main

    os.environ.pop("HYPOCENTER_CRASH_AT", None)
    sys.exit(main())
