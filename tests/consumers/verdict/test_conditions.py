"""Conditions have three values: what a bound does not pass is not known, and what is only not said rejects nobody."""

import pytest

from consumers.verdict.conditions import Case, evaluate
from consumers.verdict.facts import Facts, known, unknown
from consumers.verdict.shares import Shares
from consumers.verdict.table import Either, Exits, Is, Most, Row, Says, Share
from consumers.verdict.verdict import Confidence, Owner
from tests.consumers.verdict._cases import facts, incident, times


def asked(condition, found, whose=None):
    row = Row("C1", frozenset(), (condition,), Owner.VMM_PAUSE, Confidence.HIGH, "")
    whose = whose or incident()
    return evaluate(row, Case(whose, found, whose.cpus))


@pytest.mark.parametrize(
    ("condition", "masses", "truth"),
    [
        (Share("T", 0.5), {"T": 0.5, "GX": 0.5}, True),
        (Share("T", 0.5), {"T": 0.49, "GX": 0.51}, False),
        (Share("T", 0.5), {"T": 0.4, "STH": 0.2, "GX": 0.4}, None),
        (Share("WST", at_most=0.1), {"GX": 0.9, "W": 0.1}, True),
        (Share("WST", at_most=0.1), {"GX": 0.8, "W": 0.2}, False),
        (Share("WST", at_most=0.1), {"GX": 0.85, "STH": 0.15}, None),
        (Share("WST", at_most=0.1), {"GX": 0.85}, None),
        (Most("W"), {"W": 0.3, "GX": 0.7}, True),
        (Most("W"), {"W": 0.3, "T": 0.4, "GX": 0.3}, False),
        (Most("W"), {"W": 0.3, "GX": 0.3, "STH": 0.4}, None),
    ],
)
def test_a_threshold_is_passed_by_a_bound(condition, masses, truth):
    assert asked(condition, facts(times(**masses))).truth is truth


def test_an_error_moves_bounds_away_from_what_they_must_pass():
    for error, truth in ((0.0, True), (0.02, None), (0.2, None)):
        assert asked(Share("T", 0.5), facts(known(Shares({"T": 0.51, "GX": 0.49}, error)))).truth is truth
    assert asked(Share("T", 0.5), facts(known(Shares({"T": 0.4, "GX": 0.6}, 0.05)))).truth is False


def test_what_would_have_told_is_named():
    assert asked(Share("T", 0.5), facts()).facts == ("vcpu",)
    assert asked(Share("X", 0.5), facts(times(GX=1.0))).facts == ("vcpu", "exits")
    assert asked(Share("T", 0.5, of="iothread"), facts()).facts == ("iothread",)
    assert asked(Is("memory"), facts()).facts == ("memory",)
    assert asked(Exits("kernel"), facts()).facts == ("exits",)
    assert asked(Either((Is("memory"), Is("sleep_memory"))), facts()).facts == ("memory", "sleep_memory")


def test_one_of_several_is_enough_and_unknown_ones_keep_a_no_open():
    both = Either((Is("memory"), Is("sleep_memory")))
    assert asked(both, facts(memory=True)).truth is True
    assert asked(both, facts(memory=False)).truth is None
    assert asked(both, facts(memory=False, sleep_memory=False)).truth is False


def test_a_no_of_a_log_or_of_the_text_is_silent_and_one_that_was_measured_is_not():
    assert asked(Is("host_lockup"), facts(host_lockup=False)).silent
    assert asked(Says("scx"), facts()).silent
    assert not asked(Is("memory"), facts(memory=False)).silent
    measured = asked(Share("T", 0.5), facts(times(GX=1.0)))
    assert (measured.truth, measured.silent) == (False, False)


def test_without_an_accused_cpu_all_of_the_vm_is_meant_where_all_of_it_is_known():
    nobody = incident(cpus=())
    whole = facts(times(T=1.0))
    assert asked(Share("T", 0.5), whole, nobody).truth is True
    whole.vcpus[0] = times(GX=1.0)
    assert asked(Share("T", 0.5), whole, nobody).truth is False
    whole.mapped = unknown("no topology")
    assert asked(Share("T", 0.5), whole, nobody).truth is None
    assert asked(Share("T", 0.5), Facts.none(), nobody).truth is None
