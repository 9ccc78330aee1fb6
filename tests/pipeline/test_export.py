"""Trace events of the real kernel, from its rings into a file for Perfetto: agent, collector, export, and read back."""

import os
import signal
import subprocess

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import BUILTIN_CLOCK_BOOTTIME, BUILTIN_CLOCK_MONOTONIC

from consumers.lake.layout import open_lake
from tests.consumers.export import _trace
from tests.pipeline.test_ftrace import machine, pipe  # noqa: F401 - fixtures
from tests.producers.ftrace._ftrace import busy

pytestmark = pytest.mark.kernel
EVENTS = "sched:*,irq:*,timer:*,workqueue:*,raw_syscalls:*,block:*,kmem:kmalloc,kmem:kfree,net:*,task:*,writeback:*"


def load(folder):
    """Let this machine do a little of everything that is traced."""
    busy(500)
    (folder / "data").write_bytes(os.urandom(1 << 20))
    subprocess.run(["sync", folder / "data"], check=True)
    subprocess.run(["sh", "-c", "echo x | cat >/dev/null; exit 3"], check=False)


@pytest.mark.parametrize("clock", ["mono", "boot", "global"])
def test_every_event_of_the_kernel_is_in_the_file_field_for_field(pipe, clock):  # noqa: F811 - the fixture
    agent = pipe.agent("--surface", "kmsg", "--events", EVENTS, "--clock", clock)
    load(pipe.folder)
    agent.terminate()
    assert agent.wait(30) == 0
    pipe.collect()
    path = pipe.folder / "out.pftrace"
    said = pipe.run("export", "perfetto", "--lake", pipe.folder / "lake", "-o", path)
    trace = _trace.read(path)
    found = _trace.events(trace)
    ahead_ns = 0
    if clock == "mono":
        (snapshot,) = [packet.clock_snapshot for packet in trace.packet if packet.HasField("clock_snapshot")]
        values = {each.clock_id: each.timestamp for each in snapshot.clocks}
        ahead_ns = values[BUILTIN_CLOCK_BOOTTIME] - values[BUILTIN_CLOCK_MONOTONIC]
    generic = {
        event.name.removeprefix("generic ")
        for each in found.values()
        for event in each
        if event.name.startswith("generic ")
    }
    wanted = _trace.rows(open_lake(pipe.folder / "lake", create=False), generic)
    assert set(found) == set(wanted)
    for cpu, events in wanted.items():
        assert [event._replace(ts_ns=event.ts_ns + ahead_ns) for event in events] == found[cpu]
    names = {event.name for each in found.values() for event in each}
    assert {
        "sched_switch",
        "sched_waking",
        "sys_enter",
        "sys_exit",
        "workqueue_execute_start",
        "irq_handler_entry",
    } <= names
    assert {"softirq_entry", "timer_start", "hrtimer_start", "kmalloc", "sched_process_exit", "task_newtask"} <= names
    assert f"{sum(map(len, found.values())):,} events" in said
    utsname = next(packet.system_info.utsname for packet in trace.packet if packet.HasField("system_info"))
    assert utsname.release == os.uname().release or utsname.release.startswith("4.14.0 or later")


def test_what_a_slow_reader_lost_is_marked(pipe):  # noqa: F811 - the fixture
    agent = pipe.agent("--buffer-kib", "64")
    agent.send_signal(signal.SIGSTOP)
    busy(3000)
    agent.send_signal(signal.SIGCONT)
    busy(500)
    agent.terminate()
    assert agent.wait(30) == 0
    pipe.collect()
    path = pipe.folder / "out.pftrace"
    pipe.run("export", "perfetto", "--lake", pipe.folder / "lake", "-o", path)
    trace = _trace.read(path)
    lost = pipe.query("select count, unit from losses where surface = 'ftrace'")
    counts = [mark[-1]["count"] for mark in _trace.marks(trace) if mark[-1]]
    assert sorted(map(str, counts)) == sorted("unknown" if count is None else str(count) for count, _ in lost)
    assert sum(count for count, _ in lost if count) > 1000
    assert any(bundle.lost_events for bundle in _trace.bundles(trace))
