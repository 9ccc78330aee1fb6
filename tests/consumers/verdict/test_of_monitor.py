"""Incidents that a VM's monitor told, collected, raised and judged by the real programs out of a log."""

import pytest

from consumers.cli import main
from consumers.incidents import stored
from consumers.lake.layout import open_lake
from consumers.reports.report import Kind
from consumers.verdict.gather import gather
from consumers.verdict.judge import judge
from consumers.verdict.verdict import Confidence, Owner
from schemas.surfaces import TOPIC_STATE
from tests.consumers.alerts._monitors import Monitor
from tests.consumers.incidents._lakes import run


def stopped(*frames, status):
    """Return the frames of a VM that stands for 40 s, and whose monitor says so."""
    monitor = Monitor()
    monitor.at_ns -= 60 * 10**9
    monitor.beaten_ns = monitor.at_ns
    found = [monitor.beats(5), *(monitor.event(name, **data) for name, data in frames)]
    for _ in range(4):
        found += [monitor.status(status), monitor.beats(0.1)]
    return [*found, monitor.beats(5)]


STORIES = {
    "paused": (stopped(("STOP", {}), status="paused"), Kind.VM_STOPPED, Owner.VMM_PAUSE, Confidence.HIGH, "V3"),
    "disk": (
        stopped(("BLOCK_IO_ERROR", {"action": "stop", "device": "d0"}), ("STOP", {}), status="io-error"),
        Kind.VM_STOPPED, Owner.STORAGE_BACKEND, Confidence.HIGH, "V1",
    ),
    "internal": (stopped(("STOP", {}), status="internal-error"), Kind.VM_STOPPED, Owner.VMM_BUG, Confidence.MEDIUM, "V2"),
    "panic": (stopped(("GUEST_PANICKED", {"action": "run"}), status="running"), Kind.PANIC, Owner.UNDETERMINED, Confidence.NONE, "V4"),
    "watchdog": (stopped(("WATCHDOG", {"action": "none"}), status="running"), Kind.WATCHDOG, Owner.UNDETERMINED, Confidence.NONE, "V5"),
}  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
def test_it_is_found_judged_and_shown(tmp_path, capsys, name):
    frames, kind, owner, confidence, row = STORIES[name]
    lake = run(tmp_path, [(TOPIC_STATE, each) for each in frames])
    storage = open_lake(lake, create=False)
    (one,) = stored.newest(storage)
    found = stored.read(storage, one["incident_id"])
    assert (found.incident.kind, found.incident.vm, found.whose) == (kind, "web-7", ("web-7", "h1"))
    verdict = judge(found.incident, gather(storage, found.incident))
    assert (verdict.owner, verdict.confidence, verdict.row) == (owner, confidence, row), verdict
    assert verdict == found.verdict
    withheld = judge(found.incident, gather(storage, found.incident, {"host", "virtual-platform"}))
    assert withheld.owner is Owner.UNDETERMINED
    capsys.readouterr()
    assert main(["incidents", "show", found.incident.id, "--lake", str(lake)]) == 0
    page = capsys.readouterr().out
    assert "QEMU's monitor of VM web-7, on host h1" in page
    assert "CLOCK_BOOTTIME of h1" in page
    assert "printk" not in page
    assert (
        main(["incidents", "show", found.incident.id, "--lake", str(lake), "--html", str(tmp_path / "page.html")]) == 0
    )
    assert main(["incidents", "--lake", str(lake), "--kind", kind]) == 0
    listed = capsys.readouterr().out
    assert "kernel" not in listed.splitlines()[-1]
    assert main(["verdict", "--lake", str(lake), "--incident", found.incident.id]) == 0


def test_who_was_not_watched_all_along_is_judged_less_surely(tmp_path):
    monitor = Monitor()
    frames = [monitor.event("STOP"), monitor.status("paused"), monitor.status("paused")]
    storage = open_lake(run(tmp_path, [(TOPIC_STATE, each) for each in frames]), create=False)
    verdict = stored.read(storage, stored.newest(storage)[0]["incident_id"]).verdict
    assert (verdict.owner, verdict.confidence) == (Owner.VMM_PAUSE, Confidence.MEDIUM)
    assert [each.id for each in verdict.missing] == ["H4", "M2"][: len(verdict.missing)]
