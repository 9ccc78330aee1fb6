import os
import platform
import select
import time

import pytest

from producers import clocks, printk_clock
from producers.registry import Identity, Known, Opening
from schemas import state
from schemas.config import ClocksConfig, Config
from schemas.stream import Stream

STREAM = Stream("m", "b" * 36, "host", "clocks", "", "boot")


@pytest.fixture
def source():
    opening = Opening(
        Identity("m", "b" * 36, "host"), {STREAM: Known(40, 3)}, Config(clocks=ClocksConfig(interval_s=2.5))
    )
    (opened,) = clocks.open_sources(opening)
    yield opened
    opened.close()


def test_a_reading_has_every_clock_and_says_how_printks_was_read(source):
    assert (source.stream, source.tick_s) == (STREAM, 2.5)
    allowed = os.sched_getaffinity(0)
    source.drain()
    source.drain()
    assert os.sched_getaffinity(0) == allowed
    (batch,) = source.cut()
    assert (batch.first, batch.count) == (40, 2)
    for record in state.unpack(batch.body):
        fields = record.fields
        assert record.kind == "clock_readings"
        assert record.ts_ns == fields["boottime_ns"]
        assert fields["cause"] == "interval"
        assert fields["bracket_ns"] > 0
        assert ("printk_ns" in fields) == ("how" in fields)
        if "printk_ns" in fields:
            assert fields["how"] == "perf-event"
            assert abs(fields["printk_monotonic_ns"] - fields["monotonic_ns"]) < 10**9
        of_tsc = {"tsc_monotonic_ns", "tsc_bracket_ns", "tsc_cpu"}
        assert of_tsc & set(fields) == (set() if fields["tsc"] is None else of_tsc)
        assert fields["tsc"] is not None or "; not the CPU's counter" in clocks.check()


@pytest.mark.kernel
def test_a_clock_that_is_set_makes_a_reading_that_says_so(source):
    source.drain()
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns())
    except PermissionError:
        pytest.skip("this process may not set the clock")
    source.drain()
    source.drain()
    (batch,) = source.cut()
    assert [record.fields["cause"] for record in state.unpack(batch.body)] == ["interval", "step", "interval"]


def test_check_names_the_clocks():
    assert clocks.check().startswith("realtime, monotonic, monotonic_raw, boottime, tai")


@pytest.fixture
def no_perf(monkeypatch):
    # A system call that no kernel has.
    monkeypatch.setitem(printk_clock._SYSCALL, platform.machine(), 9999)


@pytest.mark.kernel
@pytest.mark.parametrize(("marker", "how"), [(True, "marker"), (False, "read-time")])
def test_without_perf_the_kernel_log_says_what_is_known_of_printks_clock(no_perf, kernel_log, marker, how):
    config = Config(clocks=ClocksConfig(printk_marker=marker))
    (opened,) = clocks.open_sources(Opening(Identity("m", "b" * 36, "host"), {}, config))
    try:
        opened.drain()
        kernel_log.write(1)
        with select.epoll() as waits:
            waits.register(opened.fileno(), select.EPOLLIN)
            assert bool(waits.poll(1 if how == "read-time" else 0)) == (how == "read-time")
        opened.drain()
        (batch,) = opened.cut()
    finally:
        opened.close()
    fields = state.unpack(batch.body)[-1].fields
    assert fields["how"] == how
    assert fields["printk_bracket_ns"] > 0
    assert "printk_cpu" not in fields
    assert "by when its records are read (perf_event_open: " in clocks.check()
