"""The timeline of ten seconds of one VM, out of a big lake of trace events, kernel logs and readings of clocks.

A recording of the guest's trace rings is played again and again into a lake, as for `trace_query`, until it has 100
million events; beside it each second brings kernel log of the guest and its host, samples of two vCPUs, heartbeats, and
every ten readings of both clocks and exchanges of times. The timeline is asked for from the list of committed files on,
in this process (wall clock) and as a process of its own.
"""

import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.base import Options, Reach, Row, log, scratch
from benchmarks.bench_trace_query import build as build_lake
from benchmarks.lakes import UnsyncedStorage, open_chain
from benchmarks.processes import finish, ours, start
from benchmarks.traces import SET, record
from consumers.collector import Cut, PartitionCollector
from consumers.export.scope import When
from consumers.lake.layout import open_lake
from consumers.lake.writer import CommitWriter
from consumers.timeline.build import Choice, Timeline, build
from consumers.transport.base import Message, Partition
from consumers.views import run_query
from schemas import heartbeat, kmsg, state
from schemas.frame import Frame, encode
from schemas.state import Record
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION, TOPIC_LOG, TOPIC_STATE

_S: Final = 1_000_000_000
_HOST: Final = Stream("a" * 32, "c" * 32, "host", "", "", "boot")
_AHEAD_NS: Final = 3600 * _S
_VM: Final = "bench"
_WINDOW_NS: Final = 10 * _S
_ROWS_MAX: Final = 2000


def run(options: Options) -> list[Row]:
    """Return how long the timeline takes, and what memory."""
    recording = record(2 if options.quick else 6)
    events = 10_000_000 if options.quick else 100_000_000
    with scratch() as root:
        count = build_lake(root / "lake", recording, events)
        storage = open_lake(root / "lake", create=False)
        low, high = run_query(storage, "select min(ts_ns), max(ts_ns) from trace_sched_switch")[1][0]
        first_ns, last_ns = _build_rest(root / "lake", low, high)
        since_ns = (first_ns + last_ns - _WINDOW_NS) // 2
        choice = Choice(_VM, None, When("arrival_ns", since_ns), When("arrival_ns", since_ns + _WINDOW_NS))
        found = build(storage, choice, _ROWS_MAX)
        _check(found)
        log(f"  {count:,} events, {(high - low) / 1e9:.0f} s; {len(found.entries):,} rows")
        times_ms, whole_ms = [], []
        for _ in range(5 if options.quick else 20):
            start_s = time.perf_counter()
            build(storage, choice, _ROWS_MAX)
            times_ms.append((time.perf_counter() - start_s) * 1e3)
        words = ("--vm", _VM, "--since", _utc(since_ns), "--until", _utc(since_ns + _WINDOW_NS), "--format", "html")
        for _ in range(3):
            start_s = time.perf_counter()
            command = ours("consumers.cli", "timeline", "--lake", str(root / "lake"), *words)
            finish(start(command, stdout=subprocess.DEVNULL))
            whole_ms.append((time.perf_counter() - start_s) * 1e3)
        peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    how = f"10 s of one VM and its host out of {count / 1e6:.0f} M events, {len(found.entries):,} rows"
    return [
        Row("timeline", times_ms, "ms", Reach(1000, inclusive=False), f"{how}; with the list of committed files"),
        Row(
            "timeline, the whole command", whole_ms, "ms", None, "the same as html, with the start of Python and DuckDB"
        ),
        Row("timeline, memory", [peak_mib], "MiB", None, "the most that the command took, libraries included"),
    ]


def _check(found: Timeline) -> None:
    surfaces = {entry.stream.surface for entry in found.entries if entry.bound_ns is not None}
    assert surfaces >= {"ftrace", "kmsg", "vcpu-time"}, surfaces
    assert {entry.stream.machine for entry in found.entries} == {SET.machine, _HOST.machine}


def _utc(ns: int) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(ns // _S))}.{ns % _S // 1000:06d}"


# What the guest and its host said beside: each second some lines and samples, every ten readings and heartbeats.
def _build_rest(root: Path, low_ns: int, high_ns: int) -> tuple[int, int]:
    booted_ns = time.time_ns() - high_ns
    storage = UnsyncedStorage(root)
    seconds = range(low_ns // _S, high_ns // _S + 1)
    for topic, frames in ((TOPIC_LOG, _log_frames), (TOPIC_STATE, _state_frames)):
        chain = open_chain(storage, topic)
        collector = PartitionCollector(
            Partition(topic, 0), chain, CommitWriter(storage), Cut(1 << 60, 1 << 60, 1 << 60)
        )
        for count, (at_ns, frame) in enumerate(frames(seconds, booted_ns)):
            collector.add([Message(collector.position, booted_ns + at_ns, encode(frame))], 0)
            if count % 200 == 199:
                assert collector.commit()
        assert collector.commit()
    return booted_ns + low_ns, booted_ns + high_ns


class _Sender:
    # One run of one stream, its frames numbered.
    def __init__(self, stream: Stream, booted_ns: int, ahead_ns: int) -> None:
        self._stream, self._booted_ns, self._ahead_ns = stream, booted_ns, ahead_ns
        self.number, self.position = 0, 0

    def frame(self, at_ns: int, count: int, encoding: str, body: bytes, version: int = 1) -> tuple[int, Frame]:
        first, number = self.position, self.number
        self.position, self.number = first + count, number + 1
        where = self._stream, "run", number, first, first + count, count
        return at_ns, Frame(*where, encoding, version, body, realtime_ns=self._booted_ns + at_ns)

    def beat(self, at_ns: int, since_ns: int) -> tuple[int, Frame]:
        own_ns = at_ns + self._ahead_ns
        span = self._booted_ns + since_ns, self._booted_ns + at_ns
        beat = heartbeat.Heartbeat(*span, self.position, self._booted_ns + at_ns, own_ns, own_ns, 400, {})
        return self.frame(at_ns, 0, HEARTBEAT_ENCODING, heartbeat.pack(beat), HEARTBEAT_VERSION)

    def lines(self, at_ns: int, count: int) -> tuple[int, Frame]:
        own_us = (at_ns + self._ahead_ns) // 1000
        found = [f"6,{self.position + i},{own_us + i},-;a line of text\n".encode() for i in range(count)]
        return self.frame(at_ns, count, "kmsg", kmsg.pack(found))


def _log_frames(seconds: range, booted_ns: int) -> Iterator[tuple[int, Frame]]:
    guest = _Sender(SET._replace(surface="kmsg", instance="", clock="printk"), booted_ns, 0)
    host = _Sender(_HOST._replace(surface="kmsg", clock="printk"), booted_ns, _AHEAD_NS)
    for second in seconds:
        for sender, count in ((guest, 20), (host, 5)):
            yield sender.lines(second * _S, count)
            if second % 10 == 9:
                yield sender.beat(second * _S + 1000, (second - 10) * _S + 1000)


def _state_frames(seconds: range, booted_ns: int) -> Iterator[tuple[int, Frame]]:
    guest = _Sender(SET._replace(surface="clocks", instance="", clock="boot"), booted_ns, 0)
    host = _Sender(_HOST._replace(surface="clocks"), booted_ns, _AHEAD_NS)
    vcpus = _Sender(_HOST._replace(surface="vcpu-time"), booted_ns, _AHEAD_NS)
    for second in seconds:
        at_ns = second * _S
        yield vcpus.frame(at_ns, 2, "vcpu-time", state.pack([_sample(vcpu, second) for vcpu in range(2)]))
        if second % 10 == 0:
            found = [_reading(booted_ns, at_ns, 0), *(_ping(at_ns + i * 400_000) for i in range(10))]
            yield guest.frame(at_ns, len(found), "clocks", state.pack(found))
            yield host.frame(at_ns, 1, "clocks", state.pack([_reading(booted_ns, at_ns, _AHEAD_NS)]))
            yield vcpus.beat(at_ns + 1000, at_ns - 10 * _S + 1000)


def _sample(vcpu: int, second: int) -> Record:
    about = {"vm": _VM, "vcpu": vcpu, "pid": 10, "tid": 11 + vcpu, "start_ns": 1, "state": "R", "frozen": False}
    return Record("vcpu_time", second * _S + _AHEAD_NS, about | {"run_ns": second * _S, "wait_ns": second})


def _reading(booted_ns: int, at_ns: int, ahead_ns: int) -> Record:
    own_ns = at_ns + ahead_ns
    fields = {"realtime_ns": booted_ns + at_ns, "monotonic_ns": own_ns, "boottime_ns": own_ns, "bracket_ns": 400}
    fields |= {"slew_ppb": 0, "printk_ns": own_ns, "printk_monotonic_ns": own_ns, "printk_bracket_ns": 2000}
    return Record("clock_readings", own_ns, fields)


def _ping(at_ns: int) -> Record:
    fields = {"t0_ns": at_ns, "t1_ns": at_ns + _AHEAD_NS + 90_000, "t2_ns": at_ns + _AHEAD_NS + 100_000}
    fields |= {"t3_ns": at_ns + 180_000, "generation": 0, "host_machine": _HOST.machine, "host_boot_id": _HOST.boot_id}
    return Record("clock_pings", at_ns + 180_000, fields | {"vm": _VM})
