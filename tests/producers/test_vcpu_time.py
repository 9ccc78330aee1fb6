"""What samples say of threads that spin, sleep, are stopped, frozen, or gone."""

import contextlib
import os
import resource
import secrets
import signal
from pathlib import Path

import pytest

from producers import vcpu_time, vms
from producers.registry import Identity, Opening
from producers.topology import boottime_ns
from producers.vcpu_time import Sampler
from producers.vms import Finder, Thread, Vcpu, Vm
from schemas import state
from schemas.config import Config, VmsConfig
from tests.producers._vms import fake_vm, names, until

FREEZER = Path("/sys/fs/cgroup/freezer")


@contextlib.contextmanager
def sampling(pid, scan_interval_s=3600):
    sampler = Sampler(Finder(VmsConfig(scan_interval_s=scan_interval_s)), boottime_ns)
    try:
        yield lambda: {
            record.fields["vcpu"]: record
            for record in sampler.sample()
            if record.fields["pid"] == pid and record.kind == "vcpu_time"
        }
    finally:
        sampler.close()


def test_threads_that_sleep_get_nothing():
    with fake_vm("CPU 0/KVM", "CPU 1/TCG", command=("-name", "web")) as fake, sampling(fake.pid) as sample:
        before = sample()
        assert set(before) == {0, 1}
        assert (before[0].kind, before[0].fields["vm"], before[0].fields["state"]) == ("vcpu_time", "web", "S")
        os.sched_yield()
        after = sample()
        assert after[0].fields["run_ns"] == before[0].fields["run_ns"] > 0
        assert after[0].ts_ns > before[0].ts_ns
        assert before[0].fields["voluntary_switches"] >= 1
        assert before[0].fields["timeslices"] >= 1
        assert 0 <= before[0].fields["last_cpu"] < os.cpu_count()


def test_threads_beside_the_vcpus_have_rows_of_their_own_kind():
    with fake_vm("CPU 0/KVM", "IO io0", "worker", command=("-name", "web")) as fake:
        sampler = Sampler(Finder(VmsConfig()), boottime_ns)
        found = [record for record in sampler.sample() if record.fields["pid"] == fake.pid]
        sampler.close()
    rows = [record.fields for record in found if record.kind == "vmm_thread_time"]
    assert [(row["role"], row["vm"]) for row in rows] == [("main", "web"), ("iothread", "web"), ("worker", "web")]
    assert (rows[1]["name"], rows[1]["state"]) == ("io0", "S")
    assert all(row["run_ns"] >= 0 and "vcpu" not in row for row in rows)
    assert len(found) == 4


def test_times_grow_as_the_thread_runs():
    with fake_vm("vcpu0", "spin*") as fake:
        spinning = next(
            int(tid)
            for tid in names(f"/proc/{fake.pid}/task")
            if Path(f"/proc/{fake.pid}/task/{tid}/comm").read_text() == "spin*\n"
        )
        stat = vms.parse_stat(Path(f"/proc/{fake.pid}/task/{spinning}/stat").read_bytes())
        vm = Vm("web", "", "qemu", Thread(fake.pid, fake.pid, 0), (Vcpu(3, Thread(fake.pid, spinning, stat.start_ns)),))
        sampler = Sampler(_Fixed(vm), boottime_ns)
        (before,) = sampler.sample()
        until(lambda: sampler.sample()[0].fields["run_ns"] > before.fields["run_ns"] + 50_000_000)
        (after,) = sampler.sample()
        spent_ns = after.fields["run_ns"] + after.fields["wait_ns"] - before.fields["run_ns"] - before.fields["wait_ns"]
        # What runs or waits does so in the time that passes, as far as the two are read at one moment.
        assert spent_ns <= 2 * (after.ts_ns - before.ts_ns)
        assert after.fields["state"] == "R"
        sampler.close()


def test_a_stopped_process_is_seen_by_its_state():
    with fake_vm("CPU 0/KVM") as fake, sampling(fake.pid) as sample:
        os.kill(fake.pid, signal.SIGSTOP)
        until(lambda: sample()[0].fields["state"] == "T")
        os.kill(fake.pid, signal.SIGCONT)
        until(lambda: sample()[0].fields["state"] == "S")


def test_a_thread_that_ends_is_sampled_no_more_and_its_files_are_closed():
    fds = len(names("/proc/self/fd"))
    with fake_vm("CPU 0/KVM", "CPU 1/KVM") as fake, sampling(fake.pid) as sample:
        assert set(sample()) == {0, 1}
        fake.end("CPU 1/KVM")
        until(lambda: set(sample()) == {0})
    assert len(names("/proc/self/fd")) == fds


def test_exits_of_a_vm_come_once_a_second_where_debugfs_tells_them(tmp_path):
    clock = [10**9]
    vm = Vm("web", "", "qemu", Thread(4099, 4099, 7), ())
    folder = tmp_path / "kvm" / "4099-12"
    folder.mkdir(parents=True)
    (folder / "exits").write_text("9000\n")
    sampler = Sampler(_Fixed(vm), lambda: clock[0], debugfs=tmp_path)
    (record,) = sampler.sample()
    assert record == state.Record("vcpu_exits", 10**9, {"vm": "web", "pid": 4099, "start_ns": 7, "exits": 9000})
    clock[0] += 10**9 - 1
    assert sampler.sample() == []
    clock[0] += 1
    assert len(sampler.sample()) == 1
    (folder / "exits").unlink()
    clock[0] += 10**9
    assert sampler.sample() == []
    sampler.close()


class _Fixed:
    left_out = 0

    def __init__(self, *found):
        self._found = found

    def found(self, now_ns):
        return self._found


def test_a_thread_that_has_the_number_of_another_is_not_taken_for_it():
    with fake_vm("CPU 0/KVM") as fake:
        (vm,) = [each for each in Finder(VmsConfig()).found(0) if each.process.pid == fake.pid]
        (vcpu,) = vm.vcpus
        later = vcpu._replace(thread=vcpu.thread._replace(start_ns=vcpu.thread.start_ns + 10**7))
        sampler = Sampler(_Fixed(vm._replace(vcpus=(later,), helpers=())), boottime_ns)
        assert sampler.sample() == []
        sampler.close()


def test_without_descriptors_threads_are_counted_as_unopened():
    with fake_vm("CPU 0/KVM", "CPU 1/KVM") as fake:
        found = [each for each in Finder(VmsConfig()).found(0) if each.process.pid == fake.pid]
        sampler = Sampler(_Fixed(*found), boottime_ns)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
        try:
            assert sampler.sample() == []
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert sampler.unopened == 3  # its first thread among them
        sampler.close()


def test_some_descriptors_are_left_to_others():
    with fake_vm(*(f"CPU {number}/KVM" for number in range(40))) as fake:
        found = [each for each in Finder(VmsConfig()).found(0) if each.process.pid == fake.pid]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
        try:
            sampler = Sampler(_Fixed(*found), boottime_ns)
            followed = len(sampler.sample())
            free = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(30)]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in free:
            os.close(each)
        assert followed + sampler.unopened == 41
        assert min(followed, sampler.unopened) > 0
        sampler.close()


@pytest.mark.kernel
def test_a_frozen_thread_is_seen_as_frozen():
    if os.geteuid() != 0 or not os.access(FREEZER, os.W_OK):
        pytest.skip("needs root and the freezer of cgroup v1")
    group = FREEZER / f"hypocenter-test-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        with fake_vm("CPU 0/KVM") as fake, sampling(fake.pid, scan_interval_s=0.1) as sample:
            first = sample()[0]
            assert first.fields["frozen"] is None
            (group / "tasks").write_text(str(first.fields["tid"]))
            until(lambda: sample()[0].fields["frozen"] is False)
            (group / "freezer.state").write_text("FROZEN")
            until(lambda: sample()[0].fields["frozen"])
            assert sample()[0].fields["state"] == "D"
            (group / "freezer.state").write_text("THAWED")
            until(lambda: sample()[0].fields["frozen"] is False)
    finally:
        until(lambda: _removed(group))


def _removed(group):
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


@pytest.mark.parametrize(
    ("data", "frozen"),
    [
        (b"THAWED\n", False),
        (b"FREEZING\n", False),
        (b"FROZEN\n", True),
        (b"populated 1\nfrozen 1\n", True),
        (b"populated 1\nfrozen 0\n", False),
        (b"", None),
    ],
)
def test_both_versions_of_cgroups_say_what_is_frozen(data, frozen):
    assert vcpu_time._frozen(data) is frozen


def test_the_surface_samples_as_often_as_configured(monkeypatch):
    monkeypatch.setattr(vms, "shared", Finder)
    opening = Opening(Identity("m", "b", "guest-kernel"), {}, Config(vms=VmsConfig(vcpu_interval_s=0.5)))
    with fake_vm("CPU 0/KVM", command=("-name", "web")) as fake:
        (source,) = vcpu_time.open_sources(opening)
        source.drain()
        (batch,) = source.cut()
        source.close()
    assert (*source.stream, source.tick_s) == ("m", "b", "host", "vcpu-time", "", "boot", 0.5)
    assert fake.pid in {record.fields["pid"] for record in state.unpack(batch.body)}
    assert source.counters().items() >= {"unopened": 0, "left_out": 0, "refused": 0}.items()
