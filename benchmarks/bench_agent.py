"""The agent under a steady 20,000 records a second: CPU per record, all in, and memory over time; a peer beside it.

A C program writes to the real /dev/kmsg; the agent drains, spools, and its shipper child sends to a real broker. CPU is
user and system of agent and shipper from the moment when they had caught up to Kafka's acknowledgement of the last
record, so without their start. `--soak-s 600` loads one agent so long and compares its memory early and late. Where
rsyslogd with its Kafka module is installed, it gets the same load from the same writer to the same broker, in turns
with the agent.
"""

import time
from pathlib import Path

from benchmarks.base import Options, Reach, Row, Skipped, log, median, scratch
from benchmarks.kernel import Agent, Writer, kernel_log
from benchmarks.processes import broker
from benchmarks.rsyslog import Rsyslog

_RATE = 20_000
_RSS_MIB = 80.0


def run(options: Options) -> list[Row]:
    """Return us of CPU per record, MiB, and the ratio to the peer."""
    count, repeats = (60_000, 2) if options.quick else (200_000, 4)
    ours, memory, theirs, missing = [], [], [], "not installed"
    with kernel_log() as writer, broker() as bootstrap:
        for _ in range(repeats):
            with scratch() as root:
                us, mib = _agent(root, bootstrap, writer, count)
            ours.append(us)
            memory.append(mib)
            try:
                with scratch() as root:
                    theirs.append(_rsyslog(root, bootstrap, writer, count))
            except Skipped as e:
                missing = str(e)
        soaked = _soak(bootstrap, writer, options.soak_s) if options.soak_s else []
    how = f"{count:,} records at 20,000/s, agent and shipper, caught up to Kafka's acknowledgement"
    rows = [
        Row("agent CPU per kmsg record, all in", ours, "us", Reach(5.0), how),
        Row("agent memory under load", memory, "MiB", Reach(_RSS_MIB), "agent and shipper after the load"),
        *soaked,
    ]
    if theirs:
        rows.append(
            Row("rsyslog CPU per kmsg record", theirs, "us", None, f"{count:,} records, imkmsg to omkafka, zstd")
        )
        ratio = [median(ours) / median(theirs)]
        rows.append(Row("agent CPU to rsyslog CPU", ratio, "ratio", Reach(1.0), "medians of the same run"))
    else:
        log(f"  rsyslog: {missing}")
        rows.append(Row("rsyslog CPU per kmsg record", [], "us", None, missing))
    return rows


def _agent(root: Path, bootstrap: str, writer: Writer, count: int) -> tuple[float, float]:
    agent = Agent(root, kafka=bootstrap)
    try:
        start, cpu_s = agent.settle(), agent.cpu_s()
        writer.write(count, _RATE)
        end = agent.settle()
        return (agent.cpu_s() - cpu_s) / (end - start) * 1e6, agent.rss_mib()
    finally:
        agent.stop()


def _rsyslog(root: Path, bootstrap: str, writer: Writer, count: int) -> float:
    peer = Rsyslog(root, bootstrap)
    try:
        cpu_s = peer.cpu_s()
        writer.write(count, _RATE)
        came = peer.settle()
        log(f"  rsyslog: {came:,} of {count:,} records came to Kafka")
        return (peer.cpu_s() - cpu_s) / came * 1e6
    finally:
        peer.stop()


# Flat means: the last fifth of the time needs no more than a twentieth above the second fifth.
def _soak(bootstrap: str, writer: Writer, seconds: float) -> list[Row]:
    log(f"  {seconds:.0f} s of load")
    with scratch() as root:
        agent = Agent(root, kafka=bootstrap)
        load = writer.start(int(seconds * _RATE), _RATE)
        samples = []
        try:
            while load.poll() is None:
                samples.append(agent.rss_mib())
                time.sleep(min(5.0, seconds / 50))
        finally:
            load.kill()
            load.communicate()
            agent.stop()
    fifth = len(samples) // 5
    growth = max(samples[-fifth:]) / max(samples[fifth : 2 * fifth])
    how = f"{seconds:.0f} s at 20,000/s"
    return [
        Row("agent memory over time", samples, "MiB", Reach(_RSS_MIB), f"agent and shipper, {how}"),
        Row("agent memory growth", [growth], "ratio", Reach(1.05), f"largest of the last fifth to the second, {how}"),
    ]
