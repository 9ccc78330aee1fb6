import numpy as np

from consumers.clocks import pings
from tests.consumers.clocks._history import S


def kept(times, part=None):
    times = np.array(times, np.int64)
    none = np.zeros(len(times), np.int64)
    return pings.readings(times, none if part is None else np.array(part), none - 1)


def test_of_a_burst_the_fastest_exchange_is_kept_whatever_its_ways_took():
    found = kept([(0, 500, 510, 900), (1000, 1100, 1150, 1200), (3 * S, 3 * S + 7, 3 * S + 8, 3 * S + 100)])
    assert found.x0_ns.tolist() == [1000, 3 * S]
    assert found.x1_ns.tolist() == [1200, 3 * S + 100]
    assert (found.lo_ns[0], found.hi_ns[0]) == (1150 - 1200, 1100 - 1000)


def test_exchanges_of_two_generations_are_of_two_bursts():
    assert kept([(0, 5, 6, 10), (1000, 1005, 1006, 1010)], part=[0, 1]).part.tolist() == [0, 1]


def test_an_answer_that_came_before_it_could_says_nothing():
    # The guest stood still while it was under way.
    assert kept([(0, 5, 5000, 10), (20, 25, 24, 30)]).x0_ns.tolist() == []
    assert kept(np.zeros((0, 4))).x0_ns.tolist() == []
