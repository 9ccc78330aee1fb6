"""Clocks of the real kernel through agent, log and lake: times that are known are converted, and lie within the bound."""

import fcntl
import os
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from consumers.clock_graph import read_graph
from consumers.clocks.graph import Converted, Node
from consumers.lake.layout import open_lake
from consumers.views import connect
from tests.pipeline._kernel import until
from tests.producers.conftest import PRINTK_DEVKMSG
from tests.producers.ftrace._ftrace import TRACEFS

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def machine():
    if os.geteuid() != 0 or not (TRACEFS / "events/printk/console").is_dir() or not os.access("/dev/kmsg", os.W_OK):
        pytest.skip("needs root, tracefs with printk:console, and /dev/kmsg")
    lock = os.open(TRACEFS / "instances", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    before = PRINTK_DEVKMSG.read_text()
    yield
    PRINTK_DEVKMSG.write_text(before)
    os.close(lock)


# Starts an agent of trace events, and of the surfaces `more`.
@contextmanager
def _agent(folder, clock, events, *more):
    folder.mkdir(exist_ok=True)
    (folder / "agent.toml").write_text("[clocks]\ninterval_s = 0.5\n")
    command = [sys.executable, "-m", "producers.cli", "run", "--config", folder / "agent.toml", "--machine", "m"]
    command += [f"--surface={name}" for name in (*more, "ftrace")]
    command += ["--events", events, "--buffer-kib", "4096", "--clock", clock, "--log", folder / "log"]
    with (folder / "err").open("wb") as file:
        agent = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=file)
    try:
        until(lambda: b"watching" in (folder / "err").read_bytes(), (folder / "err").read_text)
        yield
    finally:
        agent.terminate()
        assert agent.wait(30) == 0
    collect = [sys.executable, "-m", "consumers.cli", "collect", "--until-end"]
    subprocess.run([*collect, "--log", folder / "log", "--lake", folder / "lake"], cwd=ROOT, check=True)


# Writes marks while an agent reads kernel log, clocks and trace events; returns CLOCK_MONOTONIC around each mark.
def _run(folder, clock):
    marks = {}
    with _agent(folder, clock, "printk:console", "kmsg", "clocks"):
        end_s = time.monotonic() + 2
        while time.monotonic() < end_s:
            mark = f"hypocenter-clock-{uuid.uuid4().hex}"
            PRINTK_DEVKMSG.write_text("on\n")
            before = time.monotonic_ns()
            with Path("/dev/kmsg").open("wb", buffering=0) as out:
                out.write(f"<14>{mark}\n".encode())
            marks[mark] = before, time.monotonic_ns()
            time.sleep(0.1)
    return marks


@pytest.mark.parametrize("clock", ["mono", "boot", "global", "perf", "x86-tsc"])
def test_times_of_the_kernel_log_and_of_trace_events_are_found_on_each_others_clocks(tmp_path, clock):
    if clock not in (TRACEFS / "trace_clock").read_text():
        pytest.skip(f"this kernel has no trace clock {clock}")
    marks = _run(tmp_path, clock)
    connection = connect(open_lake(tmp_path / "lake", create=False))
    graph = read_graph(connection)
    sql = "select boot_id, message, ts_ns, captured_ns from kmsg where message like 'hypocenter-clock-%'"
    records = [row for row in connection.execute(sql).fetchall() if row[1] in marks]
    events = connection.execute("select msg, ts_ns from trace_console").fetchall()
    assert len(records) > 10
    for boot_id, message, ts_ns, captured_ns in records:
        before, after = marks[message]
        printk, mono, real, trace = (Node("m", boot_id, name) for name in ("printk", "mono", "realtime", clock))
        found = graph.convert(ts_ns, printk, mono, span_ns=999)
        assert isinstance(found, Converted)
        assert before - found.bound_ns <= found.ts_ns <= after + found.bound_ns
        assert found.bound_ns < 2_000_000
        wall = graph.convert(ts_ns, printk, real, span_ns=999)
        assert wall.ts_ns - wall.bound_ns <= captured_ns
        (event_ns,) = [at for text, at in events if message in text]
        event = graph.convert(event_ns, trace, mono)
        assert before - event.bound_ns <= event.ts_ns <= after + event.bound_ns
        # The record's time is taken first, the event is made from it.
        assert found.ts_ns - found.bound_ns <= event.ts_ns + event.bound_ns


def _switches(connection):
    sql = "select boot_id, cpu, prev_pid, next_pid, ts_ns from trace_sched_switch order by ts_ns"
    found = {}
    for boot_id, *key, ts_ns in connection.execute(sql).fetchall():
        found.setdefault((boot_id, *key), []).append(ts_ns)
    return {key: np.array(times, np.int64) for key, times in found.items()}


# Two rings have the same switches, one in ticks of the counter and the other in ns.
def test_ticks_of_the_counter_are_the_times_at_which_another_ring_has_the_same_switches(tmp_path):
    if "x86-tsc" not in (TRACEFS / "trace_clock").read_text():
        pytest.skip("this kernel has no trace clock x86-tsc")
    with (
        _agent(tmp_path / "mono", "mono", "sched:sched_switch"),
        _agent(tmp_path / "tsc", "x86-tsc", "sched:sched_switch", "clocks"),
    ):
        for _ in range(200):
            time.sleep(0.01)
    ticks = connect(open_lake(tmp_path / "tsc" / "lake", create=False))
    graph = read_graph(ticks)
    others = _switches(connect(open_lake(tmp_path / "mono" / "lake", create=False)))
    apart, bounds = [], []
    for key, times in _switches(ticks).items():
        tsc, mono = Node("m", key[0], "x86-tsc"), Node("m", key[0], "mono")
        found = graph.convert_many(times, tsc, mono)
        known = found.state >= 0
        beside = others.get(key, np.array([-(1 << 60)]))
        behind = np.searchsorted(beside, found.ts_ns).clip(1, len(beside) - 1) if len(beside) > 1 else 0
        nearest = np.minimum(abs(beside[behind] - found.ts_ns), abs(beside[behind - 1] - found.ts_ns))
        apart += nearest[known].tolist()
        bounds += found.bound_ns[known].tolist()
    assert len(apart) > 300
    assert max(bounds) < 1_000_000
    # One ring has an event a moment before the other one.
    good = sum(each <= bound + 5_000 for each, bound in zip(apart, bounds, strict=True))
    assert good / len(apart) > 0.98, sorted(apart)[-20:]
