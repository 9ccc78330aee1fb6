"""Spans of watching against a plain model: each moment is seen by some span, or blind."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.coverage import Answer, Span, merged, read_spans, tells, watched
from consumers.views import connect
from schemas.stream import Stream
from tests.consumers import _sample

S = 10**9
TIMES = st.integers(-50, 50)
SPANS = st.lists(st.tuples(TIMES, TIMES).map(lambda pair: Span(*sorted(pair))), max_size=8)
WINDOWS = st.tuples(TIMES, TIMES).filter(lambda pair: pair[0] != pair[1]).map(lambda pair: Span(*sorted(pair)))


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    found = connect(_sample.build(tmp_path_factory.mktemp("sample") / "lake"))
    yield found
    found.close()


def moments(spans):
    """Return the unit stretches that the spans have."""
    return {at for span in spans for at in range(span.since_ns, span.until_ns)}


@given(SPANS, WINDOWS)
def test_what_is_seen_and_what_is_blind_make_up_the_window(spans, window):
    found = watched(spans, *window)
    assert moments(found.seen) == moments(spans) & moments([window])
    assert moments(found.blind) == moments([window]) - moments(spans)
    parts = sorted([*found.seen, *found.blind])
    assert (parts[0].since_ns, parts[-1].until_ns) == window
    assert all(one.until_ns == two.since_ns for one, two in pairwise(parts))
    assert all(span.since_ns < span.until_ns for span in parts)
    words = {(True, False): Answer.YES, (False, True): Answer.NO, (True, True): Answer.PARTLY}
    assert found.answer == words[bool(found.seen), bool(found.blind)]


@given(SPANS, TIMES)
def test_a_moment_is_seen_where_a_span_touches_it(spans, at):
    touched = any(span.since_ns <= at <= span.until_ns for span in spans)
    assert watched(spans, at, at).answer == (Answer.YES if touched else Answer.NO)


@given(SPANS)
def test_merged_spans_are_apart_in_order_and_cover_the_same(spans):
    found = merged(spans)
    assert moments(found) == moments(spans)
    assert all(one.until_ns < two.since_ns for one, two in pairwise(found))


@given(SPANS, SPANS, WINDOWS)
def test_more_spans_never_make_a_stream_blinder(spans, more, window):
    assert moments(watched(spans + more, *window).blind) <= moments(watched(spans, *window).blind)


def test_heartbeats_of_two_runs_leave_the_time_between_them_blind(connection):
    stream = _sample.LOCKED
    spans = read_spans(connection, stream.machine, stream.boot_id, 0, 100 * S)
    assert spans == {stream: [Span(0, 9 * S), Span(29 * S, 62 * S)]}
    assert watched(spans[stream], 5 * S, 40 * S).blind == (Span(9 * S, 29 * S),)


def test_only_spans_that_touch_the_time_are_read(connection):
    stream = _sample.LOCKED
    found = read_spans(connection, stream.machine, stream.boot_id, 9 * S + 1, 28 * S)
    assert found == {}
    assert read_spans(connection, "nobody", stream.boot_id, 0, 100 * S) == {}


def test_a_span_goes_by_a_clock_that_is_not_set(connection):
    # CLOCK_REALTIME was set back by an hour in the second span: on CLOCK_BOOTTIME both are 10 s long.
    beats = "(values (1, 0, 10, 100), (2, 10, -3580, 110)) as v(number, since, until, boot)"
    connection.execute(
        "create temp table coverage as select 'm' as machine, 'b' as boot_id, 'host' as layer, 'kmsg' as surface, "
        "'' as instance, 'printk' as clock, 'r' as run, number, since as since_realtime_ns, until as until_realtime_ns, "
        f"boot as boottime_ns from {beats}"
    )
    try:
        (spans,) = read_spans(connection, "m", "b", 0, 1000).values()
    finally:
        connection.execute("drop table temp.coverage")
    assert spans == [Span(90, 110)]


@pytest.mark.parametrize(
    ("surface", "instance", "expected"),
    [
        ("kmsg", "", True),
        ("ftrace", "sched/cpu0", True),
        ("ftrace", "sched", False),
        ("bpf", "hang", True),
        ("bpf", "hang/types", False),
        ("clocks", "", True),
        ("clocks", "relay", False),
        ("relay", "web-1", True),
    ],
)
def test_of_descriptions_and_of_a_guests_exchanges_no_heartbeat_tells(surface, instance, expected):
    assert tells(Stream("m", "b", "host", surface, instance, "mono")) is expected
