import pytest

from consumers.reports.jiffies import hz_from_lpj, hz_from_two, seconds


@pytest.mark.parametrize(
    ("jiffies", "low", "high"),
    [
        (5252, 21.008, 21.008),
        (21002, 21.002, 21.002),
        (2100, 21.0, 21.0),
        (6300, 21.0, 21.0),
        (15002, 60.008, 60.008),
        (60009, 60.009, 60.009),
        (6002, 60.02, 60.02),
        (84007, 84.007, 84.007),  # a re-report: 21 s and three times 21 s more
        (2002, 8.008, 20.02),  # 8 s at 250 or 20 s at 100: nobody knows
    ],
)
def test_a_length_is_that_of_a_usual_timeout_or_a_range(jiffies, low, high):
    assert seconds(jiffies) == pytest.approx((low, high))


def test_a_known_hz_leaves_no_range():
    assert seconds(2002, 250) == pytest.approx((8.008, 8.008))


def test_two_reports_of_one_stall_say_what_hz_is():
    assert hz_from_two(5250, 29_000_000_000, 21_003, 92_012_000_000) == 250
    assert hz_from_two(2100, 0, 8400, 63_000_000_000) == 100
    assert hz_from_two(5250, 29_000_000_000, 21_003, 29_000_000_000) is None
    assert hz_from_two(21_003, 0, 5250, 1_000_000_000) is None
    assert hz_from_two(0, 0, 7, 1_000_000_000) is None


def test_the_delay_loop_says_what_hz_is():
    assert hz_from_lpj(5192.28, 10_384_564) == 250
    assert hz_from_lpj(5192.28, 2_596_141) == 1000
    assert hz_from_lpj(5192.28, 0) is None
    assert hz_from_lpj(5192.28, 10) is None


def test_a_length_that_no_stall_has_is_a_range_too():
    found = seconds(3_002_413_905_695)
    assert found.low < found.high
