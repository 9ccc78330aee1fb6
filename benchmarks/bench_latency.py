"""From the kernel's print to what people see: the line that `hypocenter tail` prints, and the row that is committed.

Records with CLOCK_MONOTONIC in their text are written to /dev/kmsg at random moments, 60 ms apart on average. Agent and
tail, or agent and collector (age cut of 1 s), are processes of their own, the embedded log between them. A line counts
when it arrives at the end of tail's pipe; a row when its commit file was linked (its change time).
"""

import os
import random
import subprocess
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.base import Options, Reach, Row, percentile, scratch
from benchmarks.kernel import Agent, kernel_log
from benchmarks.processes import ours, start
from consumers.lake import layout
from consumers.lake.chain import parse
from consumers.lake.layout import open_lake

_CUT_S = 1.0
_GAP_S = 0.06
_LAST_S = 3.0


def run(options: Options) -> list[Row]:
    """Return p50 and p99 of both, in ms."""
    count, repeats = (100, 2) if options.quick else (300, 3)
    with kernel_log() as writer:
        lines = [_lines_ms(b"%s-line-%d" % (writer.tag, i), count) for i in range(repeats)]
        rows = [_rows_ms(b"%s-row-%d" % (writer.tag, i), count) for i in range(repeats)]
    cut_ms = _CUT_S * 1000
    return [
        *_percentiles("kernel print to tail's line", lines, 100.0, f"{count} records, embedded log"),
        *_percentiles("kernel print to committed row", rows, cut_ms + 100, f"{count} records, age cut {cut_ms:.0f} ms"),
    ]


def _percentiles(what: str, runs: list[list[float]], p99_ms: float, how: str) -> list[Row]:
    reach = Reach(p99_ms, inclusive=False)
    return [
        Row(f"{what}, p50", [percentile(run, 50) for run in runs], "ms", None, f"{how}, by run"),
        Row(f"{what}, p99", [percentile(run, 99) for run in runs], "ms", reach, f"{how}, by run"),
    ]


def _write(tag: bytes, count: int) -> None:
    rng = random.Random(count)
    fd = os.open("/dev/kmsg", os.O_WRONLY)
    for _ in range(count):
        os.write(fd, b"<14>%s %d\n" % (tag, time.monotonic_ns()))
        time.sleep(rng.expovariate(1 / _GAP_S))
    os.close(fd)


def _lines_ms(tag: bytes, count: int) -> list[float]:
    found: list[float] = []

    def read(pipe: "subprocess.Popen[bytes]") -> None:
        assert pipe.stdout
        for line in pipe.stdout:
            now_ns = time.monotonic_ns()
            if tag in line:
                found.append((now_ns - int(line.rsplit(None, 1)[1])) / 1e6)

    with scratch() as root:
        agent = Agent(root)
        tail = start(ours("consumers.cli", "tail", "--log", str(agent.log)), stdout=subprocess.PIPE)
        reader = threading.Thread(target=read, args=(tail,))
        reader.start()
        try:
            time.sleep(_LAST_S)  # tail is there
            _write(tag, count)
            deadline_s = time.monotonic() + _LAST_S
            while len(found) < count and time.monotonic() < deadline_s:
                time.sleep(0.01)
        finally:
            tail.terminate()
            reader.join()
            tail.wait()
            agent.stop()
    if len(found) != count:
        raise RuntimeError(f"{len(found)} of {count} lines")
    return found


def _rows_ms(tag: bytes, count: int) -> list[float]:
    with scratch() as root:
        agent = Agent(root)
        lake = root / "lake"
        with (root / "collect.err").open("wb") as errors:
            command = ours("consumers.cli", "collect", "--lake", str(lake), "--log", str(agent.log))
            collector = start([*command, "--cut-age-s", str(_CUT_S)], stderr=errors)
        try:
            time.sleep(_LAST_S)
            _write(tag, count)
            time.sleep(_CUT_S + _LAST_S)
        finally:
            collector.terminate()
            collector.wait()
            agent.stop()
        found = _committed_ms(lake, tag)
    if len(found) != count:
        raise RuntimeError(f"{len(found)} of {count} rows")
    return found


def _committed_ms(lake: Path, tag: bytes) -> list[float]:
    storage = open_lake(lake, create=False)
    realtime_to_monotonic_ns = time.monotonic_ns() - time.time_ns()
    found = []
    for key in storage.list(layout.COMMITS):
        if not Path(key).stem.isdigit():
            continue
        linked_ns = (lake / key).stat().st_ctime_ns + realtime_to_monotonic_ns
        for entry in parse(key, storage.read(key))["files"]:
            if entry["table"] == "kmsg":
                texts = pq.read_table(storage.local_path(entry["key"]), columns=["message"], partitioning=None)
                found += [
                    (linked_ns - int(text.rsplit(None, 1)[1])) / 1e6
                    for text in texts["message"].to_pylist()
                    if tag.decode() in text
                ]
    return found
