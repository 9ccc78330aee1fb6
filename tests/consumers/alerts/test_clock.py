"""What time it is on printk's clock: it follows a fall at once, and a leap when two records are behind it."""

from hypothesis import given
from hypothesis import strategies as st

from consumers.alerts.clock import LEAP_NS, KernelClock

S = 10**9


def heard(*records):
    """Return the clock after records at these seconds: of printk's, of the producer's."""
    clock = KernelClock()
    for ts_s, realtime_s in records:
        clock.hear(ts_s * S, realtime_s * S)
    return clock


def test_before_a_record_nobody_knows_and_behind_one_time_passes_as_it_does_for_the_producer():
    assert KernelClock().at(5 * S) is None
    assert heard((100, 1000)).at(1007 * S) == 107 * S
    assert heard((100, 1000)).at(0) == 0


def test_a_fall_counts_at_once():
    assert heard((7200, 1000), (3200, 1001)).now_ns == 3200 * S


def test_a_record_that_is_far_ahead_does_not_set_it():
    clock = heard((100, 1000), (9000, 1001))
    assert (clock.now_ns, clock.at(1011 * S)) == (101 * S, 111 * S)
    assert clock.hear(9000 * S, 1001 * S) == 101 * S  # the same record once more
    assert clock.hear(105 * S, 1005 * S) == 105 * S


def test_a_leap_that_the_next_record_bears_out_is_one():
    assert heard((100, 1000), (9000, 1001), (9004, 1005)).now_ns == 9004 * S


def test_the_first_record_is_believed_until_the_next():
    assert heard((9000, 1000)).now_ns == 9000 * S
    assert heard((9000, 1000), (100, 1001)).now_ns == 100 * S


def test_clocks_of_cpus_that_stand_apart_are_followed():
    assert heard((100, 1000), (160, 1000), (101, 1001), (161, 1001)).now_ns == 161 * S


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**6)), min_size=2, max_size=20))
def test_no_record_alone_moves_it_further_than_a_leap(records):
    clock = heard(*records[:-1])
    before_ns, told_ns, realtime_ns = clock.now_ns, clock.told_ns, clock.realtime_ns
    ts_ns, at_ns = (each * S for each in records[-1])
    passed_ns = max(0, at_ns - realtime_ns)
    now_ns = clock.hear(ts_ns, at_ns)
    assert now_ns <= max(before_ns, told_ns) + passed_ns + LEAP_NS
    assert now_ns == ts_ns or now_ns < ts_ns
