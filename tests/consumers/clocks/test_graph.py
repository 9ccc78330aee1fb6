import numpy as np
import pytest

from consumers.clocks import pings
from consumers.clocks.edges import MACHINES, PRINTK, SAME_RATE, SLEWED, Readings
from consumers.clocks.graph import Converted, Graph, Node, NotComparable
from tests.consumers.clocks import _random
from tests.consumers.clocks._history import S
from tests.consumers.clocks._random import GUEST, HOST


@pytest.mark.parametrize("seed", range(50))
def test_the_true_time_is_always_within_the_bound(seed):
    history = _random.history(seed)
    answered = 0
    for batch in _random.batches(history, 20, 1_000):
        source, target, shown, _ = batch
        good, wrong, _ = _random.judged(batch, history.graph.convert_many(shown, source, target))
        assert wrong == 0, f"{source} to {target}"
        answered += good
    assert answered > 3_000


# `python -m benchmarks clocks --histories N` is as many more as one has time for.
@pytest.mark.parametrize("block", range(16))
def test_the_true_time_is_always_within_the_bound_of_many_histories(block):
    answered = 0
    for seed in range(1000 + 100 * block, 1100 + 100 * block):
        history = _random.history(seed, 3)
        for source, target, shown, true_ns in _random.batches(history, 6, 30):
            found = history.graph.convert_many(shown, source, target)
            good, wrong, _ = _random.judged((source, target, shown, true_ns), found)
            assert wrong == 0, f"{source} to {target}, seed {seed}"
            answered += good
    assert answered > 10_000


def _readings(rows, steady=-1, part=0):
    columns = np.array(rows, np.int64).T
    return Readings(*columns, np.full(len(rows), steady), np.full(len(rows), part))


MONO, REAL, RAW, BOOT = (Node("m", "b", name) for name in ("mono", "realtime", "mono_raw", "boot"))


def test_a_guest_with_a_shifted_rtc_on_a_host_whose_clock_was_set_is_recovered_within_the_bound():
    graph = Graph()
    hour_ns = 3600 * S
    guest, host = GUEST, HOST
    # The guest's RTC is an hour behind, it booted a day after its host, and the host's clock is set by 5 s at 100 s.
    at = [(t * S, t * S + 500) for t in range(0, 201, 10)]
    graph.add(
        guest["mono"],
        guest["realtime"],
        _readings([(*x, 10**18 - hour_ns, 10**18 - hour_ns + 500) for x in at]),
        SAME_RATE,
    )
    ahead_ns = 86_400 * S
    exchanges = [
        (t * S, t * S + ahead_ns + 90_000, t * S + ahead_ns + 100_000, t * S + 160_000) for t in range(0, 201, 5)
    ]
    none = np.zeros(len(exchanges), np.int64)
    graph.add(guest["mono"], host["boot"], pings.readings(np.array(exchanges, np.int64), none, none), MACHINES)
    on_host = [(a + ahead_ns, b + ahead_ns) for a, b in at]
    set_to = [10**18 - ahead_ns + (5 * S if a >= 100 * S else 0) for a, _ in at]
    graph.add(host["mono"], host["boot"], _readings([(*x, -250, 250) for x in on_host]), SAME_RATE)
    steps = [(*x, ahead, ahead + 500) for x, ahead in zip(on_host, set_to, strict=True)]
    graph.add(host["mono"], host["realtime"], _readings(steps), SAME_RATE)
    for t, host_ns in ((42, 10**18 + 42 * S), (142, 10**18 + 147 * S)):
        found = graph.convert(10**18 - hour_ns + t * S, guest["realtime"], host["realtime"])
        assert isinstance(found, Converted)
        assert abs(found.ts_ns - host_ns) <= found.bound_ns < 200_000
    # Between the readings around the step nobody knows whether it was before or behind it.
    found = graph.convert(10**18 - hour_ns + 95 * S, guest["realtime"], host["realtime"])
    assert isinstance(found, NotComparable)
    assert "was set, stopped or restored" in found.reason


def test_a_clock_that_was_set_back_shows_times_twice():
    graph = Graph()
    rows = [
        (t * S, t * S, 1000 * S - (60 * S if t > 100 else 0), 1000 * S - (60 * S if t > 100 else 0))
        for t in range(0, 201, 10)
    ]
    graph.add(MONO, REAL, _readings(rows), SAME_RATE)
    assert graph.convert(60 * S, MONO, REAL) == Converted(1060 * S, 12)
    assert "more than once" in graph.convert(1060 * S, REAL, MONO).reason
    assert graph.convert(1020 * S, REAL, MONO) == Converted(20 * S, 12)


def test_a_clock_that_was_set_forth_and_soon_back_and_read_both_times_is_known_to_show_times_twice():
    graph = Graph()
    at_ms = sorted([*range(0, 200_001, 10_000), 95_002, 96_002])
    rows = [(t * S // 1000, t * S // 1000, *2 * [(1050 if 95_000 <= t < 96_000 else 1000) * S]) for t in at_ms]
    graph.add(MONO, REAL, _readings(rows), SAME_RATE)
    assert graph.convert(1095 * S + S // 2, REAL, MONO).reason.startswith("one of the clocks was set")
    assert "more than once" in graph.convert(1145 * S + S // 2, REAL, MONO).reason
    assert graph.convert(1150 * S, REAL, MONO) == Converted(150 * S, 12)


def test_steps_are_never_smoothed_over_nor_extrapolated():
    graph = Graph()
    graph.add(MONO, REAL, _readings([(S, S, 5 * S, 5 * S), (2 * S, 2 * S, 9 * S, 9 * S)]), SAME_RATE)
    for at_ns in (S + 1, 3 * S // 2, 2 * S - 1):
        assert isinstance(graph.convert(at_ns, MONO, REAL), NotComparable)
    assert "nobody read" in graph.convert(2 * S + 1, MONO, REAL).reason
    assert "nobody read" in graph.convert(S - 1, MONO, REAL).reason


def test_between_readings_a_bound_grows_with_what_the_rates_may_do_unless_they_were_steady():
    rows = [(t * S, t * S, t * 10_000, t * 10_000 + 100) for t in range(0, 101, 10)]
    loose, tight = Graph(), Graph()
    loose.add(MONO, RAW, _readings(rows), SLEWED)
    tight.add(MONO, RAW, _readings(rows, steady=3), SLEWED)
    one, two = loose.convert(55 * S, MONO, RAW), tight.convert(55 * S, MONO, RAW)
    assert abs(one.ts_ns - 55 * S - 550_000) <= one.bound_ns
    assert 2_400_000 < one.bound_ns < 2_600_000
    assert abs(two.ts_ns - 55 * S - 550_000) <= two.bound_ns < 40_000
    # Behind the last reading too: 500 us a second.
    late = loose.convert(200 * S, MONO, RAW)
    assert 50_000_000 < late.bound_ns < 51_000_000


def test_what_nothing_connects_is_not_comparable_and_says_so():
    graph = Graph()
    assert (
        graph.convert(1, MONO, REAL).reason
        == "nothing connects mono of m in the boot b with realtime of m in the boot b"
    )
    assert isinstance(graph.convert_many(np.array([1]), MONO, REAL), NotComparable)
    assert graph.convert(5, MONO, MONO, span_ns=999) == Converted(504, 500)


def test_trace_clocks_that_are_printks_are_its_node():
    graph = Graph()
    printk = MONO._replace(clock="printk")
    graph.add(MONO, printk, _readings([(0, 0, 7, 7), (S, S, 7, 7)], steady=0), PRINTK)
    for name in ("global", "perf"):
        assert graph.convert(S // 2, MONO, MONO._replace(clock=name)) == graph.convert(S // 2, MONO, printk)
    assert isinstance(graph.convert(1, MONO, MONO._replace(clock="local")), NotComparable)


def test_a_restored_guest_shows_times_twice_and_others_once():
    # It ran to 100 s, was put back to 50 s, and ran to 150 s.
    passes = [(t, 0, 0) for t in range(0, 101, 5)] + [(t, 60, 1) for t in range(50, 151, 5)]
    times = [(t * S, (t + more) * S + 50_000, (t + more) * S + 60_000, t * S + 110_000) for t, more, _ in passes]
    graph = Graph()
    part = np.array([each for _, _, each in passes])
    graph.add(MONO, BOOT, pings.readings(np.array(times, np.int64), part, np.full(len(part), -1)), MACHINES)
    for guest_s, host_s in ((20, 20), (140, 200)):
        found = graph.convert(guest_s * S, MONO, BOOT)
        assert abs(found.ts_ns - host_s * S) <= found.bound_ns < 6_000_000
    assert "more than once" in graph.convert(75 * S, MONO, BOOT).reason
    assert abs(graph.convert(135 * S, BOOT, MONO).ts_ns - 75 * S) < 6_000_000
