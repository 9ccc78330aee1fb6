from producers.pacing import Pace

KIB = 1024


def rests(*drains):
    pace = Pace()
    return [pace.rest_s(size_bytes, now_s) for now_s, size_bytes in drains]


def test_single_records_are_waited_for_at_the_descriptor():
    assert rests(*[(i * 0.01, 200) for i in range(20)]) == [0.0] * 20


def test_a_steady_flow_is_left_alone_for_as_long_as_the_ring_allows():
    # 2 MB/s: the third of the smallest ring that may fill would last 20 ms.
    assert rests((0, 30 * KIB), (0.015, 20 * KIB), (0.035, 30 * KIB))[1:] == [0.02, 0.02]
    # 6 MB/s
    (_, rest_s) = rests((0, 36 * KIB), (0.006, 36 * KIB))
    assert 0.006 < rest_s < 0.007


def test_a_flood_is_drained_every_millisecond_and_some_time_after():
    pace = Pace()
    pace.rest_s(30 * KIB, 0.0)
    assert pace.rest_s(40 * KIB, 0.002) == 0.001
    assert pace.rest_s(5 * KIB, 0.015) == 0.001
    assert pace.rest_s(100, 0.016) == 0.0
    assert [pace.rest_s(30 * KIB, 2 + i * 0.02) for i in range(2)][1] == 0.02


def test_what_comes_after_silence_may_have_come_at_once():
    assert rests((0, 100), (60, 20 * KIB)) == [0.0, 0.001]
