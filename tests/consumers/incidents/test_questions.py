"""Answers follow the data: each fact that changes, changes what is said, and what nobody measured is said to be so."""

import pytest

from consumers.alerts.payload import Whose
from consumers.coverage import Answer, Span
from consumers.incidents.around import Around, Arrival, Cost, Threshold, Unplaced, Vcpu, Watch
from consumers.incidents.page_timeline import Told
from consumers.incidents.questions import About, ask
from consumers.incidents.stored import Stored
from consumers.incidents.utc import Utc
from consumers.timeline.entries import Entry, Kind
from consumers.verdict.table import RULES_VERSION
from consumers.verdict.verdict import Confidence, Evidence, Owner, Verdict
from schemas.stream import Stream
from tests.consumers._sample import START_NS
from tests.consumers.incidents._reports import SOURCE, play, report, soft
from tests.consumers.timeline.test_page import made

S = 10**9
KMSG = Stream(*SOURCE, "kmsg", "", "printk")
RING = Stream("h", "hb", "host", "ftrace", "sched/cpu0", "mono")
C2 = Verdict(
    Owner.HOST_CPU, Confidence.HIGH, "C2", RULES_VERSION, "CPU 1 stood still, because the host had no CPU for it",
    (Evidence("G1", "the report's ticks say that the CPU ran all along", against=True),), beside=(Owner.GUEST_POLICY,),
)  # fmt: skip
NOTHING = Around(
    None, "no clock was read", "no clock was read", "", None, 0, "no host names it", "", ("m",), "", (), (), None, (), (),
    (), (), Unplaced(),
)  # fmt: skip


def answers(around=None, verdict=C2, reports=None, entries=(), **fields):
    """Return the lines under each question, by its number from 1."""
    (incident,) = play(*(reports or [soft(1, 100, 22)])).incidents
    for name, value in fields.items():
        setattr(incident, name, value)
    stored = Stored(incident, verdict, Whose("web-7", "h"), START_NS, START_NS, None, 1, ())
    timeline = made(["x"])._replace(entries=list(entries), left_out=0)
    about = About(stored, around or NOTHING, Told(timeline, "", ""), {})
    return {number: answered.lines for number, answered in enumerate(ask(about), 1)}


def changed(**fields):
    return Around(**{name: getattr(NOTHING, name) for name in Around.__slots__} | fields)


def test_there_are_seven_and_each_has_an_answer_though_nothing_is_known():
    found = answers(verdict=None)
    assert sorted(found) == [1, 2, 3, 4, 5, 6, 7]
    assert all(found.values())
    assert found[2][0] == "not known below what the lines accuse"
    assert found[7] == ("nothing yet: no verdict was given that could be wrong",)
    assert [line for line in found[6] if "not measured" in line] == list(found[6])


def test_who_may_have_written_the_lines():
    assert "every line is a record of facility 0" in answers()[1][1]
    assert "which any program of the guest can write" in answers(structured=False)[1][1]
    assert "the verdict is that another layer failed: host_cpu" in answers()[1]


def test_the_resource_is_the_owner_s_with_what_else_is_true_and_the_thread_of_the_host():
    found = answers(changed(vcpus=(Vcpu(1, 4104),)))[2]
    assert found[0] == "CPU time of the host (host_cpu, high confidence)"
    assert found[1] == "and as well: the guest's own scheduling policy (guest_policy)"
    assert "CPU 1 is thread 4104 of the host" in found[2]
    assert "which threads of a host run these is not known" in answers()[2][2]


def test_clocks_are_told_with_bounds_or_why_not():
    utc = Utc(START_NS, 1_500_000, "h")
    whole = changed(at=Span(78 * S, 100 * S), since=utc, until=utc, host="h", host_at=Span(S, 2 * S), host_error_ns=900)
    found = answers(whole)[3]
    assert found[1].startswith("UTC by the clock of h: 2026-03-02 09:00:00.000 to 2026-03-02")
    assert found[1].endswith("each within 1.5 ms")
    assert found[2] == "CLOCK_BOOTTIME of host h: 1.000000 to 2.000000 s, each within 900 ns"
    half = answers(changed(at=Span(78 * S, 100 * S), since=utc))[3]
    assert half[1:3] == ("not comparable with UTC: no clock was read", "not comparable with a host: no host names it")


def test_losses_and_watching_are_told_stream_by_stream():
    loss = Entry(Kind.LOSS, KMSG, "printk", None, 0, "60 positions lost", at_ns=START_NS)
    watches = (
        Watch(KMSG, Answer.PARTLY, 3 * S),
        Watch(RING, Answer.YES, 0),
        Watch(RING._replace(instance="sched/cpu1"), Answer.YES, 0),
        Watch(KMSG._replace(surface="procfs"), None, 0),
    )
    assert answers(changed(watches=watches), entries=[loss])[4] == (
        "kmsg of m: 60 positions lost",
        "watched: yes: ftrace/sched of h (2 rings)",
        "watched: partly: kmsg of m (not for 3.0 s)",
        "watched: not comparable: procfs of m",
        "where nobody watched, silence proves nothing",
    )
    assert answers()[4][0].startswith("no stream lost a record")
    assert "lines of its reports are damaged or missing" in answers(corrupted=True)[4]
    assert any("1,500 records were left out" in each for each in answers(skipped=1500)[4])


@pytest.mark.parametrize(
    ("late_s", "said"), [(2, "2.000 s after it was printed, within 900 ns"), (-1, "1.000 s before (the clocks differ)")]
)
def test_when_a_line_was_durable(late_s, said):
    came = Arrival(1000, 100 * S, START_NS + S, START_NS + late_s * S, Utc(START_NS, 900, "h"))
    found = answers(changed(arrivals=(came,), behind=(1000, 100 * S)))[5]
    assert said in found[0]
    assert any(line.startswith("had the machine died within 2.0 s") for line in found) is (late_s > 0)
    assert any(line.startswith("nothing of this boot's log came behind it") for line in found)


def test_what_only_pstore_could_have_is_told_of_a_panic():
    lacks = "what the kernel printed last, in its panic, may be there alone"
    assert lacks not in " ".join(answers()[5])
    assert lacks in " ".join(answers(reports=[soft(1, 100, 22), report("panic", 100.1)])[5])
    kept = Watch(KMSG._replace(surface="pstore"), Answer.YES, 0)
    assert "the lake has 1 stream of pstore" in answers(changed(watches=(kept,)))[5]


def test_costs_are_measured_or_said_not_to_be():
    costs = (Cost("m", "vcpu", 1000, 50_000_000, 10 * S), Cost("h", "block-io", None, None, 10 * S))
    found = answers(changed(costs=costs, read=(("m", "kmsg", 12, 3), ("m", "clocks", 0, 3))))[6]
    assert found[0] == "BPF program vcpu on m: 1,000 runs took 50.0 ms of 10.0 s, 0.50 % of one CPU"
    assert found[1].startswith("BPF program block-io on h: not measured")
    assert found[2] == "the agent of m read 12 of kmsg in that time; its CPU time: not measured"


def test_what_no_row_was_looked_for_is_not_said_to_be_absent():
    absent = answers()[6]
    assert absent[0] == "BPF programs: not measured, the lake has no counts of any in that time"
    assert absent[1] == "the agents' own load: not measured, no heartbeat lies in that time"
    assert absent[2] == "thresholds: not measured, nobody read those of this kernel (surface procfs)"
    machine = SOURCE[0]
    unknown = answers(changed(unplaced=Unplaced((machine,), (machine, "h"))))[6]
    assert unknown == (
        f"BPF programs: not measured, when that was on the clock of these on {machine}, h is not known",
        f"the agents' own load: not measured, when that was on the clock of these on {machine} is not known",
        f"thresholds: not measured, when that was on the clock of these on {machine} is not known",
    )
    # The thresholds are the guest's: its host's clocks do not matter.
    assert answers(changed(unplaced=Unplaced(("h",), ("h",))))[6][2] == absent[2]


def test_thresholds_that_differ_are_told_with_what_kernels_come_with():
    low = (Threshold("watchdog_thresh_s", 10, 3), Threshold("rcu_stall_timeout_s", 21, 21))
    assert answers(changed(thresholds=low))[6][-1] == (
        "threshold watchdog_thresh_s was 3 (kernels come with 10, 10 when it was first read); hypocenter sets none"
    )
    usual = (Threshold("watchdog_thresh_s", 10, 10),)
    assert answers(changed(thresholds=usual))[6][-1] == (
        "thresholds were the kernel's usual ones: watchdog_thresh_s 10"
    )


def test_what_would_prove_it_wrong_follows_from_the_row():
    found = answers()[7]
    assert found[0] == ("the vCPU was something else than waiting for a CPU of the host for more than 0.5 of the time")
    assert found[1].startswith("already speaks against it: the report's ticks")
    assert any(line.startswith("it is vmm_pause if ") for line in found)
    assert not any(line.startswith("it is guest_policy") for line in found)  # told beside it
