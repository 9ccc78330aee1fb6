"""Facts out of real rows: four failures, each with its host and without, judged right or not at all."""

from dataclasses import replace

import pytest

from consumers.incidents.incident import Source
from consumers.incidents.log import LogIncidents
from consumers.reports.kmsg_record import kmsg_line
from consumers.reports.report import Kind
from consumers.verdict.facts import holds, unknown
from consumers.verdict.gather import gather
from consumers.verdict.judge import judge
from consumers.verdict.verdict import Confidence, Owner
from schemas.loss import Loss
from schemas.state import Record
from tests.consumers.verdict import _bpf, _lake, _rows
from tests.consumers.verdict._lake import SCENARIOS, S

ANSWERS = {
    "frozen": ("C1", Owner.VMM_PAUSE, Confidence.HIGH),
    "starved": ("C2", Owner.HOST_CPU, Confidence.HIGH),
    "paused": ("C1", Owner.VMM_PAUSE, Confidence.HIGH),
    "spin": ("C7", Owner.GUEST_DRIVER, Confidence.MEDIUM),
}


@pytest.fixture(scope="module")
def lakes(tmp_path_factory):
    path = tmp_path_factory.mktemp("verdict")
    return {name: _lake.build(path / name, scenario) for name, scenario in SCENARIOS.items()}


@pytest.fixture
def made(tmp_path):
    """Build a lake of a changed scenario, and gather."""

    def call(name, withhold=(), **changes):
        scenario = SCENARIOS[name]._replace(**changes)
        found = _lake.incident(scenario.dump)
        return found, gather(_lake.build(call.path, scenario), found, withhold)

    call.path = tmp_path / "lake"
    return call


@pytest.mark.parametrize("name", SCENARIOS)
def test_with_its_host_a_failure_is_judged_right(lakes, name):
    incident = _lake.incident(SCENARIOS[name].dump)
    facts = gather(lakes[name], incident)
    found = judge(incident, facts)
    assert (found.row, found.owner, found.confidence) == ANSWERS[name], found
    assert holds(facts.mapped), facts.mapped
    assert facts.lost.value == 0
    assert holds(facts.marker) is False  # the guest's log is there, and whole
    assert facts.clock_error_s.value < 0.01
    measured = next(each for each in found.evidence if each.id == "H1")
    assert {each.table for each in measured.records} >= {"vcpu_time"}
    assert {each.machine for each in measured.records} == {_lake.HOST.machine}


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_its_host_it_is_undetermined_or_the_same_and_says_what_lacks(lakes, name):
    incident = _lake.incident(SCENARIOS[name].dump)
    found = judge(incident, gather(lakes[name], incident, {"host", "virtual-platform"}))
    assert (found.owner, found.confidence) == (Owner.UNDETERMINED, Confidence.NONE)
    assert found.missing[0].text.startswith(
        "any stream of the host over the interval: the lake has no stream of the host"
    )


def test_of_a_pause_the_monitor_alone_tells_and_none_of_that_is_of_the_layer_host(lakes):
    incident = _lake.incident(SCENARIOS["paused"].dump)
    found = judge(incident, gather(lakes["paused"], incident, {"host"}))
    assert (found.row, found.owner, found.confidence) == ("C1", Owner.VMM_PAUSE, Confidence.MEDIUM)
    assert {each.table for item in found.evidence for each in item.records} == {"qmp_events"}
    assert "M1" in {each.id for each in found.missing}
    blind = judge(incident, gather(lakes["paused"], incident, {"virtual-platform"}))
    assert blind.owner is Owner.UNDETERMINED


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_withheld_layer_names_no_other_owner_and_the_same_lake_gives_the_same(lakes, name):
    incident = _lake.incident(SCENARIOS[name].dump)
    whole = judge(incident, gather(lakes[name], incident))
    for layers in (
        {"host"},
        {"virtual-platform"},
        {"guest-kernel"},
        {"host", "virtual-platform"},
        {"host", "guest-kernel"},
    ):
        found = judge(incident, gather(lakes[name], incident, layers))
        assert found.owner in (whole.owner, Owner.UNDETERMINED), (layers, found)
    assert gather(lakes[name], incident) == gather(lakes[name], incident)


def test_an_idle_monitor_convicts_and_acquits_nobody(made):
    incident, facts = made("paused", qmp=(), watched=("kmsg", "topology", "vcpu-time"))
    assert facts.vcpus[1].value.masses.keys() >= {"STH"}
    found = judge(incident, facts)
    assert found.owner is Owner.UNDETERMINED
    assert Owner.VMM_PAUSE not in {each.owner for each in found.rejected}


def test_loss_among_the_samples_and_a_topology_that_nobody_watched_lower(made):
    lost = Loss("drop", 30, 2, "agent-died", "agent", "event")
    incident, facts = made("frozen", lost=(("vcpu-time", lost),), watched=("vcpu-time",))
    assert facts.lost.value == 2
    found = judge(incident, facts)
    assert (found.owner, found.confidence) == (Owner.VMM_PAUSE, Confidence.MEDIUM)
    assert [each.id for each in found.missing] == ["M1", "M2"]


def test_a_lockup_of_the_host_s_cpu_below_is_the_owner_and_one_beside_is_not(made, tmp_path):
    line = "watchdog: BUG: soft lockup - CPU#{}  stuck for 26s! [kworker/1:2:52]".replace("  ", " ")
    incident, facts = made("starved", host_lines=((0, 34.5, line.format(1)),))
    found = judge(incident, facts)
    assert (found.row, found.owner, found.beside) == ("C6", Owner.HOST_KERNEL, (Owner.HOST_CPU,))
    assert found.evidence[0].records[0][:3] == ("kmsg", _lake.HOST.machine, "kmsg")
    other = _lake.build(tmp_path / "other", SCENARIOS["starved"]._replace(host_lines=((0, 34.5, line.format(3)),)))
    assert holds(gather(other, incident).host_lockup) is False


def _image(file):
    fields = {"vm": _lake.VM, "device": "d0", "io_status": "ok", "file": file, "bps": 0, "iops": 0, "data": "{}"}
    return (Record("qmp_blocks", _lake.AHEAD_NS + S, fields),)


NVME = "nvme nvme0: I/O 12 QID 3 timeout, aborting"
SCSI = "sd 2:0:0:0: [{}] tag#7 timing out command, waited 180s"


@pytest.mark.parametrize(
    ("text", "disks", "trace", "so"),
    [
        (NVME, _image("/dev/nvme0n1p2"), (), True),
        (NVME, _image("/dev/nvme12n1"), (), None),
        (NVME, _image("/var/lib/web-7.qcow2"), (), None),
        (SCSI.format("sda"), (), (2, 3, "BLOCK_IO_DONE", 4099), True),
        (SCSI.format("sdab"), (), (2, 3, "BLOCK_IO_DONE", 4099), None),
        (SCSI.format("sda"), (), (2, 3, "BLOCK_IO_DONE", 5000), None),  # another process's
        ("timeout error, dev sda, sector 2048 op 0x0:(READ)", _image("/dev/sda"), (), True),
        ("sd 2:0:0:0: rejecting I/O to offline device", _image("/dev/sda"), (), None),  # which is that?
        ("I/O error, dev fd0, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2", _image("/dev/sda"), (), False),
        ("I/O error, dev sda, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2", _image("/dev/sda"), (), False),
    ],
    ids=[
        "partition", "another nvme", "a file", "seen", "another scsi", "others'", "block", "no name", "floppy", "an error",
    ],
)  # fmt: skip
def test_a_disk_that_timed_out_counts_where_the_vm_s_requests_go_there(made, text, disks, trace, so):
    requests = tuple(_bpf.block_io(trace)) if trace else ()
    _, facts = made("spin", host_lines=((3, 10, text),), disks=disks, trace=requests)
    assert holds(facts.io_timeout) is so
    facts = replace(facts, io_slow=unknown("withheld"))
    assert judge(_rows.hung(), facts).owner is (Owner.STORAGE_BACKEND if so else Owner.UNDETERMINED)
    assert any(text[:40] in each.text for each in facts.found) is (so is None)


SOFT = "watchdog: BUG: soft lockup - CPU#1 stuck for {}s! [kworker/1:2:52]"
STALL = (
    (3, 50, "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
    (3, 50.001, "rcu: \\x091-...0: (1 GPs behind) idle=7a6/1/0x4000000000000000 softirq=2046/2047 fqs=1233"),
    (3, 50.002, "rcu: \\x09(detected by 0, t={} jiffies, g=1, q=2 ncpus=4)"),
)


@pytest.mark.parametrize(
    ("lines", "so"),
    [
        (((0, 34.5, SOFT.format(26)),), True),
        (((0, 24.0, SOFT.format(21)), (0, 48.0, SOFT.format(21))), True),  # 13 s and 7 s of 23 s
        (((0, 24.0, SOFT.format(22)), (0, 24.5, SOFT.format(23))), True),
        (((0, 20.0, SOFT.format(9)), (0, 20.5, SOFT.format(9))), None),  # the same 9 s
        (((0, 100, SOFT.format(68)),), None),
        (((3, 20, "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-....D } 6 jiffies s: 1533 root: 0x2/."),), None),
        ((*STALL[:2], (*STALL[2][:2], STALL[2][2].format(2100))), None),  # 21 s up to 50 s
        ((*STALL[:2], (*STALL[2][:2], STALL[2][2].format(5000))), None),  # 5 s, or 20 s, or 50 s
        ((*STALL[:2], (*STALL[2][:2], STALL[2][2].format(60009))), True),  # 60 s
        (((0, 32, "watchdog: Watchdog detected hard LOCKUP on cpu 1"),), None),  # 10 s
        (((0, 34.5, SOFT.replace("CPU#1", "CPU#3").format(26)),), False),
    ],
    ids=[
        "all", "two parts", "told twice", "the same part", "its end", "expedited", "end of a stall",
        "of unknown length", "long", "hard", "another CPU",
    ],
)  # fmt: skip
def test_a_lockup_of_the_host_counts_where_it_was_for_half_of_the_time(made, lines, so):
    incident, facts = made("starved", host_lines=lines)
    assert holds(facts.host_lockup) is so
    found = judge(incident, facts)
    assert found.owner is (Owner.HOST_KERNEL if so else Owner.HOST_CPU)
    beside = [each for each in found.evidence if "which carried a vCPU" in each.text]
    assert len(beside) == (so is not False)
    assert all(each.id == "H5" and each.records for each in beside)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 4: b200000000070f0f", "host_hardware"),
        ("nvme nvme0: I/O 12 QID 3 timeout, aborting", "io_timeout"),
        ("PM: suspend exit", "host_suspend"),
    ],
)
def test_the_host_s_log_tells_of_hardware_disks_and_suspends_within_the_time(made, tmp_path, text, fact):
    scenario = SCENARIOS["frozen"]._replace(disks=_image("/dev/nvme0n1"))
    incident, facts = made("frozen", host_lines=((4, 20, text),), disks=scenario.disks)
    assert holds(getattr(facts, fact)) is True
    other = _lake.build(tmp_path / "other", scenario._replace(host_lines=((4, 40, text),)))
    assert holds(getattr(gather(other, incident), fact)) is False
    blind = scenario._replace(host_lines=((4, 40, text),), watched=("topology", "vcpu-time", "qmp"))
    assert holds(getattr(gather(_lake.build(tmp_path / "blind", blind), incident), fact)) is None


@pytest.mark.parametrize(
    "text",
    [
        "mce: CPU1: Core temperature/speed normal",
        "mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 7: 8c00004000010091",
        "EDAC DEBUG: ie31200_check: device on CPU#1 ok",
    ],
    ids=["temperature", "corrected", "no error"],
)
def test_what_hardware_says_and_stops_no_cpu_is_no_error(made, text):
    incident, facts = made("frozen", host_lines=((4, 20, text),))
    assert holds(facts.host_hardware) is False
    found = judge(incident, facts)
    assert (found.row, found.owner, found.beside) == ("C1", Owner.VMM_PAUSE, ())


def test_an_error_of_the_hardware_stands_beside_a_pause_that_was_measured(made):
    uncorrected = "mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 4: b200000000070f0f"
    found = judge(*made("frozen", host_lines=((4, 20, uncorrected),)))
    assert (found.row, found.owner, found.beside) == ("C1", Owner.VMM_PAUSE, (Owner.HARDWARE_FIRMWARE,))


def test_a_vcpu_asleep_under_pressure_on_the_host_s_memory(made, tmp_path):
    deep = _lake._held("D", False, 0, 0)(10, 35)
    incident, facts = made("frozen", second=deep, pressure_ms=600)
    found = judge(incident, facts)
    assert (found.row, found.owner, found.confidence) == ("C3", Owner.HOST_MEMORY, Confidence.HIGH)
    calm = _lake.build(tmp_path / "calm", SCENARIOS["frozen"]._replace(second=deep, pressure_ms=1))
    assert judge(incident, gather(calm, incident)).owner is Owner.UNDETERMINED


@pytest.mark.parametrize(
    ("pid", "pressure_ms", "so"),
    [(9999, 1, False), (9999, 0, None), (9999, 600, True), (4099, 1, True), (4104, 0, True)],
    ids=["no pressure", "not measured", "pressure", "the VM's process", "the vCPU's thread"],
)
def test_a_kill_counts_where_it_is_the_vm_s_or_memory_was_short(made, pid, pressure_ms, so):
    deep = _lake._held("D", False, 0, 0)(10, 35)
    killed = tuple(_bpf.killed((20, pid)))
    incident, facts = made("frozen", second=deep, pressure_ms=pressure_ms, trace=killed)
    assert holds(facts.memory) is so
    assert judge(incident, facts).owner is (Owner.HOST_MEMORY if so else Owner.UNDETERMINED)
    beside = [each.records[0].table for each in facts.found if each.id == "H3"]
    assert beside == (["bpf_hang"] if pid == 9999 else [])


def test_stays_of_the_bpf_program_tell_what_samples_cannot(made):
    stays = _bpf.vcpu((10, 22, "VCPU_THROTTLED", b"other"), (22, 36, "VCPU_WAITING", b"hog"))
    incident, facts = made("starved", second=_lake._held("S", False, 0, 0)(10, 36), trace=tuple(stays))
    found = judge(incident, facts)
    assert (found.row, found.owner) == ("C2", Owner.HOST_CPU)
    texts = [each.text for each in found.evidence]
    assert "vCPU 1 waited up to 14.000 s for a CPU: hog ran there" in texts
    assert any(each.text.endswith("its cgroup's time was used up") and each.id == "H3" for each in found.evidence)
    assert "bpf_vcpu" in {each.table for item in found.evidence for each in item.records}


@pytest.mark.parametrize(("tgid", "so"), [(4099, True), (5000, None)])
def test_slow_requests_count_where_they_are_the_vm_s(made, tgid, so):
    _, facts = made("frozen", trace=tuple(_bpf.block_io((12, 34, "BLOCK_IO_ISSUED", tgid))))
    assert holds(facts.io_slow) is so


def test_of_a_guest_that_was_not_heard_again_the_time_up_to_its_last_word_counts(made):
    incident, facts = made("spin", heard_s=13)
    shares = facts.vcpus[1].value
    assert facts.length_s == pytest.approx(8, abs=0.01)
    assert 0.6 < shares.at_least("GX") < 0.7
    assert shares.at_most("T") == pytest.approx(1 - shares.known, abs=0.02)
    assert holds(facts.io_error) is None  # none was told up to then
    assert judge(incident, facts).owner is Owner.UNDETERMINED  # it may have been stopped for the rest


def test_a_part_that_is_long_enough_names_the_owner_and_not_surely(made):
    found = judge(*made("frozen", heard_s=33))
    assert (found.row, found.owner, found.confidence) == ("C1", Owner.VMM_PAUSE, Confidence.MEDIUM)


def _disk(at, *, written_kib, writes, in_flight):
    text = f"254 0 vda 9 0 72 1 {writes} 0 {2 * written_kib} 5 {in_flight} 9 9\n"
    return Record("procfs_text", at * S, {"path": "/proc/diskstats", "text": text, "truncated": False})


def _limited(bps):
    fields = {"vm": _lake.VM, "device": "d0", "io_status": "ok", "bps": bps, "iops": 0, "data": "{}"}
    return tuple(Record("qmp_blocks", _lake.AHEAD_NS + at * S, fields) for at in range(0, 60, 10))


@pytest.mark.parametrize(
    ("bps", "in_flight", "writes", "so"),
    [(2000, 1, 4, True), (200_000, 1, 4, None), (2000, 0, 4, None), (2000, 1, 9, None), (0, 1, 4, None)],
    ids=["held back", "limit not reached", "nothing waits", "requests end", "no limit"],
)
def test_a_limit_of_the_disk_counts_where_requests_wait_and_it_was_reached(made, bps, in_flight, writes, so):
    before = (_disk(5, written_kib=0, writes=0, in_flight=0), _disk(10, written_kib=256, writes=4, in_flight=in_flight))
    inside = tuple(
        _disk(at, written_kib=256, writes=4 + (writes - 4) * (at // 5), in_flight=in_flight) for at in range(15, 45, 5)
    )
    _, facts = made("frozen", guest=(*before, *inside), disks=_limited(bps))
    assert holds(facts.io_limited) is so
    if so:
        assert {each.table for each in facts.io_limited.records} == {"qmp_blocks", "procfs_disk"}
        assert "requests of the guest's disk vda stood" in facts.io_limited.text


def _io_thread():
    fields = {"vm": _lake.VM, "role": "iothread", "name": "io0", "pid": 4099, "tid": 4101, "start_ns": 1}
    fields |= {"run_ns": 5, "wait_ns": 5, "timeslices": 5}
    for at in range(_lake.END_S):
        held = 10 <= at < 35
        seen = {"state": "D" if held else "S", "frozen": held}
        yield Record("vmm_thread_time", _lake.AHEAD_NS + at * S, fields | seen)


def test_a_frozen_io_thread_and_a_disk_of_which_nothing_ends_come_out_of_the_lake(made):
    counts = {"vm": _lake.VM, "device": "d0", "qdev": "q", "node": "n", "rd_operations": 5, "wr_operations": 9}
    answers = tuple(Record("qmp_blockstats", _lake.AHEAD_NS + at * S, counts) for at in range(0, 60, 3))
    stood = (
        *answers,
        Record("qmp_status", _lake.AHEAD_NS + 30 * S, {"vm": _lake.VM, "connected": True, "answer_ns": 9 * S}),
    )
    rows = tuple(_bpf.block_io((2, 3, "BLOCK_IO_DONE", 4099)))
    incident, facts = made("frozen", threads=tuple(_io_thread()), disks=stood, trace=rows)
    assert facts.iothread.value.at_least("T") > 0.9
    assert holds(facts.io_seen) is None  # nobody says that the program was running all along
    assert holds(facts.io_done) is False
    assert any(each.text.endswith("gave no answer for at least 9.0 s") for each in facts.found)
    unheard = _lake.build(
        made.path.with_name("unheard"), SCENARIOS["frozen"]._replace(threads=tuple(_io_thread()), heard_s=33)
    )
    assert facts.iothread.value.known > 0.99 > gather(unheard, incident).iothread.value.known
    blind = gather(_lake.open_lake(made.path, create=False), incident, {"host", "virtual-platform"})
    assert blind.iothread.value is blind.io_done.value is None


def test_the_guest_s_own_thresholds_steal_and_counters_are_told(made):
    hangs = [Record("procfs_hangs", at * S, {"watchdog_thresh_s": 3, "softlockups": n}) for n, at in enumerate((5, 40))]
    stat = "cpu  0 0 0 0 0 0 0 {0} 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 {0} 0 0\n"
    texts = [
        Record("procfs_text", at * S, {"path": "/proc/stat", "text": stat.format(100 * at), "truncated": False})
        for at in (12, 33)
    ]
    incident, facts = made("starved", guest=(*hangs, *texts), second=lambda _: ("R", False, 0, 0))
    assert holds(facts.thresholds) is True
    found = {each.id: each.text for each in facts.found}
    assert found["G3"] == "the guest's kernel counted more: softlockups by 1"
    assert found["G2"] == "the guest counted 21.0 s of steal on CPU 1"
    assert found["G4"].startswith("the guest's agent gave no sign of life for at most")
    del incident


def test_an_incident_without_a_machine_or_a_time_has_no_facts(lakes):
    incident = _lake.incident(SCENARIOS["frozen"].dump)
    nobody = replace(incident, source=Source("", "", ""))
    assert gather(lakes["frozen"], nobody).host.value is None
    timeless = replace(incident, since_ns=None, root=replace(incident.root, ts_ns=None))
    found = judge(timeless, gather(lakes["frozen"], timeless))
    assert found.owner is Owner.UNDETERMINED
    assert found.missing[0].text.endswith("the report has no time of the kernel's clock")


STUCK = (
    (0, 34.5, "watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [kworker/3:2:52]"),
    (4, 34.501, "RIP: 0010:native_queued_spin_lock_slowpath+0x6e/0x2d0"),
    (4, 34.502, "Call Trace:"),
    (4, 34.503, " rhashtable_walk_next+0x2e/0x70"),
    (4, 34.504, " inet_diag_dump+0x2e/0x70"),
)
BOOT = tuple((6, 0.5 + n / 1000, f"boot {n}") for n in range(30))


def _own(lines):
    """Return the incident that a host's own log has."""
    records = [kmsg_line(each) for each in _lake.host_records(lines)]
    found = LogIncidents(Source(*_lake.HOST[:3]))
    changed = [*found.feed(records), *found.close()]
    (mine,) = {each.id: each for each in changed}.values()
    return mine


def test_a_host_s_own_incident_has_nothing_below_it_but_hardware(made):
    lines = (*BOOT, *STUCK)
    mine = _own(lines)
    _, facts = made("frozen", host_lines=lines)
    assert (holds(facts.bare), facts.bare.text[:12]) == (False, "a host names")
    lake = _lake.open_lake(made.path, create=False)
    bare = gather(lake, mine)
    assert (holds(bare.bare), holds(bare.host)) == (True, True)
    verdict = judge(mine, bare)
    assert (verdict.row, verdict.owner, verdict.confidence) == ("C16", Owner.HOST_KERNEL, Confidence.MEDIUM)
    hinted = [*lines[:5], (6, 0.6, "Hypervisor detected: KVM"), *lines[5:]]
    other = _lake.build(made.path.with_name("other"), SCENARIOS["frozen"]._replace(host_lines=tuple(hinted)))
    assert holds(gather(other, mine).bare) is False


@pytest.mark.parametrize(
    ("at_s", "text", "so", "told"),
    [
        (20, "mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 4: b200000000070f0f", True, False),
        (5, "mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 4: b200000000070f0f", None, False),
        (20, "[Hardware Error]: Corrected error, no action required.", None, False),
        (20, "[Firmware Bug]: the BIOS has corrupted hw-PMU resources (MSR 38d is 330)", None, True),
    ],
    ids=["uncorrected", "before", "corrected", "firmware"],
)
def test_of_bare_metal_an_error_counts_that_can_stop_a_cpu_and_was_then(made, at_s, text, so, told):
    lines = (*BOOT, (4, at_s, text), *STUCK)
    made("frozen", host_lines=lines)
    mine = _own(lines)
    facts = gather(_lake.open_lake(made.path, create=False), mine)
    assert holds(facts.hardware) is so
    assert judge(mine, facts).owner is (Owner.HARDWARE_FIRMWARE if so else Owner.HOST_KERNEL)
    assert any(text in each.text for each in facts.found) is told


def test_of_a_clock_the_firmware_s_word_counts(made):
    lines = (*BOOT, (4, 20, "[Firmware Bug]: TSC ADJUST differs: CPU3 0 --> -5. Restoring"), *STUCK)
    made("frozen", host_lines=lines)
    mine = _own(lines)
    mine = replace(mine, kind=Kind.CLOCKSOURCE_UNSTABLE, root=replace(mine.root, kind=Kind.CLOCKSOURCE_UNSTABLE))
    assert holds(gather(_lake.open_lake(made.path, create=False), mine).hardware) is True


def test_that_real_time_tasks_were_throttled_is_told_beside_a_place_where_the_kernel_looped(made):
    lines = (*BOOT, (4, 20, "sched: RT throttling activated"), *STUCK)
    made("frozen", host_lines=lines)
    mine = _own(lines)
    facts = gather(_lake.open_lake(made.path, create=False), mine)
    assert holds(facts.rt_line) is True
    found = judge(mine, facts)
    assert (found.row, found.owner) == ("C16", Owner.HOST_KERNEL)
    assert "the guest's log says: sched: RT throttling activated" in [each.text for each in found.evidence]
    bare = replace(mine, root=replace(mine.root, frames=()))
    assert judge(bare, facts).owner is Owner.GUEST_POLICY
