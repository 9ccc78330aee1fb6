import numpy as np
import pytest

from consumers.clocks.index import FAR_NS
from consumers.clocks.ticks import HZ_MAX, HZ_MIN, NS_PER_S, frequency_hz, ns_of, ticks_of
from tests.consumers.clocks._history import S


def fitted(at_s, ticks, width_ns=100):
    x0 = np.array(at_s, np.int64) * S
    return frequency_hz(x0, x0 + width_ns, np.array(ticks, np.int64))


@pytest.mark.parametrize("hz", [HZ_MIN, 24_000_000, 2_596_146_113, HZ_MAX])
def test_ticks_and_ns_are_rounded_down_and_never_overflow(hz):
    rng = np.random.default_rng(hz)
    ns = rng.integers(-FAR_NS // 10, FAR_NS // 10, 1000)
    assert ticks_of(ns, hz).tolist() == [each * hz // NS_PER_S for each in ns.tolist()]
    ticks = rng.integers(-HZ_MIN * NS_PER_S, HZ_MIN * NS_PER_S, 1000)
    assert ns_of(ticks, hz).tolist() == [each * NS_PER_S // hz for each in ticks.tolist()]
    for end in (-2 * FAR_NS, 2 * FAR_NS - 1):
        for found in (ns_of(np.array([end]), hz), ticks_of(np.array([end]), hz)):
            assert abs(int(found[0])) <= FAR_NS
            assert (found[0] > 0) == (end > 0)


def test_the_frequency_is_what_most_stretches_agree_on():
    assert fitted([0, 10, 20], [7, 24 * S + 7, 48 * S + 7]) == 2_400_000_000
    # It was set in the first stretch, and slewed against in the last.
    assert fitted([0, 10, 20, 30], [0, 90 * S, 114 * S, 138 * S + 10**7]) == pytest.approx(2.4e9, rel=5e-4)


@pytest.mark.parametrize(
    ("at_s", "ticks", "width_ns"),
    [
        ([], [], 100),
        ([5], [5], 100),
        ([0, 10], [0, 24 * S], 100),  # one stretch, which a step may be in
        ([0, 10, 20], [0, 24 * S, 49 * S], 100),
        ([0, 10, 20, 30, 40], [0, 24 * S, 48 * S, 90 * S, 100 * S], 100),  # as many against it as for it
        ([0, 10, 20], [0, 24 * S, 48 * S], 2_000_000),  # read too slowly
        ([0, 10, 20], [48 * S, 24 * S, 0], 100),
        ([0, 10, 20], [0, 1000, 2000], 100),  # slower than any
        ([10, 10, 10], [0, 24 * S, 48 * S], 100),
    ],
)
def test_a_frequency_that_is_not_sure_is_none(at_s, ticks, width_ns):
    assert fitted(at_s, ticks, width_ns) is None
