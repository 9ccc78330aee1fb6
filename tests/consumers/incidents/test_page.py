"""What a woken engineer reads, and the object that a program reads, say the same and no more than the lines."""

import json
import re
from pathlib import Path

import pytest

from consumers.incidents import page, scan
from consumers.reports.report import Kind, Report, Seconds, Shape
from consumers.verdict.verdict import Confidence, Evidence, Missing, Owner, Rejected, Verdict
from tests.consumers.incidents._reports import hung, play, report, soft, stack

VERDICT = Verdict(
    Owner.UNDETERMINED,
    Confidence.NONE,
    "-",
    1,
    "Nobody can say from this.",
    (Evidence("G1", "its stack"),),
    (Missing("H1", "what the vCPU's thread did", "run the agent on the host"),),
    (Rejected(Owner.INJECTED, "no marker"),),
)


def victim_and_root():
    victim = soft(0, 14.47, 8, "insmod", 138, lines=stack("smp_call_function_many_cond"))
    return play(victim, soft(1, 20.4, 14, "sh", 137, frames=("a_loop", "b"), release="6.1.0")).incidents[0]


def test_two_sentences_come_first_then_facts_then_what_is_missing():
    said = page.text(victim_and_root(), VERDICT, 1)
    lines = said.splitlines()
    assert lines[0] == "1. soft lockup on CPUs 0, 1, 14 s, lines 144 to 204"
    told = " ".join(" ".join(lines[1 : lines.index("")]).split())
    assert told == (
        "CPU 1 did not schedule for 14 s; `sh` (pid 137) was on it; CPU 0 waited for an answer of it. "
        "The owner is undetermined: this text cannot say whether CPU 1 looped in its kernel or was not run by its host."
    )
    assert "also named  insmod:138" in said and "2 x soft lockup (line 144, 204)" in said
    assert "H1: what the vCPU's thread did" in said and "next time   run the agent on the host" in said
    assert (
        said.index("owner")
        < said.index("stack")
        < said.index("evidence")
        < said.index("missing")
        < said.index("   not ")
    )


def test_the_object_has_every_key_that_the_page_about_it_names_and_no_other():
    made = page.json_object(victim_and_root(), VERDICT, "a.log", 1)
    text = (Path(page.__file__).parent / "TRIAGE.md").read_text()
    rows = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row)} | {"start_lines_dropped"}
    assert set(made) == described
    assert f"beyond {scan._LIMITS.start_lines_max:,} " in text
    again = json.loads(json.dumps(made))
    assert again["start_lines"] == [{"line": 144, "kind": "soft_lockup"}, {"line": 204, "kind": "soft_lockup"}]
    assert (again["cpu"], again["duration_s"], again["owner"], again["row"]) == (1, 14.0, "undetermined", "-")
    assert again["missing"] == [VERDICT.missing[0]._asdict()]


def test_a_length_that_is_a_range_is_no_number():
    (incident,) = play(report("rcu_stall", 100, cpus=(1,), flavor="rcu_sched")).incidents
    incident.duration = Seconds(2.1, 21.0)
    made = page.json_object(incident, VERDICT, "a.log", 1)
    assert (made["duration_s"], made["duration_low_s"], made["duration_high_s"]) == (None, 2.1, 21.0)
    assert "2.1 to 21 s" in page.text(incident, VERDICT, 1)


def test_a_blocked_task_is_known_by_the_frame_below_what_every_waiting_task_has():
    (incident,) = play(
        hung(5, 100, 122, "schedule", "io_schedule", "folio_wait_bit_common", "ext4_sync_file")
    ).incidents
    made = page.json_object(incident, VERDICT, "a.log", 1)
    assert made["anchor"] == "ext4_sync_file" and made["cpu"] is None


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_sentence_even_when_all_of_it_is_lost(kind):
    (incident,) = play(Report(kind, 1, None, structured=False, corrupted=True)).incidents
    told = page.sentence(incident)
    assert told.endswith(".") and "None" not in told
    assert "None" not in page.text(incident, VERDICT, 1)


def test_every_shape_has_a_reading():
    assert set(page.SHAPES) == set(Shape) and set(page.NAMES) == set(Kind)


def test_a_panic_is_said_with_what_it_was_over():
    (incident,) = play(soft(1, 100, 22), report("panic", 100.1)).incidents
    assert page.sentence(incident).endswith("and the kernel panicked over it.")


def test_a_panic_alone_is_said_with_its_own_reason():
    notes = ("Kernel panic - not syncing: Fatal exception",)
    (incident,) = play(report("panic", 100, cpus=(2,), task="sh", pid=7, notes=notes)).incidents
    assert page.sentence(incident) == "The kernel panicked: Fatal exception; `sh` (pid 7) was on CPU 2."
