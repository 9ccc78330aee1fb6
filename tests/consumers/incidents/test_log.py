"""Lines to incidents: the same from any batches, and after a restart between any two."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.incidents import codec
from consumers.incidents.incident import Source
from consumers.incidents.log import LogIncidents
from consumers.reports.kmsg_record import kmsg_line
from tests.consumers.incidents._logs import CAPTURES

SOURCE = Source("machine", "boot", "guest-kernel")
NAMES = sorted(path.stem for path in CAPTURES.glob("*.kmsg"))


def lines_of(name):
    raws = (CAPTURES / f"{name}.kmsg").read_bytes().splitlines()
    return [line for raw in raws if not raw.startswith(b" ") and (line := kmsg_line(raw)) is not None]


def run(lines, cuts=(), *, restarts=False):
    log, told, at = LogIncidents(SOURCE), [], 0
    for cut in (*cuts, len(lines)):
        told += map(codec.encode, log.feed(lines[at:cut]))
        at = cut
        if restarts:
            log = LogIncidents.restore(SOURCE, json.loads(json.dumps(log.state())))
    told += map(codec.encode, log.rebooted())
    return told


def final(told):
    return list({codec.decode(text).id: text for text in told}.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_version_is_newer_than_the_one_before(name):
    versions = {}
    for incident in map(codec.decode, run(lines_of(name), range(1000))):
        assert incident.version > versions.get(incident.id, 0)
        versions[incident.id] = incident.version
    assert all(codec.decode(text).ended_by == "reboot" for text in final(run(lines_of(name))))


@settings(max_examples=60)
@given(st.sampled_from(NAMES), st.lists(st.integers(0, 150), max_size=8), st.booleans())
def test_batches_and_restarts_change_no_byte(name, cuts, restarts):
    lines = lines_of(name)
    cuts = sorted(min(cut, len(lines)) for cut in cuts)
    assert final(run(lines, cuts, restarts=restarts)) == final(run(lines))


@pytest.mark.parametrize("name", NAMES)
def test_a_restart_after_each_line_tells_the_same_story(name):
    lines = lines_of(name)
    each = range(1, len(lines))
    assert run(lines, each, restarts=True) == run(lines, each)


def test_the_start_line_alone_makes_an_incident_at_once():
    lines = lines_of("softlockup-guest-spin")
    at = next(i for i, line in enumerate(lines) if "soft lockup" in line.text)
    log = LogIncidents(SOURCE)
    assert log.feed(lines[:at]) == []
    (incident,) = log.feed(lines[at : at + 1])
    assert (incident.kind, incident.cpus, incident.version) == ("soft_lockup", (1,), 1)


def test_time_without_lines_closes_the_report_and_makes_it_stale():
    log = LogIncidents(SOURCE)
    lines = lines_of("softlockup-guest-spin")
    log.feed(lines)
    log.tick(lines[-1].ts_ns + 3_000_000_000)
    assert log.reports.open_reports == ()
    (incident,) = log.tick(lines[-1].ts_ns + 600_000_000_000)
    assert incident.state == "stale"
