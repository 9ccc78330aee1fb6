"""Agent, broker and collector on one machine at a million trace events a second: what is lost, and the memory.

Two processes make system calls at a steady pace, and only theirs are traced (raw_syscalls, entry and exit). The agent
ships to a real broker, the collector follows it into a lake. Lost is what the calls, which are counted where they are
made, are more than the rows in the lake; and what the lake itself says was lost.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.base import Options, Reach, Row, Skipped, log, scratch
from benchmarks.calls import Callers
from benchmarks.processes import broker, cpu_s, ours, rss_mib, start, tree
from benchmarks.traces import TRACEFS
from consumers.lake.layout import open_lake
from consumers.views import run_query

_RATE: Final = 1_000_000
_EVENTS: Final = ("raw_syscalls:sys_enter", "raw_syscalls:sys_exit")
_START_S: Final = 60


class _Sample(NamedTuple):
    rss_mib: float
    cpu_s: float
    agent_cpu_s: float


def run(options: Options) -> list[Row]:
    """Return the rate that came through, what was lost, and what the collector took."""
    if os.geteuid() != 0 or not (TRACEFS / "instances").is_dir():
        raise Skipped("needs root and tracefs")
    seconds = 15.0 if options.quick else 60.0
    with broker() as bootstrap, scratch() as root:
        load = Callers(_RATE // len(_EVENTS), seconds)
        collector = start(ours("consumers.cli", "collect", "--kafka", bootstrap, "--lake", str(root / "lake")))
        agent = _agent(root, bootstrap, load.pids)
        try:
            samples = _watch(load, collector.pid, agent.pid)
        finally:
            load.kill()
            agent.send_signal(signal.SIGTERM)
            agent.wait()
            collector.send_signal(signal.SIGTERM)
            collector.wait()
        calls = load.made()
        before = _stored(root / "lake", calls)
        subprocess.run(
            ours("consumers.cli", "collect", "--kafka", bootstrap, "--lake", str(root / "lake"), "--until-end"),
            check=True,
        )
        stored, told = _stored(root / "lake", calls), _told(root / "lake")
    return _rows(seconds, calls, before, stored, told, samples)


def _rows(seconds: float, calls: int, before: int, stored: int, told: float, samples: list[_Sample]) -> list[Row]:
    fifth = len(samples) // 5
    memory = [each.rss_mib for each in samples]
    spent, agent = (samples[-1][i] - samples[0][i] for i in (1, 2))
    passed = len(samples) - 1
    how = f"{2 * calls / 1e6:.1f} M events in {seconds:.0f} s, agent, broker, collector and load on the same cores"
    return [
        Row("trace events sustained", [stored / seconds / 1e6], "M events/s", Reach(1.0 * 0.999, at_least=True), how),
        Row("trace events lost", [2 * calls - stored, told], "events", Reach(0), "by the calls made, and by `losses`"),
        Row("not yet committed at the end", [(stored - before) / _RATE], "s", None, "of load, when it stopped"),
        Row("collector memory at that rate", memory, "MiB", Reach(600), f"resident, each second for {seconds:.0f} s"),
        Row(
            "collector memory growth",
            [max(memory[-fifth:]) / max(memory[fifth : 2 * fifth])],
            "ratio",
            Reach(1.05),
            "largest of the last fifth to the second",
        ),
        Row("collector CPU at that rate", [spent / passed], "cores", None, how),
        Row("agent CPU at that rate", [agent / passed], "cores", None, "agent and shipper"),
    ]


def _agent(root: Path, bootstrap: str, pids: list[int]) -> "subprocess.Popen[bytes]":
    only = " || ".join(f"common_pid == {pid}" for pid in pids)
    command = ["run", "--surface", "ftrace", "--kafka", bootstrap, "--spool", str(root / "spool")]
    command += ["--events", ",".join(_EVENTS), "--buffer-kib", "16384"]
    for event in _EVENTS:
        command += ["--filter", f"{event}={only}"]
    with (root / "agent.err").open("wb") as file:
        agent = start(ours("producers.cli", *command), stderr=file)
    deadline_s = time.monotonic() + _START_S
    while b"watching" not in (root / "agent.err").read_bytes():
        if agent.poll() is not None or time.monotonic() > deadline_s:
            agent.kill()
            raise Skipped(f"the agent does not start: {(root / 'agent.err').read_text()[-300:]}")
        time.sleep(0.1)
    return agent


# One sample each second until the load has ended.
def _watch(load: Callers, collector: int, agent: int) -> list[_Sample]:
    samples: list[_Sample] = []
    load.go()
    load.each_second(lambda: samples.append(_Sample(rss_mib([collector]), cpu_s([collector]), cpu_s(tree(agent)))))
    return samples


# The rows of the call that was made most: the load makes others too.
def _stored(lake: Path, calls: int) -> int:
    storage = open_lake(lake, create=False)
    sql = "select id, count(*) from {} group by 1 order by 2 desc limit 1"
    found = [run_query(storage, sql.format(f"trace_{name.partition(':')[2]}"))[1][0] for name in _EVENTS]
    log(f"  {calls:,} calls, rows of the commonest (number, rows): {json.dumps(found)}")
    return sum(count for _, count in found)


def _told(lake: Path) -> float:
    sql = "select coalesce(sum(coalesce(count, 1)), 0) from losses where machine <> ''"
    return float(run_query(open_lake(lake, create=False), sql)[1][0][0])
