"""What Alertmanager is told: labels that never change, annotations without tricks, times as it wants them."""

import pytest

from consumers.alerts.payload import Whose, annotations, labels, length, plain, postable
from consumers.incidents.incident import Source, State
from consumers.reports.report import Kind, Seconds
from consumers.verdict.verdict import Confidence, Missing, Owner, Verdict
from tests.consumers.alerts._cases import S, alert, incident

VERDICT = Verdict(
    Owner.VMM_PAUSE, Confidence.MEDIUM, "C1", 7, "it was paused", missing=(Missing("H4", "QMP", "name its socket"),)
)
GUEST = Whose("web-1", "host-1")


def test_labels_say_which_it_is_and_whose():
    found = labels(incident(), GUEST)
    assert found == {
        "alertname": "GuestIncident",
        "kind": "soft_lockup",
        "layer": "guest-kernel",
        "host": "host-1",
        "vm": "web-1",
        "machine": "m1",
        "boot_id": "b1",
        "incident_id": "i1",
    }


def test_no_label_is_empty_and_a_hosts_host_is_itself():
    found = labels(incident(source=Source("h9", "b", "host")), Whose())
    assert (found["alertname"], found["host"]) == ("HostIncident", "h9")
    assert "vm" not in found
    assert "host" not in labels(incident(), Whose())


def test_whatever_becomes_of_it_its_labels_stay():
    before = labels(incident(), GUEST)
    grown = incident(state=State.ENDED, ended_by="reboot")
    grown.kind, grown.cpus, grown.panicked, grown.version = Kind.RCU_STALL, (1, 2), True, 9
    assert labels(grown, GUEST) == before


def test_annotations_say_what_is_known():
    found = annotations(incident(), VERDICT, GUEST)
    assert found["summary"] == "soft lockup on CPU 3 in guest-kernel of VM web-1 on host host-1, 22 s: going on"
    assert found["description"] == "it was paused"
    assert (found["owner"], found["confidence"], found["row"], found["rules"]) == ("vmm_pause", "medium", "C1", "7")
    assert (found["length"], found["cpus"], found["task"]) == ("22 s", "3", "stress:77")
    assert found["missing"] == "H4: QMP (name its socket)"
    assert "" not in found.values()


def test_a_panic_is_told_with_its_reason_before_it_is_judged():
    found = incident(kind=Kind.PANIC, panicked=True)
    found.root.kind, found.root.notes = Kind.PANIC, ("Kernel panic - not syncing: Fatal exception\x1b[2J",)
    summary = annotations(found, None, GUEST)["summary"]
    assert summary.startswith("panic (Fatal exception?[2J) on CPU")
    assert "then a panic" not in summary


def test_before_a_verdict_nobody_is_named():
    found = annotations(incident(), None, Whose())
    assert (found["owner"], found["description"]) == ("undetermined", "not judged yet")


def test_a_guest_cannot_write_control_characters_nor_without_end_into_a_page():
    hostile = incident()
    hostile.task = "\x1b[2J\n<script>\u202e" + "x" * 10_000
    hostile.victims = tuple(f"victim {number}\n" for number in range(1000))
    found = annotations(hostile, None, Whose())
    assert all(value.isprintable() for value in found.values())
    assert all(len(value) < 8192 for value in found.values())
    assert found["victims"].endswith("and 984 more")


@pytest.mark.parametrize(
    ("duration", "text"),
    [(None, ""), (Seconds(22.0, 22.0), "22 s"), (Seconds(21.008, 84.0), "21 to 84 s"), (Seconds(0.25, 0.25), "0.2 s")],
)
def test_a_length_for_people(duration, text):
    assert length(duration) == text


def test_plain_cuts_visibly():
    assert plain("abc", 3) == "abc"
    assert plain("abcdef", 5) == "ab..."


def test_times_are_rfc3339_and_an_end_is_never_before_the_start():
    body = postable(alert(ended_ns=S // 2), 100 * S, 60 * S)
    assert body["startsAt"] == body["endsAt"] == "1970-01-01T00:00:00.500000000Z"
    assert postable(alert(), 100 * S, 60 * S)["endsAt"] == "1970-01-01T00:02:40.000000000Z"
    assert postable(alert(ended_ns=2 * S), 100 * S, 60 * S, hold=True)["endsAt"] == "1970-01-01T00:02:40.000000000Z"
