"""Judged behind the first page: at its steps, once for what was missed, at the end, and never twice at once."""

import threading

import pytest

from consumers.alerts.case import Case
from consumers.alerts.judge import STEPS_S, Judge
from consumers.alerts.payload import Whose
from consumers.incidents.incident import State
from consumers.verdict.verdict import Confidence, Owner, Verdict
from tests.consumers.alerts._cases import S, incident, until

VERDICT = Verdict(Owner.UNDETERMINED, Confidence.NONE, "-", 1, "nobody knows")


class Judging:
    def __init__(self, assess=lambda _incident: VERDICT):
        self.seen = []
        self.judge = Judge(lambda incident: (self.seen.append(incident), assess(incident))[1])
        self.cases = {}

    def add(self, key="i1", now_ns=0, **fields):
        self.cases[key] = Case(incident(key, **fields), Whose(), 0, 0)
        self.judge.follow(self.cases[key], now_ns)

    def step(self, now_ns):
        return self.judge.step(now_ns, self.cases.get)

    def settle(self, now_ns):
        """Do all that is due at `now_ns`."""
        found = [self.step(now_ns)]
        while self.judge.busy(set(self.cases)):
            until(lambda: self.judge._running is None or self.judge._running[1].done())
            found.append(self.step(now_ns))
        return [each for each in found if each is not None]


@pytest.fixture
def judging():
    made = Judging()
    yield made
    made.judge.close()


def test_it_is_judged_at_each_step_and_then_no_more(judging):
    judging.add()
    assert judging.settle(0) == []
    for at_s in STEPS_S:
        (found,) = judging.settle(int(at_s * S))
        assert (found.id, found.verdict) == ("i1", VERDICT)
    assert judging.settle(1000 * S) == []


def test_steps_that_were_missed_are_one(judging):
    judging.add()
    assert len(judging.settle(20 * S)) == 1
    assert judging.settle(59 * S) == []
    assert len(judging.settle(60 * S)) == 1


def test_the_end_is_judged_at_once(judging):
    judging.add()
    judging.settle(60 * S)
    judging.cases["i1"].incident.state = State.ENDED
    judging.judge.follow(judging.cases["i1"], 61 * S)
    assert len(judging.settle(61 * S)) == 1


def test_what_is_judged_is_a_copy(judging):
    judging.add()
    judging.settle(1 * S)
    assert judging.seen[0] == judging.cases["i1"].incident
    assert judging.seen[0] is not judging.cases["i1"].incident


def test_whoever_is_forgotten_is_not_judged(judging):
    judging.add()
    judging.judge.forget("i1")
    assert judging.settle(1000 * S) == []


def test_one_at_a_time_and_nobody_waits():
    gate = threading.Event()
    slow = Judging(lambda _incident: (gate.wait(10), VERDICT)[1])
    for key in ("a", "b"):
        slow.add(key)
    assert slow.step(1 * S) is None
    assert slow.step(1 * S) is None
    assert len(slow.seen) <= 1
    gate.set()
    until(slow.judge._running[1].done)
    assert slow.step(1 * S).id in "ab"
    slow.judge.close()


def test_a_bug_costs_its_verdict_and_is_said(caplog):
    def assess(_):
        raise ZeroDivisionError

    broken = Judging(assess)
    broken.add()
    (found,) = broken.settle(1 * S)
    assert found.verdict is None
    assert "ZeroDivisionError" in caplog.text
    broken.judge.close()


def test_hastened_everything_that_was_never_judged_is(judging):
    judging.add()
    judging.judge.hasten()
    assert len(judging.settle(0)) == 1
    judging.judge.hasten()
    assert judging.settle(0) == []
