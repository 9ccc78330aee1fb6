"""The verb: a stored incident is judged again, with its host and without, as text and as JSON."""

import json

import pytest

from tests.consumers.verdict import _lake
from tests.consumers.verdict._lake import SCENARIOS


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    path = tmp_path_factory.mktemp("verdict") / "lake"
    _lake.alert(_lake.build(path, SCENARIOS["frozen"]), SCENARIOS["frozen"])
    return path


@pytest.fixture(scope="module")
def incident():
    return _lake.incident(SCENARIOS["frozen"].dump).id


def test_a_verdict_says_who_how_sure_and_by_what(run, lake, incident):
    done = run("verdict", "--lake", lake, "--incident", incident)
    assert done.code == 0, done.err
    assert done.lines[0] == "CPU 1 stood still for 23.0 s, because it was paused, stopped or frozen."
    assert "owner       vmm_pause" in done.lines
    assert "confidence  high" in done.lines
    assert any(line.startswith("row         C1 of rules ") for line in done.lines)
    assert any(f"table vcpu_time: vcpu-time of {_lake.HOST.machine}, " in line for line in done.lines)
    assert "  host_cpu: vCPU 1 was waiting for a CPU of the host for 0.00 of the time" in done.lines
    assert run("verdict", "--lake", lake, "--incident", incident).out == done.out


def test_withheld_it_is_undetermined_and_says_how_to_get_what_lacks(run, lake, incident):
    words = ("verdict", "--lake", lake, "--incident", incident, "--withhold", "host", "--withhold", "virtual-platform")
    found = json.loads(run(*words, "--format", "json").out)
    assert (found["owner"], found["confidence"], found["withheld"]) == (
        "undetermined",
        "none",
        ["host", "virtual-platform"],
    )
    assert found["missing"][0]["remedy"]
    text = run(*words)
    assert "withheld    host, virtual-platform" in text.lines
    assert "missing" in text.lines


def test_json_has_the_evidence_with_its_places(run, lake, incident):
    found = json.loads(run("verdict", "--lake", lake, "--incident", incident[:8], "--format", "json").out)
    assert (found["incident_id"], found["owner"], found["row"], found["shared"]) == (incident, "vmm_pause", "C1", None)
    (measured,) = [each for each in found["evidence"] if each["id"] == "H1"]
    places = {each["table"]: each for each in measured["records"]}
    assert places["vcpu_time"]["machine"] == _lake.HOST.machine
    assert 0 < places["vcpu_time"]["first"] < places["vcpu_time"]["last"]
    assert {each["owner"] for each in found["rejected"]} >= {"host_cpu", "guest_kernel"}


def test_a_wrong_id_and_a_wrong_layer_are_refused(run, lake, incident):
    done = run("verdict", "--lake", lake, "--incident", "0" * 20)
    assert (done.code, done.out) == (2, "")
    assert "`hypocenter incidents` lists them" in done.err
    done = run("verdict", "--lake", lake, "--incident", incident, "--withhold", "hots")
    assert (done.code, "hots" in done.err) == (2, True)
