"""When a burst of pings ends."""

from producers.relay.pings import PINGS_MAX, Burst


def pings(burst, trips_ns):
    """Begin a burst whose trips are as given; return how many were made."""
    burst.begin()
    for count, trip_ns in enumerate(trips_ns, 1):
        if not burst.answered(trip_ns):
            return count
    raise AssertionError("it goes on")


def test_the_first_burst_is_whole_because_nobody_knows_what_quick_is():
    assert pings(Burst(), [1000] * 2 * PINGS_MAX) == PINGS_MAX


def test_a_trip_as_quick_as_before_ends_a_burst():
    burst = Burst()
    pings(burst, [3000, *[1000] * PINGS_MAX])
    assert pings(burst, [5000, 1200, 1000]) == 2


def test_slow_trips_take_a_whole_burst_and_are_the_measure_only_when_no_quicker_one_is_remembered():
    burst = Burst()
    pings(burst, [1000] * PINGS_MAX)
    for _ in range(11):
        assert pings(burst, [5000] * PINGS_MAX) == PINGS_MAX
    burst.begin()  # the quick one is the oldest of twelve, and goes with the next
    assert burst.answered(5000)
    burst.begin()
    assert not burst.answered(5000)


def test_an_answer_behind_the_end_of_a_burst_begins_nothing():
    burst = Burst()
    assert not burst.answered(1000)
    pings(burst, [1000] * PINGS_MAX)
    assert pings(burst, [1000]) == 1
    assert not burst.answered(9000)


def test_a_burst_is_over_with_its_last_answer():
    burst = Burst()
    assert burst.over
    burst.begin()
    for _ in range(PINGS_MAX - 1):
        assert burst.answered(1000)
        assert not burst.over
    assert not burst.answered(1000)
    assert burst.over
