import time

from producers import clock_readings


def test_all_clocks_lie_within_the_bracket():
    before = time.monotonic_ns()
    found = clock_readings.read_all_clocks()
    after = time.monotonic_ns()
    assert before <= found.monotonic_ns <= after
    assert 0 < found.bracket_ns <= after - before
    assert found.boottime_ns >= found.monotonic_ns - found.bracket_ns
    # Whole seconds of leap, none where nobody told the kernel.
    assert abs((found.tai_ns - found.realtime_ns + 500_000_000) % 10**9 - 500_000_000) <= found.bracket_ns


def test_heartbeats_have_the_same_reading_of_three():
    one, two = clock_readings.read_clocks(), clock_readings.read_all_clocks()
    assert abs((two.realtime_ns - two.monotonic_ns) - (one.realtime_ns - one.monotonic_ns)) < 1_000_000


def test_the_ordered_rate_is_within_what_the_kernel_takes():
    slew = clock_readings.slew_ppb()
    assert slew is None or abs(slew) <= 100_500_000
