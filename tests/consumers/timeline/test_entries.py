"""Rows put on one clock and in order: exact within a clock, marked where nobody knows."""

import random

import numpy as np

from consumers.clocks.edges import SAME_RATE, Readings
from consumers.clocks.graph import Graph, Node
from consumers.timeline.entries import Entry, Kind, Order, ordered, place
from schemas.stream import Stream

A, B, C = (Node(name, "boot", "mono") for name in "abc")


def graph(*edges):
    """Return a graph of (one, other, by how much that is ahead, bound), read from 0 to 1 s."""
    made = Graph()
    for one, other, ahead, bound in edges:
        x = np.array([0, 10**9], np.int64)
        none = np.zeros(2, np.int64)
        made.add(
            one, other, Readings(x, x + 1, x * 0 + ahead - bound, x * 0 + ahead + bound, none - 1, none), SAME_RATE
        )
    return made


def entry(node, ts_ns, position=0, until_ns=None, arrival_ns=0, kind=Kind.RECORD):
    stream = Stream(node.machine, node.boot_id, "host", "kmsg", "", node.clock)
    return Entry(kind, stream, node.clock, ts_ns, arrival_ns, "", until_ns, position=position)


def told(entries, made, axis=A, shift_ns=0):
    place(entries, made, axis, shift_ns)
    return [(each.stream.machine, each.ts_ns, each.order.value) for each in ordered(entries)]


def test_rows_of_two_clocks_have_an_order_only_where_their_bounds_are_apart():
    made = graph((A, B, 1_000_000, 500))
    rows = [entry(A, 100_000), entry(B, 1_100_300), entry(A, 200_000), entry(B, 1_150_000)]
    assert told(rows, made) == [
        ("a", 100_000, "undetermined"),
        ("b", 1_100_300, "undetermined"),
        ("b", 1_150_000, "known"),
        ("a", 200_000, "known"),
    ]
    assert 500 <= rows[1].bound_ns <= 510
    assert abs(rows[1].at_ns - 100_300) <= 2


def test_rows_of_one_clock_are_in_order_however_wide_their_bounds_are():
    made = graph((A, B, 0, 10**6))
    assert told([entry(B, 5_000_100), entry(B, 5_000_000)], made) == [
        ("b", 5_000_000, "known"),
        ("b", 5_000_100, "known"),
    ]


def test_a_row_far_before_another_in_the_list_may_be_behind_it_all_the_same():
    made = graph((A, B, 0, 40_000), (A, C, 0, 1))
    rows = [entry(B, 100_000), entry(C, 110_000), entry(C, 120_000), entry(C, 300_000)]
    assert [order for *_, order in told(rows, made)] == ["undetermined"] * 3 + ["known"]


def test_what_does_not_compare_stands_where_it_arrived():
    rows = [entry(C, 7, arrival_ns=600), entry(A, 500_000), entry(A, 900_000), entry(A, None, arrival_ns=700)]
    assert [order for *_, order in told(rows, graph((A, B, 0, 1)), shift_ns=100_000)] == ["arrival"] * 2 + ["known"] * 2
    assert rows[0].at_ns == 100_600
    assert rows[0].bound_ns is None
    assert rows[0].reason.startswith("nothing connects mono of c")
    assert rows[3].reason == "it has no time of its own"


def test_a_stretch_of_which_one_end_compares_stands_at_that_end():
    made = graph((A, B, 0, 10))
    begun, ended = entry(B, -(5 * 10**9), until_ns=500), entry(B, 500, until_ns=5 * 10**9)
    told([begun, ended], made)
    for row in (begun, ended):
        assert abs(row.at_ns - 500) < 10
        assert row.until_at_ns == row.at_ns
        assert "nobody read both clocks" in row.reason


def test_orders_agree_with_every_pair_looked_at_alone():
    rng = random.Random(7)
    made = graph((A, B, 5_000, 300), (A, C, -9_000, 70))
    for _ in range(30):
        rows = [entry(node, 10**6 + rng.randrange(20_000), i) for i, node in enumerate(rng.choices([A, B, C], k=25))]
        place(rows, made, A, 0)
        found = ordered(rows)
        for row in found:
            near = any(
                abs(row.at_ns - other.at_ns) <= row.bound_ns + other.bound_ns
                for other in found
                if other.node != row.node
            )
            assert row.order == (Order.UNDETERMINED if near else Order.KNOWN)
        for node in (A, B, C):
            own = [row.ts_ns for row in found if row.node == node]
            assert own == sorted(own)


def test_that_nobody_looked_makes_no_order_undetermined():
    made = graph((A, B, 0, 1))
    blind = entry(B, None, kind=Kind.BLIND)
    blind.at_ns, blind.bound_ns = 100, 5
    row = entry(A, 100)
    place([row], made, A, 0)
    assert [each.order for each in ordered([blind, row])] == [Order.KNOWN, Order.KNOWN]
