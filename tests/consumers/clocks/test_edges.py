import numpy as np
import pytest

from consumers.clocks import pings
from consumers.clocks.edges import BLOCK, MACHINES, PRINTK, SAME_RATE, SLEWED, TICKS, Readings, make_edge
from consumers.clocks.index import FAR_NS
from tests.consumers.clocks._history import S


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_guest_claims_is_an_edge(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 30))
    times = rng.integers(0, FAR_NS, (size, 4))
    times = np.sort(times, axis=1) if seed % 2 else times
    found = pings.readings(times, rng.integers(0, 2, size), rng.integers(-1, 2, size))
    if not len(found.x0_ns):
        return
    made = make_edge(found, MACHINES)
    at = rng.integers(0, FAR_NS, 100)
    for track in (made.forward, made.backward):
        assert len(track.apply(at, at)[2]) == 100


def edge(rows, kind, steady=-1, part=None):
    columns = np.array(rows, np.int64).T
    size = len(rows)
    part = np.zeros(size, np.int64) if part is None else np.array(part)
    return make_edge(Readings(*columns, np.full(size, steady), part), kind)


def test_a_difference_that_no_rate_explains_begins_a_segment():
    rows = [(t * S, t * S, ahead, ahead) for t, ahead in ((0, 5), (10, 6), (20, 5 * S), (30, 5 * S))]
    assert edge(rows, SAME_RATE).starts == [0, 2]
    slewed = [(t * S, t * S, t * 400_000, t * 400_000) for t in range(3)]
    assert edge(slewed, SLEWED).starts == [0]
    assert edge([*slewed, (3 * S, 3 * S, 10**7, 10**7)], SLEWED).starts == [0, 3]


def test_another_part_is_another_segment_though_nothing_shows():
    assert edge([(t * S, t * S, 5, 5) for t in range(4)], SAME_RATE, part=[0, 0, 1, 1]).starts == [0, 2]


def test_of_readings_that_overlap_the_tighter_one_is_used():
    used = edge([(0, 100, 0, 100), (50, 60, 3, 13), (55, 200, -50, 95), (S, S, 7, 7)], SAME_RATE).readings
    assert used.x0_ns.tolist() == [50, S]


def test_a_measured_rate_narrows_only_where_the_rate_was_steady_and_all_readings_agree():
    rows = [(t * S, t * S, t * 30_000, t * 30_000) for t in range(BLOCK + 10)]
    (steady,), (unknown,) = (edge(rows, PRINTK, steady=s).forward.segments for s in (7, -1))
    assert np.all(np.abs(steady.rate_max[1:-1] - 30e-6) < 6e-6)
    assert np.all(unknown.rate_max == steady.rate_max[0])
    bent = [
        (at, at2, lo + (t >= 20) * (t - 20) * 100_000, hi + (t >= 20) * (t - 20) * 100_000)
        for t, (at, at2, lo, hi) in enumerate(rows)
    ]
    (wrong,) = edge(bent, PRINTK, steady=7).forward.segments
    assert np.all(wrong.rate_max[1:BLOCK] == wrong.rate_max[0])


# Steps of so many us in a gap of 120 s, of which a part is within what the rate may do; the rate itself varies as it may.
@pytest.mark.parametrize("step_us", [0, 1, 20, 300, 600, 900, 1_100, -1_100, 1_500, 5_000, 100_000])
@pytest.mark.parametrize("gap", [0, 1, 7, 18, 19])
def test_a_step_too_small_to_be_found_does_not_pass_for_a_rate(step_us, gap):
    at = np.cumsum([0, *(120 if place == gap else 10 for place in range(20))]) * S
    slow, fast = 30e-6, 34.9e-6
    rates = np.where(np.arange(20) == gap, slow, fast)
    ahead = np.concatenate([[0], np.cumsum(np.diff(at) * rates)]).astype(np.int64)
    ahead[gap + 1 :] += step_us * 1000
    found = edge(np.column_stack([at, at + 500, ahead - 500, ahead + 500]), TICKS, steady=1)
    # Beside it the rate is measured all the same, where all readings agree with that: the kind's limit alone is 19 ms.
    elsewhere = at[(gap + 5) % 20 :][:1] + 5 * S
    low, high, _ = found.forward.apply(elsewhere, elsewhere)
    assert (high[0] - low[0] < 100_000) == (0 <= step_us <= 1_100)
    for share in (0.02, 0.5, 0.98):
        took = int(120 * S * share)
        now = at[gap : gap + 1] + took
        before = ahead[gap] + int(took * slow)
        for moved in (before, before + step_us * 1000):
            low, high, states = found.forward.apply(now, now)
            assert states[0] == 0
            assert low[0] <= now[0] + moved <= high[0]
            back, on, states = found.backward.apply(now + moved, now + moved)
            assert states[0] == 0
            assert back[0] <= now[0] <= on[0]


def test_rates_that_vary_as_they_may_are_measured_beside_a_step_that_one_of_them_alone_would_not_explain():
    at = np.cumsum([0, *(120 if place == 9 else 10 for place in range(20))]) * S
    rates = np.where(np.arange(20) % 2, 30e-6, 34.9e-6)
    rates[9] = 32e-6
    ahead = np.concatenate([[0], np.cumsum(np.diff(at) * rates)]).astype(np.int64)
    ahead[10:] += 480_000  # with its gap's rate 36 ppm, and 6 from the slowest
    found = edge(np.column_stack([at, at + 500, ahead - 500, ahead + 500]), TICKS, steady=1)
    low, high, states = found.forward.apply(at[4:5] + 5 * S, at[4:5] + 5 * S)
    assert states[0] == 0
    assert high[0] - low[0] < 100_000


# More than is taken for granted: where two steps show together, though neither does alone, no rate is measured.
@pytest.mark.parametrize("count", [0, 1, 2])
def test_no_steps_pass_for_a_rate(count):
    rng = np.random.default_rng(count)
    one_segment = 0
    for _ in range(800):
        size = int(rng.integers(4, 90))
        gap = (np.exp(rng.uniform(*np.log((0.5, 200)), size - 1)) * S).astype(np.int64)
        at = 10**12 + np.concatenate([[0], np.cumsum(gap)])
        rate = rng.uniform(-0.0017, 0.0017) + rng.uniform(-2.45e-6, 2.45e-6, size - 1)
        step = np.zeros(size - 1)
        places = rng.choice(size - 1, count, replace=False)
        step[places] = np.exp(rng.uniform(np.log(500), np.log(np.maximum(600, gap[places] * 0.003)), count))
        step *= rng.choice([-1, 1])
        ahead = np.concatenate([[0], np.cumsum(gap * rate + step)])
        width = np.exp(rng.uniform(*np.log((50, 10**5)), size))
        share = rng.random(size)
        lo, hi = np.floor(ahead - width * share).astype(np.int64), np.ceil(ahead + width * (1 - share)).astype(np.int64)
        found = edge(np.column_stack([at, at + 1, lo, hi]), TICKS, steady=1)
        one_segment += len(found.starts) == 1
        for place in (*places, int(rng.integers(size - 1))):
            now = at[place] + (gap[place] * rng.random(6)).astype(np.int64)
            behind = rng.random(6) < 0.5
            true = ahead[place] + (now - at[place]) * rate[place] + step[place] * behind
            low, high, states = found.forward.apply(now, now)
            assert np.all((states < 0) | ((low - 2 <= now + true) & (now + true <= high + 2)))
            then = now + np.round(true).astype(np.int64)
            low, high, states = found.backward.apply(then, then)
            assert np.all((states < 0) | ((low - 2 <= now) & (now <= high + 2)))
    assert one_segment > 400


def test_clocks_that_should_not_step_and_do_are_not_reckoned_beyond_their_readings():
    track = edge([(t * S, t * S, ahead, ahead) for t, ahead in ((1, 5), (2, 5), (3, S), (4, S))], PRINTK).forward
    at = np.array([0, S, 2 * S, 3 * S, 4 * S, 5 * S])
    assert track.apply(at, at)[2].tolist() == [-1, 0, 0, 1, 1, -1]


def test_one_reading_is_an_edge_and_holds_for_clocks_that_never_step():
    track = edge([(S, S, 5, 5)], SLEWED).forward
    low, high, state = track.apply(np.array([S, 3 * S]), np.array([S, 3 * S]))
    assert state.tolist() == [0, 0]
    assert high[0] - low[0] == 2
    assert 2_004_000 < high[1] - low[1] < 2_004_010


def test_a_tighter_reading_takes_no_place_in_which_it_would_overlap_the_one_before():
    first, loose = (0, 10, -5, 0), (20, 30, -5, 100)
    assert edge([first, loose, (25, 26, -20, 20)], SLEWED).readings.x0_ns.tolist() == [0, 20]
    assert edge([first, loose, (25, 26, -5, 20)], SLEWED).readings.x0_ns.tolist() == [0, 25]


def test_a_machine_that_was_taken_back_may_have_shown_the_time_behind_its_last_reading_before():
    seconds = [*range(80, 101, 10), *range(50, 201, 10)]
    made = edge([(t * S, t * S + 10, 0, 10) for t in seconds], MACHINES, part=[0] * 3 + [1] * 16)
    at = np.array([60, 90, 110, 159, 170, 190]) * S
    for track in (made.forward, made.backward):
        assert (track.apply(at, at)[2] >= 0).tolist() == [True, False, False, False, True, True]
