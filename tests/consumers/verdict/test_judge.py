"""The judge: withholding takes answers away and makes none; confidence needs what the rules say; the text alone."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.reports.report import Kind, Shape
from consumers.verdict.facts import HELPERS, NAMES, Facts, known, unknown
from consumers.verdict.judge import judge
from consumers.verdict.shares import LETTERS, Shares
from consumers.verdict.table import RULES_VERSION
from consumers.verdict.verdict import Confidence, Owner
from tests.consumers.verdict import _rows
from tests.consumers.verdict._cases import facts, incident, report, times, withheld

ORDER = [Confidence.NONE, Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH]
#: What the text may decide without the host: the marks of a test, thresholds, policy, daemons and design of the guest.
BY_TEXT = {"C13", "C14", "C15", "P1", "P3", "P4", "S5", "S8"}
KEYS = st.sampled_from([*LETTERS, "GX", "SH", "STH", LETTERS])
FLAGS = [name for name in NAMES if name not in ("lost", "clock_error_s", "exits", *HELPERS)]


@st.composite
def time_shares(draw):
    parts = draw(st.dictionaries(KEYS, st.integers(1, 20), min_size=1, max_size=4))
    total = sum(parts.values())
    return Shares({key: mass / total for key, mass in parts.items()}, draw(st.sampled_from([0.0, 0.02, 0.1])))


def maybe(values):
    return st.one_of(
        st.just(unknown("nobody looked")),
        st.builds(known, values),
        st.builds(lambda v: known(v, complete=False), values),
    )


@st.composite
def all_facts(draw):
    found = {name: draw(maybe(st.booleans())) for name in FLAGS}
    found |= {name: draw(maybe(time_shares())) for name in HELPERS}
    found |= {
        "lost": draw(maybe(st.sampled_from([0, 0, 3]))),
        "clock_error_s": draw(maybe(st.sampled_from([0.001, 5.0]))),
    }
    found["exits"] = draw(maybe(st.sampled_from(["userspace", "kernel"])))
    vcpus = {cpu: draw(maybe(time_shares())) for cpu in range(draw(st.integers(0, 3)))}
    return Facts(22.0, vcpus, **found)


def coarser(fact, keys):
    if fact.value is None:
        return fact
    masses = {}
    for key, mass in fact.value.masses.items():
        wide = "".join(letter for letter in LETTERS if letter in key + keys)
        masses[wide] = masses.get(wide, 0) + mass
    return replace(fact, value=Shares(masses, fact.value.error + (0.05 if keys else 0)))


def never_another(whole, part):
    claims = {whole.owner, whole.shared, *whole.beside} - {None}
    assert part.owner in claims | {Owner.UNDETERMINED}, (whole, part)
    assert {part.shared, *part.beside} - {None} <= claims, (whole, part)
    if part.owner is whole.owner:
        assert ORDER.index(part.confidence) <= ORDER.index(whole.confidence), (whole, part)
    if whole.owner is Owner.UNDETERMINED:
        assert part.owner is Owner.UNDETERMINED


# What a row needs, with a few other facts and other times: near to an answer, where one fact more or less matters.
@st.composite
def near_a_row(draw):
    case, other = draw(st.sampled_from(_rows.CASES)), draw(all_facts())
    names = draw(st.sets(st.sampled_from(NAMES), max_size=2))
    whole = replace(case.facts, **{name: getattr(other, name) for name in names})
    if draw(st.booleans()):
        whole.vcpus = {cpu: known(draw(time_shares())) for cpu in whole.vcpus}
    return case.incident, whole


@settings(max_examples=400)
@given(
    st.one_of(near_a_row(), st.tuples(st.sampled_from([case.incident for case in _rows.CASES]), all_facts())),
    st.sets(st.sampled_from(NAMES), max_size=4),
    st.sets(st.integers(0, 2)),
    st.sampled_from(["", "S", "TH", "GXWST"]),
)
def test_withholding_moves_to_undetermined_or_lowers_and_never_names_another(judged, names, cpus, keys):
    whose, whole = judged
    part = withheld(whole, names, cpus)
    part.vcpus = {cpu: coarser(fact, keys) for cpu, fact in part.vcpus.items()}
    never_another(judge(whose, whole), judge(whose, part))


@pytest.mark.parametrize("case", _rows.CASES, ids=lambda case: f"{case.row}-{case.name}".replace(" ", "-"))
def test_withholding_each_fact_of_each_row_names_no_other(case):
    whole = judge(case.incident, case.facts)
    for name in NAMES:
        never_another(whole, judge(case.incident, withheld(case.facts, (name,))))
    for cpu in case.facts.vcpus:
        never_another(whole, judge(case.incident, withheld(case.facts, (), (cpu,))))
    never_another(whole, judge(case.incident, Facts.none()))


@pytest.mark.parametrize("case", _rows.CASES, ids=lambda case: f"{case.row}-{case.name}".replace(" ", "-"))
def test_the_text_alone_is_at_most_low_and_undetermined_but_for_rows_of_its_own(case):
    alone = judge(case.incident, Facts.none())
    assert alone.confidence in (Confidence.LOW, Confidence.NONE)
    if alone.owner is not Owner.UNDETERMINED:
        assert alone.row in BY_TEXT
    assert alone.missing[0].text.startswith("any stream of the host")
    assert all(each.remedy for each in alone.missing)


@pytest.mark.parametrize(
    ("short", "lacks"),
    [
        ({"mapped": unknown("no topology")}, "M1"),
        ({"lost": known(3)}, "M2"),
        ({"lost": unknown("nobody counts")}, "M2"),
        ({"lost": known(0, complete=False)}, "M2"),
        ({"clock_error_s": known(2.3)}, "M2"),
        ({"clock_error_s": unknown("not comparable")}, "M2"),
        ({"vcpus": {1: times(T=0.9)}}, "H1"),
    ],
)
def test_what_high_needs_and_is_not_there_is_told(short, lacks):
    whole = facts(times(T=0.96, GX=0.04))
    assert judge(incident(), whole).confidence is Confidence.HIGH
    found = judge(incident(), replace(whole, **short))
    assert (found.owner, found.confidence) == (Owner.VMM_PAUSE, Confidence.MEDIUM)
    assert [each.id for each in found.missing] == [lacks]


@pytest.mark.parametrize(("known_share", "confidence"), [(0.05, Confidence.HIGH), (0.04, Confidence.MEDIUM)])
def test_of_a_thread_that_convicts_most_of_the_time_must_be_known_for_high(known_share, confidence):
    (case,) = (each for each in _rows.CASES if each.name == "vhost starved")
    found = judge(case.incident, facts(vhost=times(W=0.9, X=known_share, GXWSTH=0.1 - known_share)))
    assert (found.owner, found.confidence) == (Owner.HOST_CPU, confidence)


def test_an_incident_of_which_lines_were_left_out_is_never_high():
    found = judge(replace(incident(), skipped=12), facts(times(T=0.96, GX=0.04)))
    assert (found.owner, found.confidence) == (Owner.VMM_PAUSE, Confidence.MEDIUM)
    assert [each.text.partition(" ")[0] for each in found.missing] == ["12"]


def test_a_clock_may_be_as_wrong_as_a_tenth_of_the_length_or_100_ms():
    for length_s, error_s, confidence in (
        (22.0, 2.2, "high"),
        (22.0, 2.21, "medium"),
        (0.5, 0.1, "high"),
        (0.5, 0.11, "medium"),
    ):
        whole = facts(times(T=1.0), length_s=length_s, clock_error_s=known(error_s))
        assert judge(incident(length_s=length_s), whole).confidence == confidence


# What proves nothing by not being there.
@pytest.mark.parametrize(
    "silent",
    [
        {"rt_line": known(False)},
        {"io_timeout": known(False)},
        {"host_lockup": known(False)},
        {"vcpus": {1: times(GXWSTH=1.0)}},
        {"vcpus": {1: times(W=0.0, GXSTH=1.0)}},
    ],
)
def test_silence_acquits_no_host_and_convicts_no_guest(silent):
    found = judge(incident(frames=_rows.LOOP), replace(facts(), **silent))
    assert found.owner is Owner.UNDETERMINED
    assert not {Owner.VMM_PAUSE, Owner.HOST_MEMORY, Owner.VMM_BUG} & {each.owner for each in found.rejected}
    zeros = report(Kind.RCU_STALL, shape=Shape.NO_ROW, numbers={"cputime_ms": 0})
    assert judge(incident(zeros), Facts.none()).rejected == ()
    hung = _rows.hung()
    assert Owner.STORAGE_BACKEND not in {each.owner for each in judge(hung, facts(io_timeout=known(False))).rejected}


def test_who_was_considered_and_is_not_it_is_told_with_the_measure():
    found = judge(incident(), facts(times(T=0.96, GX=0.03, W=0.01)))
    reasons = {each.owner: each.reason for each in found.rejected}
    assert reasons[Owner.HOST_CPU] == "vCPU 1 was waiting for a CPU of the host for 0.01 of the time"
    assert Owner.GUEST_KERNEL in reasons
    assert Owner.INJECTED not in reasons


def test_evidence_of_the_host_goes_before_the_guest_s_and_what_speaks_against_is_told():
    ran = incident(report(Kind.RCU_STALL, shape=Shape.RAN, frames=_rows.LOOP))
    found = judge(ran, facts(times(T=0.97, GX=0.03)))
    assert found.owner is Owner.VMM_PAUSE
    assert [each.text for each in found.evidence if each.against] == [
        "the report's ticks say that the CPU ran all along (shape A)"
    ]


def test_the_accusation_follows_to_the_vcpu_that_was_away_where_the_text_names_none():
    victim = incident(cpus=(0,), frames=_rows.IPI)
    whole = facts(times(GX=0.99, W=0.01), cpu=0)
    whole.vcpus |= {1: times(T=0.98, GX=0.02), 2: times(SH=0.6, GX=0.4)}
    found = judge(victim, whole)
    assert (found.row, found.owner) == ("C1", Owner.VMM_PAUSE)
    assert found.sentence.startswith("CPU 1 stood still")
    assert found.evidence[0].text == "C10: CPU 0 waited for CPU 1, which did not answer"
    for unsure in (
        {"mapped": unknown("")},
        {"vcpus": whole.vcpus | {2: unknown("")}},
        {"vcpus": whole.vcpus | {2: times(T=0.98, GX=0.02)}},
    ):
        assert judge(victim, replace(whole, **unsure)).row == "C10"


def test_an_injection_is_told_with_what_it_was_made_with():
    found = judge(incident(), facts(times(T=0.97, GX=0.03), marker=True))
    assert (found.owner, found.beside) == (Owner.INJECTED, (Owner.VMM_PAUSE,))


def test_all_accused_cpus_must_agree():
    both = incident(report(Kind.RCU_STALL, cpus=(0, 1), shape=Shape.NOTHING_RAN))
    whole = facts(times(T=0.97, GX=0.03))
    assert judge(both, whole).owner is Owner.UNDETERMINED
    whole.vcpus[0] = times(T=0.9, GX=0.1)
    assert judge(both, whole).owner is Owner.VMM_PAUSE
    whole.vcpus[0] = times(T=0.1, GX=0.9)
    assert judge(both, whole).owner is Owner.UNDETERMINED


def test_a_verdict_carries_the_version_of_the_rules_and_is_the_same_again():
    for case in _rows.CASES:
        found = judge(case.incident, case.facts)
        assert found.rules == RULES_VERSION
        assert found == judge(case.incident, case.facts)


def test_a_panic_alone_is_undetermined():
    found = judge(incident(report(Kind.PANIC, cpus=(), length_s=None)), facts(times(T=1.0)))
    assert (found.owner, found.row) == (Owner.UNDETERMINED, "-")
