"""Samples and stays to shares: exact where it can be, wide where a sample says too little. Captures are genuine runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.coverage import Span
from consumers.reports.report import Kind
from consumers.verdict.facts import Facts, unknown
from consumers.verdict.judge import judge
from consumers.verdict.shares import LETTERS, Shares
from consumers.verdict.stays import Monitor, Sample, Stay, account, split
from consumers.verdict.verdict import Confidence, Owner
from tests.consumers.verdict import _captures, _cases

S = 10**9
RUNS = Monitor((), (Span(0, 100 * S),))


def sampled(*rows):
    """Return samples, a second apart: of each the state, and run and wait of the second before it in s."""
    run = wait = 0.0
    found = []
    for i, (state, ran, waited) in enumerate(rows):
        run, wait = run + ran, wait + waited
        found.append(Sample(i * S, state, False, int(run * S), int(wait * S), int(100 * (run + wait))))
    return found


def shares(samples, since_s, until_s, stays=(), monitor=RUNS, error_ns=0):
    return account(samples, stays, monitor, Span(int(since_s * S), int(until_s * S)), error_ns)


def test_counters_say_what_ran_and_waited_and_states_the_rest():
    found = shares(sampled(("R", 0, 0), ("R", 0.9, 0.1), ("R", 0.2, 0.8), ("T", 0, 0), ("T", 0, 0)), 0, 4)
    assert found.masses == pytest.approx({"GX": 0.275, "W": 0.225, "T": 0.5})
    assert found.error == 0  # no time slice began while it was stopped: it was nothing else


def test_a_wait_is_counted_when_it_ends_and_reaches_back_behind_the_samples_that_showed_none():
    one, *others = [Sample(i * S, "R", False, S, S, 7) for i in range(6)]
    ended = Sample(6 * S, "R", False, int(1.5 * S), int(6.5 * S), 9)
    assert shares([one, *others], 0, 5).masses == {"GXWSTH": 1}  # as if it stood still, or counted late
    found = shares([one, *others, ended], 0, 6)
    assert found.at_least("W") == pytest.approx(5.5 / 6)
    assert found.at_least("GX") == pytest.approx(0.5 / 6)


def test_what_is_counted_as_waiting_of_a_time_when_it_was_found_asleep_may_be_sleep():
    asleep = [Sample(i * S, "S", False, S, S, 7) for i in range(6)]
    ended = Sample(6 * S, "S", False, int(1.5 * S), int(6.5 * S), 9)
    found = shares([*asleep, ended], 0, 6)
    assert found.at_least("W") == 0
    assert found.at_least("SH") == pytest.approx(5 / 6)
    assert found.at_most("W") == pytest.approx(0.5 / 6)
    # It may have been about to wake when it was looked at.
    assert shares([asleep[0], Sample(S, "R", False, int(1.5 * S), int(1.5 * S) + 1000, 9)], 0, 1).at_least("W") == 0.5


def test_an_idle_vcpu_is_not_paused_only_where_the_monitor_says_so():
    idle = sampled(*[("S", 0, 0)] * 5)
    assert shares(idle, 0, 4).masses == {"SH": 1}
    assert shares(idle, 0, 4, monitor=Monitor()).masses == {"STH": 1}
    paused = Monitor((Span(S, 4 * S),), (Span(0, S),))
    assert shares(idle, 0, 4, monitor=paused).masses == {"T": 0.75, "SH": 0.25}


def test_uninterruptible_sleep_is_a_freezer_unless_that_is_known_not_to_be():
    deep = sampled(*[("D", 0, 0)] * 5)
    assert shares(deep, 0, 4).masses == {"S": 1}
    assert shares([each._replace(frozen=None) for each in deep], 0, 4).masses == {"ST": 1}
    assert shares([each._replace(frozen=True) for each in deep], 0, 4).masses == {"T": 1}


def test_samples_with_time_slices_between_them_are_a_guess_of_their_own_length():
    deep = [each._replace(timeslices=i) for i, each in enumerate(sampled(*[("D", 0.1, 0)] * 11))]
    found = shares(deep, 0, 10)
    assert found.masses["S"] == pytest.approx(0.9)
    assert found.error == pytest.approx(0.1)


def test_an_interval_that_lies_inside_in_part_is_taken_for_as_unlike_as_can_be():
    found = shares(sampled(("R", 0, 0), ("R", 0.7, 0.3), ("R", 0.9, 0.1)), 0.5, 2)
    # Of the first second's 0.7 s on a CPU only 0.5 s can lie before, and none of its wait need be inside.
    assert found.masses == pytest.approx({"GX": (0.2 + 0.9) / 1.5, "W": 0.1 / 1.5, "GXW": 0.3 / 1.5})


def test_what_stays_account_for_is_taken_from_the_counters_of_the_samples_around_them():
    samples = sampled(("S", 0, 0), ("S", 0.3, 0.2), ("S", 0, 0))
    found = shares(samples, 0, 2, [Stay(int(0.2 * S), int(0.4 * S), "W"), Stay(int(0.5 * S), int(0.7 * S), "GX")])
    assert found.masses == pytest.approx({"W": 0.1, "GX": 0.15, "SH": 0.75})
    # And a wait that the counters do not have yet is taken from what they know nothing of.
    late = shares(sampled(("R", 0, 0), ("R", 0.3, 0)), 0, 1, [Stay(int(0.5 * S), S, "W")])
    assert late.at_least("W") == pytest.approx(0.5)
    assert late.at_least("GX") == pytest.approx(0.3)


def test_where_nobody_sampled_nothing_is_known_and_clocks_add_their_error():
    found = shares(sampled(("T", 0, 0), ("T", 0, 0)), 0, 4, error_ns=200_000_000)
    assert found.masses == {"T": 0.25, LETTERS: 0.75}
    assert found.error == pytest.approx(0.1)
    assert shares([], 0, 4).known == 0
    lacking = [Sample(0, "R", False, None, None), Sample(4 * S, "R", False, None, None)]
    assert shares(lacking, 0, 4).known == 0


def test_stays_are_exact_and_go_before_samples_and_a_pause_before_both():
    samples = sampled(*[("S", 0, 0)] * 5)
    found = shares(samples, 0, 4, [Stay(S, 3 * S, "W")], Monitor((Span(2 * S, 4 * S),), (Span(0, 2 * S),)))
    assert found.masses == {"SH": 0.25, "W": 0.25, "T": 0.5}


def test_exits_tell_the_guest_from_the_vmm():
    assert split(Shares({"GX": 0.9, "W": 0.1}), 0.3).masses == pytest.approx({"G": 0.3, "X": 0.6, "W": 0.1})
    assert split(Shares({"GX": 0.5}), 0.7).masses == {"G": 0.5}


@given(
    st.lists(st.tuples(st.sampled_from("RSDT"), st.integers(0, 100), st.integers(0, 100)), max_size=8),
    st.integers(0, 60), st.integers(1, 60),
)  # fmt: skip
def test_shares_sum_to_all_of_the_time(rows, since, length):
    found = shares(
        sampled(*((state, ran / 200, wait / 200) for state, ran, wait in rows)), since / 10, (since + length) / 10
    )
    assert sum(found.masses.values()) == pytest.approx(1)


#: (capture, whether its README says that `D` is frozen, row, owner): genuine runs.
REAL = (
    ("softlockup-host-freeze-default", True, "C1", Owner.VMM_PAUSE, Confidence.HIGH),
    ("softlockup-host-freeze-thresh3", True, "C1", Owner.VMM_PAUSE, Confidence.HIGH),
    ("rcu-stall-host-freeze", True, "C1", Owner.VMM_PAUSE, Confidence.HIGH),
    ("kmsg-clock-backwards", True, "C1", Owner.VMM_PAUSE, Confidence.HIGH),
    ("softlockup-victim-ipi-host-freeze", True, "C1", Owner.VMM_PAUSE, Confidence.HIGH),
    ("softlockup-guest-spin", False, "C7", Owner.GUEST_DRIVER, Confidence.MEDIUM),
    ("rcu-stall-guest-spin-default", False, "C7", Owner.GUEST_DRIVER, Confidence.MEDIUM),
    ("rcu-stall-guest-irqs-off", False, "C8", Owner.GUEST_DRIVER, Confidence.MEDIUM),
    ("hungtask-guest-mutex", False, "-", Owner.UNDETERMINED, Confidence.NONE),
    ("hungtask-host-iothread-freeze", False, "S4", Owner.UNDETERMINED, Confidence.NONE),
    ("hungtask-host-storage-throttle", False, "S4", Owner.UNDETERMINED, Confidence.NONE),
)


def of(name, freezer):
    (incident,) = _captures.incidents(name)
    window = Span(incident.since_ns, incident.since_ns + int(incident.duration.high * S))
    return incident, _captures.facts(name, window, freezer=freezer)


@pytest.mark.parametrize(("name", "freezer", "row", "owner", "confidence"), REAL, ids=[each[0] for each in REAL])
def test_real_runs_are_judged_right_or_not_at_all(name, freezer, row, owner, confidence):
    incident, facts = of(name, freezer)
    found = judge(incident, facts)
    assert (found.row, found.owner, found.confidence) == (row, owner, confidence), found
    alone = judge(incident, Facts.none())
    assert (alone.owner, alone.confidence) == (Owner.UNDETERMINED, Confidence.NONE)


@pytest.mark.parametrize("name", [name for name, freezer, *_ in REAL if freezer])
def test_real_runs_without_the_freezer_s_state_are_undetermined_and_say_what_lacks(name):
    found = judge(*of(name, freezer=False))
    assert found.owner is Owner.UNDETERMINED
    assert any(each.id == "H1" for each in found.missing)


def test_a_real_victim_is_not_blamed():
    found = judge(*of("softlockup-victim-ipi-host-freeze", freezer=True))
    assert found.sentence.startswith("CPU 1 stood still")


def test_a_real_pause_by_the_monitor_convicts_a_report_that_the_guest_did_not_print():
    # This guest printed nothing; the report is constructed, of the length of the pause as its host saw it.
    rows = [_captures.ahead_ns("vm-paused-30s", [{"mono": 9984.9209}])]
    since = int(9993.03 * S) - rows[0]
    facts = _captures.facts("vm-paused-30s", Span(since, since + 30 * S))
    incident = _cases.incident(kind=Kind.SOFT_LOCKUP, length_s=30.0)
    found = judge(incident, facts)
    assert (found.row, found.owner, found.confidence) == ("C1", Owner.VMM_PAUSE, Confidence.HIGH)
    facts.vcpus = dict.fromkeys(facts.vcpus, unknown("withheld"))
    assert judge(incident, facts).owner is Owner.UNDETERMINED


def test_a_wait_that_is_known_exactly_is_taken_out_of_what_was_counted_as_waiting_and_not_of_the_rest():
    one, two = Sample(0, "R", False, 0, 0, 5), Sample(10 * S, "R", False, S, 3 * S, 5)
    found = account([one, two], [Stay(0, 3 * S, "W")], Monitor(), Span(0, 10 * S), 0)
    assert (found.at_least("W"), found.at_least("GX")) == (pytest.approx(0.3), pytest.approx(0.1))
