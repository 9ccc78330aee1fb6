"""What the host alone can raise, of a real guest: a panic, a VM that stays stopped; and a hung task that goes on."""

import pytest

from consumers.incidents import stored
from consumers.lake.layout import open_lake
from consumers.reports.report import Kind
from consumers.verdict.verdict import Confidence, Owner
from tests.guest import _bundle, matrix
from tests.guest._kernel import GuestError
from tests.producers.bpf import _bpf

pytestmark = [pytest.mark.guest, pytest.mark.kernel]


@pytest.fixture(scope="module")
def found(kernel, tmp_path_factory):
    """Make the failures; return the newest version of each incident by its kind."""
    _bpf.skip_unless_loadable()
    folder = tmp_path_factory.mktemp("monitor")
    try:
        matrix.make_all(folder, _bundle.make(folder), matrix.MONITORED)
    except GuestError as e:
        pytest.skip(str(e))
    matrix.of_host(folder)
    storage = open_lake(folder / "lake", create=False)
    every = [stored.read(storage, row["incident_id"]) for row in stored.newest(storage)]
    print("\n".join(f"{each.incident.kind} {each.incident.state} {each.incident.ended_by}" for each in every))
    assert len({each.incident.kind for each in every}) == len(every), "each failure is one incident, and a pause none"
    return {each.incident.kind: each for each in every}


def test_each_failure_is_one_incident_and_a_short_pause_none(found):
    assert set(found) == {Kind.HUNG_TASK, Kind.VM_STOPPED, Kind.PANIC}


def test_a_hung_task_ends_when_it_goes_on(found):
    hung = found[Kind.HUNG_TASK].incident
    assert (hung.ended_by, hung.proof.split()[0]) == ("progress", "procfs_blocked")


def test_a_vm_that_stays_paused_is_told_with_its_owner_and_ends_when_it_runs(found):
    stopped = found[Kind.VM_STOPPED]
    assert (stopped.incident.ended_by, stopped.whose.vm) == ("progress", matrix.NAME)
    assert 13 < stopped.incident.duration.high < 20
    assert (stopped.verdict.owner, stopped.verdict.confidence) == (Owner.VMM_PAUSE, Confidence.HIGH)


def test_a_panic_whose_text_never_came_is_told(found):
    panic = found[Kind.PANIC]
    assert (panic.incident.vm, panic.incident.source.layer) == (matrix.NAME, "virtual-platform")
    assert panic.verdict.owner is Owner.UNDETERMINED
