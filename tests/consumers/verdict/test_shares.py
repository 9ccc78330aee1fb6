"""Bounds on where a thread's time went: who knows less has wider ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.verdict.shares import LETTERS, Shares, added

KEYS = st.sets(st.sampled_from(LETTERS), min_size=1).map(lambda found: "".join(sorted(found, key=LETTERS.index)))
PARTS = st.lists(st.tuples(KEYS, st.integers(0, 100)), max_size=6)


def shares(parts, error=0.0):
    total = max(100, sum(mass for _, mass in parts))
    return added([(key, mass / total) for key, mass in parts], error)


def test_a_mass_of_several_letters_is_no_share_of_one():
    found = Shares({"GX": 0.6, "T": 0.3})
    assert (found.at_least("G"), found.at_most("G")) == (0.0, pytest.approx(0.7))
    assert found.at_least("GX") == 0.6
    assert (found.at_least("T"), found.at_most("T")) == (0.3, pytest.approx(0.4))
    assert found.at_most("W") == pytest.approx(0.1)
    assert found.known == pytest.approx(0.9)
    assert Shares({"GXWSTH": 1.0}).known == 0


def test_an_error_widens_both_ways():
    found = Shares({"T": 0.5, "GX": 0.5}, 0.05)
    assert (found.at_least("T"), found.at_most("T")) == (0.45, 0.55)


@given(PARTS, st.sets(st.integers(0, 5)), KEYS, KEYS)
def test_bounds_hold_and_knowing_less_widens_them(parts, coarse, more, asked):
    fine = shares(parts)
    wide = shares([(key + more if i in coarse else key, mass) for i, (key, mass) in enumerate(parts)])
    for found in (fine, wide):
        assert found.at_least(asked) <= found.at_most(asked) + 1e-9
    assert wide.at_least(asked) <= fine.at_least(asked) + 1e-9
    assert wide.at_most(asked) >= fine.at_most(asked) - 1e-9
    assert shares(parts, 0.1).at_least(asked) <= fine.at_least(asked)
