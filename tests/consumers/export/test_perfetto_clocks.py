import numpy as np
import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

from consumers.export import perfetto_clocks
from consumers.export.perfetto_clocks import Clocks, Reading, Span, spans

S = 10**9


def test_readings_that_agree_are_one_span_of_the_tightest():
    readings = [
        Reading(S, S + 900, 9 * S + 500, 900),
        Reading(2 * S, 2 * S + 40, 10 * S + 70, 90),
        Reading(3 * S, 3 * S, 11 * S, 91),
    ]
    assert spans(readings) == (Span(S, 40, 8 * S + 70),)


def test_sleep_and_a_set_clock_begin_a_span():
    readings = [Reading(S, S, 9 * S, 1), Reading(2 * S, 5 * S, 13 * S, 1), Reading(3 * S, 6 * S, 7 * S, 1)]
    assert spans(readings) == (Span(S, 0, 8 * S), Span(2 * S, 3 * S, 11 * S), Span(3 * S, 3 * S, 4 * S))


def test_no_more_spans_than_a_file_takes(monkeypatch):
    monkeypatch.setattr(perfetto_clocks, "_SPANS_MAX", 3)
    jumps = [Reading(at * S, at * S, 100 * S + at * S + (at % 2) * 5_000_000, 1) for at in range(50)]
    assert len(spans(jumps)) == 1
    assert len(spans([*jumps, Reading(60 * S, 60 * S, 900 * S, 1)])) == 2


def test_no_reading_is_no_span():
    assert spans([]) == ()


TWO = (Span(10 * S, 7, 100 * S), Span(20 * S, 5 * S, 205 * S))


def test_times_of_mono_move_with_the_span_they_are_in():
    clocks = Clocks("mono", TWO, 0)
    times = np.array([0, 10 * S, 20 * S - 1, 20 * S, 30 * S])
    assert clocks.written(times).tolist() == [7, 10 * S + 7, 20 * S + 6, 25 * S, 35 * S]


@pytest.mark.parametrize("name", ["boot", "local", "global", "mono_raw", "perf"])
def test_times_of_others_stay(name):
    times = np.array([0, 30 * S])
    assert Clocks(name, TWO, 0).written(times).tolist() == [0, 30 * S]


def test_realtime_is_found_on_the_clocks_that_were_read_with_it():
    assert Clocks("mono", TWO, 0).from_realtime(112 * S) == 12 * S
    assert Clocks("mono", TWO, 0).from_realtime(226 * S) == 21 * S
    assert Clocks("boot", TWO, 0).from_realtime(226 * S) == 26 * S
    assert Clocks("mono", (), 0).from_realtime(226 * S) is None
    assert Clocks("local", TWO, 0).from_realtime(226 * S) is None


def test_snapshots_say_all_three_clocks_of_each_span():
    found = [{each.clock_id: each.timestamp for each in one.clocks} for one in Clocks("boot", TWO, 0).snapshots()]
    real, mono, boot = proto.BUILTIN_CLOCK_REALTIME, proto.BUILTIN_CLOCK_MONOTONIC, proto.BUILTIN_CLOCK_BOOTTIME
    assert found == [{real: 110 * S, mono: 10 * S, boot: 10 * S + 7}, {real: 225 * S, mono: 20 * S, boot: 25 * S}]


@pytest.mark.parametrize(
    ("name", "said"), [("mono", "no reading"), ("boot", "no reading"), ("perf", "relates the clock perf to UTC")]
)
def test_what_a_user_must_know_of_a_clock_is_said(name, said):
    assert said in Clocks(name, (), 0).note()


def test_of_a_clock_that_was_read_nothing_is_to_be_said():
    assert Clocks("mono", TWO, 0).note() is None
