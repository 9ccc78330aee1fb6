import numpy as np

from consumers.clocks.track import Segment


def segment(held):
    at, lo, hi = np.array([0, 1000]), np.array([10, 12]), np.array([14, 20])
    return Segment(at, lo, hi, np.array([0, 0]), np.full(3, -0.01), np.full(3, 0.01), held)


def test_where_nothing_steps_both_readings_hold_and_each_says_less_with_distance():
    low, high = segment(held=False).limits(np.array([0, 500, 1000, 1200]))
    assert low.tolist() == [10, 7, 12, 10]
    assert high.tolist() == [14, 19, 20, 22]


def test_where_a_step_may_be_hidden_either_holds():
    low, high = segment(held=True).limits(np.array([500]))
    assert (low.tolist(), high.tolist()) == ([5], [25])
