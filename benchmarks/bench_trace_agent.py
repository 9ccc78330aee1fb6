"""What a recorded trace event costs the machine that is observed, from its ring to Kafka's acknowledgement.

Pairs of processes wake each other; the agent records sched_switch, sched_waking and all of irq. CPU is user and system
of agent and shipper, from the load's begin to the acknowledgement of the last page, over the events that the kernel
says were read; a second of the load came before, so without what a start costs: to import, to connect, to verify
topics. Beside it, under the same load: bare os.read(2) of pages that are thrown away, the least that reading can cost;
and trace-cmd record, which splices to a file and ships nothing, as the difference of a long run and a short one, so
without its start too.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks.base import Options, Reach, Row, Skipped, log, median, scratch
from benchmarks.processes import broker, cpu_s, finish, ours, rss_mib, start, tree
from benchmarks.spools import acknowledged, ends, until
from benchmarks.traces import EVENTS, PAGE_BYTES, TRACEFS, apart, instance, load

_SET: Final = "bench-agent"
_SPECS: Final = [spec.replace("/", ":") if "/" in spec else f"{spec}:*" for spec in EVENTS]


def run(options: Options) -> list[Row]:
    """Return ns of CPU per event of the agent, of a bare read and of the peer, and what the agent lost."""
    if os.geteuid() != 0 or not (TRACEFS / "instances").is_dir():
        raise Skipped("needs root and tracefs")
    seconds, repeats = (4, 1) if options.quick else (10, 4)
    agents, lost, memory, bare, peers = [], [], [], [], []
    with broker() as bootstrap:
        for _ in range(repeats):
            with scratch() as root:
                ns, overrun, mib = _agent(root, bootstrap, seconds)
            agents.append(ns)
            lost.append(float(overrun))
            memory.append(mib)
            bare.append(_bare(3))
            if shutil.which("trace-cmd"):
                peers += _peer(seconds)
    how = f"sched and irq events under a load of {seconds} s, agent and shipper, to Kafka's acknowledgement"
    rows = [
        Row("agent CPU per trace event", agents, "ns", None, how),
        Row("bare os.read CPU per trace event", bare, "ns", None, "pages as they come, thrown away"),
        Row("agent to bare os.read", [median(agents) / median(bare)], "ratio", Reach(2.0), "medians of the same run"),
        Row("agent: events overwritten", lost, "events", None, "as the kernel counted them; 64 MiB a CPU"),
        Row("agent memory under trace load", memory, "MiB", None, "agent and shipper after the load"),
    ]
    if not peers:
        return [
            *rows,
            Row("trace-cmd record CPU per event", [], "ns", None, "trace-cmd is not here or does not record"),
        ]
    ratio = [median(agents) / median(peers)]
    return [
        *rows,
        Row("trace-cmd record CPU per event", peers, "ns", None, "to a file, nothing shipped; less its start"),
        Row("agent to trace-cmd record", ratio, "ratio", Reach(1.0), "medians of the same run"),
    ]


def _agent(root: Path, bootstrap: str, seconds: float) -> tuple[float, int, float]:
    spool, errors = root / "spool", root / "agent.err"
    flags = ["--surface", "ftrace", "--events", ",".join(_SPECS), "--buffer-kib", "65536", "--clock", "mono"]
    command = ours("producers.cli", "run", *flags, "--kafka", bootstrap, "--spool", str(spool))
    with errors.open("wb") as file:
        process = start(command, stderr=file)
    try:
        until(lambda: b"watching" in errors.read_bytes(), process, "start")
        (path,) = (each for each in (TRACEFS / "instances").iterdir() if each.name.endswith(f"-{process.pid}"))
        until(lambda: len(tree(process.pid)) == 2, process, "start its shipper")
        _shipped(spool, process, 1.0)
        before, used_s = _stats(path), cpu_s(tree(process.pid))
        _shipped(spool, process, seconds)
        used_s, after = cpu_s(tree(process.pid)) - used_s, _stats(path)
        mib = rss_mib(tree(process.pid))
        events = after["read events"] - before["read events"]
        log(f"  agent: {events:,} events, {events / seconds / 1e6:.2f} M/s")
        return used_s / events * 1e9, after["overrun"] - before["overrun"], mib
    finally:
        process.send_signal(signal.SIGTERM)
        finish(process)


def _shipped(spool: Path, process: subprocess.Popen[bytes], seconds: float) -> None:
    with load():
        time.sleep(seconds)
    time.sleep(0.5)  # a tick, and the last frame
    wanted = ends(spool)  # it goes on: what little the machine itself does is traced too
    until(lambda: acknowledged(spool, wanted), process, "get everything acknowledged")


def _stats(path: Path) -> dict[str, int]:
    """Return the counters of all CPUs of an instance, added up."""
    total: dict[str, int] = {}
    for file in path.glob("per_cpu/cpu*/stats"):
        for line in file.read_text().splitlines():
            name, _, value = line.partition(": ")
            if value.isdigit():
                total[name] = total.get(name, 0) + int(value)
    return total


# Twenty times a second, until the ring is empty.
def _bare(seconds: float) -> float:
    with instance("bare", EVENTS) as path, load():
        files = [os.open(each, os.O_RDONLY | os.O_NONBLOCK) for each in path.glob("per_cpu/cpu*/trace_pipe_raw")]
        start_s, end_s = time.process_time(), time.monotonic() + seconds
        while time.monotonic() < end_s:
            for fd in files:
                with contextlib.suppress(BlockingIOError):
                    while os.read(fd, PAGE_BYTES):
                        pass
            time.sleep(0.05)
        used_s, events = time.process_time() - start_s, _stats(path)["read events"]
        for fd in files:
            os.close(fd)
        return used_s / events * 1e9


def _peer(seconds: float) -> list[float]:
    short, long = _record(1.0), _record(seconds)
    if short is None or long is None or long[1] <= short[1]:
        return []
    return [(long[0] - short[0]) / (long[1] - short[1]) * 1e9]


def _record(seconds: float) -> tuple[float, int] | None:
    """Return CPU and events of one run of trace-cmd record."""
    with scratch() as path, instance("peer", ()) as peer, load():
        events = [part for spec in _SPECS for part in ("-e", spec.removesuffix(":*"))]
        command = ["trace-cmd", "record", "-o", str(path / "trace.dat"), "-B", peer.name, "-C", "mono"]
        command += ["-b", "65536", *events, "sleep", str(seconds)]
        process = subprocess.Popen(apart(path, peer, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log(f"  trace-cmd record: exit code {process.returncode}")
            return None
        return usage.ru_utime + usage.ru_stime, _reported(path / "trace.dat")


def _reported(file: Path) -> int:
    """Return how many events trace-cmd finds in its file; nothing else there says it."""
    process = subprocess.Popen(["trace-cmd", "report", "-i", str(file)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as lines:
        count = sum(b"]" in line for line in lines)
    process.wait()
    return count
