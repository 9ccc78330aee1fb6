"""A window on other clocks, over random histories: nothing that lies in it is outside of what would be read."""

import numpy as np
import pytest

from consumers.clocks.graph import Node, NotComparable
from consumers.coverage import Span
from consumers.timeline.window import best, reach, shift_ns
from tests.consumers.clocks import _random

S = 10**9


@pytest.fixture(scope="module")
def histories():
    return [_random.history(seed) for seed in range(40, 60)]


def inside(history, source, target, since_ns, until_ns, count=2000):
    """Return times of `source` that may be between the two of `target`."""
    true_ns = np.sort(history.rng.integers(*history.span, count))
    shown = history.clocks[source].read(true_ns)
    found = history.graph.convert_many(shown, source, target)
    if isinstance(found, NotComparable):
        return shown[:0]
    near = (found.ts_ns + found.bound_ns >= since_ns) & (found.ts_ns - found.bound_ns <= until_ns)
    return shown[near & (found.state >= 0)]


def test_every_time_that_converts_into_the_window_is_reached(histories):
    checked = 0
    for history in histories:
        window = _random.HOST["realtime"]
        middle = int(history.clocks[window].read(np.array([sum(history.span) // 2]))[0])
        for width_ns in (S, 30 * S):
            since_ns, until_ns = middle - width_ns // 2, middle + width_ns // 2
            for source in history.clocks:
                found = reach(history.graph, window, since_ns, until_ns, source)
                times = inside(history, source, window, since_ns, until_ns)
                reached = np.zeros(len(times), bool)
                for span in found.spans:
                    reached |= (times >= span.since_ns) & (times <= span.until_ns)
                # What is missed, by a clock that went to and fro, is looked for by its arrival.
                assert reached.all() or not found.complete
                checked += len(times)
                assert list(found.spans) == sorted(found.spans)
    assert checked > 1000


def test_a_window_is_no_wider_than_its_bounds_where_all_of_it_compares(histories):
    graph = histories[0].graph
    one, other = _random.HOST["mono"], _random.HOST["mono_raw"]
    at = int(histories[0].clocks[one].read(np.array([histories[0].span[0] + S]))[0])
    found = reach(graph, one, at, at + 10 * S, other)
    low, high = graph.convert(at, one, other), graph.convert(at + 10 * S, one, other)
    assert found.complete
    (span,) = found.spans
    assert low.ts_ns - low.bound_ns - 20_000 <= span.since_ns <= low.ts_ns - low.bound_ns
    assert high.ts_ns + high.bound_ns <= span.until_ns <= high.ts_ns + high.bound_ns + 20_000


def test_its_own_clock_is_the_window_and_an_unknown_one_is_not_reached(histories):
    graph, node = histories[0].graph, _random.HOST["mono"]
    assert reach(graph, node, 5, 9, node) == ((Span(5, 9),), True)
    stranger = Node("x", "b", "mono")
    assert reach(graph, node, 5, 9, stranger) == ((), False)
    assert reach(graph, None, 5, 9, node) == ((), False)
    assert shift_ns(graph, node, 5, 9, node) == 0
    assert shift_ns(graph, node, 5, 9, stranger) is None


def test_the_boot_that_was_read_in_the_window_is_the_best(histories):
    history = histories[0]
    node = _random.HOST["realtime"]
    at = int(history.clocks[node].read(np.array([sum(history.span) // 2]))[0])
    nodes = [Node("x", "b", "realtime"), node]
    assert best(history.graph, nodes, at, at + S, "mono") == node
    assert best(history.graph, nodes, 0, S, "mono") is None
    assert best(history.graph, [], at, at + S, "mono") is None
