"""Ten failures in one real guest: each is found, is one incident, and has its owner, or nobody where that cannot be known."""

import json
import subprocess
import sys

import pytest

from consumers.reports.report import Kind
from consumers.verdict.verdict import Confidence, Owner
from tests.guest import _bundle, lab, matrix
from tests.guest._kernel import GuestError
from tests.guest._python import ROOT
from tests.producers.bpf import _bpf

pytestmark = [pytest.mark.guest, pytest.mark.kernel]
#: Its guest never said again what time it was: the last seconds are not known, and may be too many.
DOUBTFUL = {"panic in a lockup"}
KINDS = {"soft": Kind.SOFT_LOCKUP, "rcu": Kind.RCU_STALL, "task": Kind.HUNG_TASK}
FAILURES = [case for case in matrix.CASES if case.owner is not None]


@pytest.fixture(scope="module")
def ran(kernel, tmp_path_factory):
    """Make all failures; return the folder, what was made by its name, and all incidents."""
    _bpf.skip_unless_loadable()
    folder = tmp_path_factory.mktemp("matrix")
    try:
        made = matrix.make_all(folder, _bundle.make(folder))
    except GuestError as e:
        pytest.skip(str(e))
    matrix.of_host(folder)
    found = matrix.judged(folder)
    print("\n".join(matrix.report(made, found)))
    return folder, {each.case.name: each for each in made}, found


def of(ran, case):
    _, made, found = ran
    return matrix.of_case(made[case.name], found)


def timeline(ran, name):
    folder, made, _ = ran
    words = ("timeline", "--lake", folder / "lake", "--vm", matrix.NAME, "--format", "json")
    window = lab.window(made[name].since_ns, made[name].until_ns)
    command = [sys.executable, "-m", "consumers.cli", *map(str, words), *window]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["rows"]


@pytest.mark.parametrize("case", FAILURES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_failure_is_one_incident(ran, case):
    (one,) = of(ran, case)
    assert one.incident.kind is KINDS[case.detector]


def test_there_are_no_other_incidents(ran):
    _, _, found = ran
    assert len(found) == len(FAILURES)


@pytest.mark.parametrize("case", FAILURES, ids=lambda case: case.name.replace(" ", "-"))
def test_it_has_its_owner_where_the_host_is_known(ran, case):
    (one,) = of(ran, case)
    if case.name not in DOUBTFUL or one.seen.owner is not Owner.UNDETERMINED:
        # A loop on a host that others keep busy shares its time with them, and neither is picked alone.
        assert case.owner in (one.seen.owner, one.seen.shared), one.seen
        assert one.seen.evidence


@pytest.mark.parametrize("case", FAILURES, ids=lambda case: case.name.replace(" ", "-"))
def test_nobody_is_named_where_the_host_is_not_known(ran, case):
    (one,) = of(ran, case)
    assert one.blind.owner in (Owner.UNDETERMINED, case.owner), one.blind
    assert one.blind.confidence in (Confidence.NONE, Confidence.LOW)
    assert one.blind.missing[0].remedy


def test_a_guest_that_was_paused_says_nothing_and_its_host_all(ran):
    _, made, found = ran
    assert matrix.of_case(made["VM paused"], found) == []
    said = [row["text"] for row in timeline(ran, "VM paused") if row["surface"] == "qmp"]
    assert [word for text in said for word in ("STOP", "RESUME") if word in text] == ["STOP", "RESUME"]


def test_what_the_monitor_told_of_the_panic_is_part_of_the_guests_own_incident(ran):
    (lockup,) = of(ran, matrix.CASES[-1])
    (panic,) = [each.incident for each in matrix.of_vm(ran[0])]
    assert (panic.kind, panic.ended_by, panic.joined) == (Kind.PANIC, "joined", lockup.incident.id)


def test_a_panic_is_told_by_the_monitor_alone(ran):
    rows = timeline(ran, "panic in a lockup")
    assert any("GUEST_PANICKED" in row["text"] for row in rows if row["surface"] == "qmp")
    assert not any("Kernel panic" in row["text"] for row in rows if row["surface"] == "kmsg")
