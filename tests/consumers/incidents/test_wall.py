"""The date in front of a line, whoever wrote it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.incidents.wall import WALL_NS, WallClock, wall_second
from consumers.reports.report import Line

AT = 1795486326  # 2026-11-24T02:12:06Z


@pytest.mark.parametrize(
    "raw",
    [
        b"[Tue Nov 24 02:12:06 2026] text",
        b"2026-11-24T02:12:06.123456+00:00 host kernel: text",
        b"2026-11-24 02:12:06 host kernel: text",
        b"<4>1 2026-11-24T02:12:06Z host kernel - - - text",
        b"[Tue Nov 24 02:12:06 2026 <    0.000012>] text",
        b"Tue 2026-11-24 02:12:06 UTC host kernel: text",
        b"1795486326.979732 host kernel: text",
    ],
)
def test_a_date_with_its_year_is_read(raw):
    assert wall_second(raw) == AT


def test_a_date_without_a_year_is_one_all_the_same():
    first, later = (wall_second(b"Nov %2d 02:12:06 host kernel: text" % day) for day in (4, 24))
    assert later - first == 20 * 86400
    assert wall_second(b"Feb 29 00:00:00 host kernel: text") is not None
    assert first * 10**9 >= WALL_NS


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"text",
        b"[   12.000000] text",
        b"Nov 31 02:12:06 x",
        b"1969-01-01 00:00:00 x",
        b"[Nov24 02:12] x",
        b"[  +0.000123] x",
    ],
)
def test_what_is_no_date_is_none(raw):
    assert wall_second(raw) is None


@given(st.binary(max_size=60))
def test_no_bytes_break_it(raw):
    wall_second(raw)


def test_lines_of_one_second_keep_their_order_and_the_same_again_has_the_same_time():
    clock = WallClock()
    texts = ["a", "b", "b", "c"]
    times = [clock.stamped(Line(i, None, "", text, False), b"Nov 24 02:12:06 x").ts_ns for i, text in enumerate(texts)]
    assert times[0] < times[1] == times[2] < times[3] < times[0] + 10**9
    assert clock.stamped(Line(9, 5, "", "d", False), b"no date").ts_ns is None
