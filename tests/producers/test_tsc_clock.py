import platform
import random
import time
from itertools import pairwise
from pathlib import Path

import pytest

from producers import native, tsc_clock
from producers.tsc_clock import TscClock, TscReading, spanning
from schemas.errors import AccessError


@pytest.fixture
def tsc():
    try:
        return TscClock()
    except AccessError as e:
        pytest.skip(str(e))


def test_readings_go_on_with_the_monotonic_clock(tsc):
    found = []
    for _ in range(20):
        before = time.monotonic_ns()
        found.append(tsc.read())
        assert before <= found[-1].monotonic_ns <= time.monotonic_ns()
        assert 0 <= found[-1].cpu < 4096
        time.sleep(0.005)
    rates = [(two.ticks - one.ticks) / (two.monotonic_ns - one.monotonic_ns) for one, two in pairwise(found)]
    assert sorted(rates)[10] == pytest.approx(sorted(rates)[5], rel=0.01)
    assert min(each.bracket_ns for each in found) < 10_000


# Two CPUs whose counters differ by any number of ticks, read a moment apart: the truth of both lies within the bracket.
@pytest.mark.parametrize("seed", range(200))
def test_a_reading_of_two_cpus_holds_for_both(seed):
    rng = random.Random(seed)
    rate, apart = rng.uniform(0.02, 4), rng.choice((0, rng.randrange(-(10**6), 10**6), rng.randrange(10**9)))
    begin, readings, at = rng.randrange(10**10, 10**15), [], rng.randrange(10**9)
    for ahead in (0, apart, 0):
        width = 2 * rng.randrange(20, 1500)
        readings.append(TscReading(at, int(begin + ahead + (at + rng.uniform(-1, 1) * width / 2) * rate), width, 0))
        at += rng.randrange(10_000, 2_000_000) + width
    found = spanning(*readings)
    assert found.monotonic_ns == readings[0].monotonic_ns
    for ahead in (0, apart):
        true = begin + ahead + found.monotonic_ns * rate
        assert abs(found.ticks - true) <= (found.bracket_ns / 2 + 1) * rate + 1
    if not apart:
        assert found.bracket_ns <= 2 * sum(each.bracket_ns for each in readings) + 4


def test_a_counter_that_does_not_go_on_is_no_reading():
    one = TscReading(1000, 5000, 100, 0)
    assert spanning(one, one._replace(monotonic_ns=2000), one._replace(monotonic_ns=3000, ticks=4000)) is None
    assert spanning(one, one, one) is None


def test_what_was_not_built_is_said_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(tsc_clock, "_is_steady", lambda: True)
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    native.load.cache_clear()
    with pytest.raises(AccessError, match="run `make bpf`"):
        TscClock()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the counters of others have one rate")
@pytest.mark.parametrize(
    ("source", "flags", "steady"),
    [
        ("tsc", "fpu tsc", True),
        ("hpet", "fpu tsc constant_tsc nonstop_tsc", True),
        ("hpet", "fpu tsc constant_tsc", False),
        (None, "fpu tsc", False),
    ],
)
def test_a_counter_whose_rate_may_change_is_not_read(monkeypatch, tmp_path, source, flags, steady):
    where, cpuinfo = tmp_path / "source", tmp_path / "cpuinfo"
    monkeypatch.setattr(tsc_clock, "_CLOCKSOURCE", where)
    monkeypatch.setattr(tsc_clock, "_CPUINFO", cpuinfo)
    if source is not None:
        where.write_text(source + "\n")
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    if steady and not any(Path(str(native.FOLDER)).glob("counter-*.so")):
        pytest.skip("what reads it was not built")
    if steady:
        TscClock()
    else:
        with pytest.raises(AccessError, match="may change"):
            TscClock()
