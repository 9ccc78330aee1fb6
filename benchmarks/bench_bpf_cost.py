"""What `sched-delay` and `vcpu` cost their machine: throughput of two tasks that do little but switch, and idle CPU.

Two processes on one CPU send one byte to and fro over pipes, so that nearly all they do is switch: no load has more
switches for its work. Throughput is round trips per second of their CPU, which neighbours take nothing from. Runs are
short, with and without the programs attached in turn, because a virtual machine's speed drifts. Thresholds are the
programs' own, but for the idle agent: there they are so high that whatever else the machine does makes no record.
"""

import os
import subprocess
import sys
import time

from benchmarks.base import Options, Reach, Row, Skipped, scratch
from benchmarks.processes import cpu_s, ours, start, tree
from producers.bpf import source as bpf
from producers.bpf.program import Program
from schemas.errors import HypocenterError

_REACH = Reach(5)
_IDLE_REACH = Reach(0.2)
_SETS = (("sched-delay",), ("sched-delay", "vcpu"))
_WATCHING_S = 20.0
_RING_BYTES = 4 << 20
_PROGRAM = '[[bpf.programs]]\nname = "{}"\nthreshold_us = 1000000000\n'
_PAIR = """
import os, sys, time
os.sched_setaffinity(0, {1})
a, b = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    while True:
        byte = os.read(a[0], 1)
        os.write(b[1], byte)
        if byte == b"e":
            os._exit(0)
clocks = (time.CLOCK_PROCESS_CPUTIME_ID, ~child << 3 | 2)  # clock_getcpuclockid(3)
spent_s = lambda: sum(map(time.clock_gettime, clocks))
while (line := sys.stdin.readline()):
    begin_s = spent_s()
    end_s, count = time.perf_counter() + float(line), 0
    while time.perf_counter() < end_s:
        for _ in range(100):
            os.write(a[1], b"x"); os.read(b[0], 1)
        count += 100
    print(count / (spent_s() - begin_s), flush=True)
os.write(a[1], b"e")
os.wait()
"""


def run(options: Options) -> list[Row]:
    """Return percent of throughput lost, and percent of a core that an idle agent takes."""
    if os.geteuid() != 0:
        raise Skipped("needs root")
    if (os.cpu_count() or 1) < 2:
        raise Skipped("needs two CPUs")
    try:
        bpf.check()
    except HypocenterError as e:
        raise Skipped(str(e)) from None
    times, seconds = (20, 0.1) if options.quick else (80, 0.1)
    lost = _losses(times, seconds)
    how = f"pipe ping-pong on one CPU, {times} times 4 runs of {seconds} s: without, with, with, without"
    rows = [Row(f"throughput lost, {','.join(names)}", lost[names], "%", _REACH, how) for names in _SETS]
    idle_s, repeats = (5.0, 1) if options.quick else (10.0, 3)
    shares = [_idle(idle_s) for _ in range(repeats)]
    rows.append(
        Row("idle agent CPU, sched-delay,vcpu", shares, "% of a core", _IDLE_REACH, f"{idle_s:.0f} s each, no record")
    )
    return rows


def _losses(times: int, seconds: float) -> dict[tuple[str, ...], list[float]]:
    pair = subprocess.Popen([sys.executable, "-c", _PAIR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    found: dict[tuple[str, ...], list[float]] = {names: [] for names in _SETS}
    try:
        for names in _SETS:
            found[names] = _losses_of(names, pair, times, seconds)
    finally:
        pair.communicate(timeout=10)
    return found


# Without, with, with, without: so a drift of the machine's speed falls out.
def _losses_of(names: tuple[str, ...], pair: "subprocess.Popen[str]", times: int, seconds: float) -> list[float]:
    programs = [Program(name, _RING_BYTES, {}) for name in names]
    found = []
    try:
        _rate(pair, seconds)
        for _ in range(times):
            bare = _rate(pair, seconds)
            for each in programs:
                each.attach(programs[0].room if each is not programs[0] else None)
            loaded = _rate(pair, seconds) + _rate(pair, seconds)
            for each in reversed(programs):
                each.detach()
            found.append(100 * (1 - loaded / (bare + _rate(pair, seconds))))
    finally:
        for each in programs:
            each.close()
    return found


def _rate(pair: "subprocess.Popen[str]", seconds: float) -> float:
    assert pair.stdin
    assert pair.stdout
    pair.stdin.write(f"{seconds}\n")
    pair.stdin.flush()
    return float(pair.stdout.readline())


def _idle(seconds: float) -> float:
    with scratch() as root:
        messages, config = root / "err", root / "config.toml"
        config.write_text("".join(_PROGRAM.format(name) for name in _SETS[-1]))
        words = ("run", "--surface", "bpf", "--config", str(config), "--log", str(root / "log"))
        with messages.open("wb") as err:
            agent = start(ours("producers.cli", *words), stderr=err)
        try:
            deadline_s = time.monotonic() + _WATCHING_S
            while b"watching" not in messages.read_bytes():
                if agent.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError(messages.read_text())
                time.sleep(0.05)
            time.sleep(1.0)
            pids = tree(agent.pid)
            begin_s, spent_s = time.perf_counter(), cpu_s(pids)
            time.sleep(seconds)
            return 100 * (cpu_s(pids) - spent_s) / (time.perf_counter() - begin_s)
        finally:
            agent.terminate()
            agent.wait()
