import numpy as np

from consumers.clocks.index import STEPPED, TWICE, UNREAD, Index, Range


def states(ranges, *times):
    at = np.array(times)
    return Index(ranges).states(at, at).tolist()


def test_a_time_is_of_the_segment_that_alone_holds_there():
    ranges = [Range(0, 9, 0), Range(10, 14, STEPPED), Range(15, 30, 1)]
    assert states(ranges, -1, 0, 9, 10, 14, 15, 30, 31) == [UNREAD, 0, 0, STEPPED, STEPPED, 1, 1, UNREAD]


def test_what_two_hold_is_twice_and_so_is_what_a_step_may_have_shown_again():
    assert states([Range(0, 9, 0), Range(5, 20, 1)], 4, 5, 9, 10) == [0, TWICE, TWICE, 1]
    assert states([Range(0, 9, 0), Range(8, 8, STEPPED)], 7, 8, 9) == [0, TWICE, 0]
    assert states([Range(0, 3, STEPPED), Range(2, 5, STEPPED)], 1, 2, 5) == [STEPPED] * 3


def test_an_empty_range_is_none():
    assert states([Range(5, 4, 0)], 4, 5) == [UNREAD, UNREAD]


def test_ranges_go_to_the_ends_of_64_bits():
    ranges = [Range(-(1 << 65), 0, 0), Range(5, 1 << 65, 1)]
    assert states(ranges, -(1 << 63) + 1, 0, 1, 5, (1 << 63) - 2) == [0, 0, UNREAD, 1, 1]


def test_a_stretch_of_time_must_lie_in_one_segment():
    index = Index([Range(0, 9, 0), Range(10, 20, 1)])
    first, last = np.array([1, 5, 15, 25]), np.array([2, 12, 30, 26])
    assert index.states(first, last).tolist() == [0, STEPPED, UNREAD, UNREAD]
