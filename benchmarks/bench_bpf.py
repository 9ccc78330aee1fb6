"""BPF programs: what a record costs the agent, and what a program costs the machine that it watches.

Pairs of processes wake each other over pipes, one pair on each of two CPUs, and `sched-delay` with the threshold 0
makes a record of each switch to a task: 80 bytes and a header of 8. The ring holds all of them, so the first figure is
the reading alone: ring to body, no load beside it. The second is an agent beside the load, to its durable log. The cost
of the program is what the kernel measures itself (bpf_stats_enabled, whose own clock readings are in it), at the
default threshold, where hardly anything is a record.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.base import Options, Row, Skipped, scratch
from producers.bpf import source as bpf
from producers.registry import Identity, Opening
from producers.source import Source
from schemas.config import BpfConfig, BpfProgram, Config
from schemas.errors import HypocenterError
from schemas.frame import decode
from schemas.log_cursor import LogCursor
from schemas.surfaces import SURFACES

_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
_PAIR = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
a, b = os.pipe(), os.pipe()
rounds = range(int(sys.argv[2]))
if os.fork() == 0:
    for _ in rounds:
        os.read(a[0], 1); os.write(b[1], b"x")
    os._exit(0)
for _ in rounds:
    os.write(a[1], b"x"); os.read(b[0], 1)
os.wait()
"""


def run(options: Options) -> list[Row]:
    """Return us of CPU per record, and ns of one run of the program."""
    if os.geteuid() != 0:
        raise Skipped("needs root")
    try:
        bpf.check()
    except HypocenterError as e:
        raise Skipped(str(e)) from None
    rounds, repeats = (20_000, 2) if options.quick else (60_000, 5)
    how = f"{rounds:,} round trips on each of two CPUs"
    return [
        Row("BPF record, ring to body", [_read(rounds) for _ in range(repeats)], "us", None, f"{how}, read afterwards"),
        Row("BPF record, ring to durable log", [_agent(rounds) for _ in range(repeats)], "us", None, f"{how}, all CPU"),
        Row(
            "sched-delay, one run",
            [_program(rounds) for _ in range(repeats)],
            "ns",
            None,
            f"{how}, by bpf_stats",
        ),
    ]


def _load(rounds: int) -> None:
    running = [subprocess.Popen([sys.executable, "-c", _PAIR, str(cpu), str(rounds)]) for cpu in (0, 1)]
    if [each.wait() for each in running] != [0, 0]:
        raise RuntimeError("the load failed")


def _open(program: BpfProgram) -> Source:
    config = Config(bpf=BpfConfig((program,), snapshot_s=0))
    return bpf.open_sources(Opening(Identity("bench", "boot", "host"), {}, config))[1]


def _read(rounds: int) -> float:
    source = _open(BpfProgram("sched-delay", threshold_us=0, ring_kib=1 << 16))
    try:
        _load(rounds)
        source.stop()
        start_ns, count, more = time.process_time_ns(), 0, True
        while more:
            more = source.drain()
            count += sum(batch.count for batch in source.cut())
        spent_ns = time.process_time_ns() - start_ns
        if source.counters()["ring_full"]:
            raise RuntimeError("the ring did not hold all of it")
        return spent_ns / count / 1e3
    finally:
        source.close()


def _agent(rounds: int) -> float:
    with scratch() as root:
        config, log, messages = root / "c.toml", root / "log", root / "err"
        config.write_text('[[bpf.programs]]\nname = "sched-delay"\nthreshold_us = 0\nring_kib = 65536\n')
        command = [sys.executable, "-m", "producers.cli", "run", "--config", config, "--surface", "bpf", "--log", log]
        with messages.open("wb") as err:
            agent = subprocess.Popen(command, stderr=err)
        try:
            while b"watching" not in messages.read_bytes():
                if agent.poll() is not None:
                    raise RuntimeError(messages.read_text())
                time.sleep(0.05)
            time.sleep(1)
            before_s = _cpu_s(agent.pid)
            _load(rounds)
            time.sleep(1)
            spent_s = _cpu_s(agent.pid) - before_s
        finally:
            agent.terminate()
            agent.wait()
        return spent_s / _records(log) * 1e6


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _records(log: Path) -> int:
    cursor, count = LogCursor(log, SURFACES["bpf"].topic, 0), 0
    while entries := cursor.read(1 << 20):
        frames = (decode(payload) for _, _, payload in entries)
        count += sum(frame.count for frame in frames if frame.encoding == bpf.SURFACE)
    cursor.close()
    return count


def _program(rounds: int) -> float:
    source = _open(BpfProgram("sched-delay"))
    before = _STATS.read_text()
    try:
        _STATS.write_text("1")
        _load(rounds)
        found = source.counters()
        return found["run_ns"] / found["runs"]
    finally:
        _STATS.write_text(before)
        source.close()
