"""Facts about VMs, from the first time they are seen to the last."""

import os
from types import SimpleNamespace

from producers import topology, vms
from producers.registry import Identity, Known, Opening
from producers.topology import Topology
from producers.vms import Finder
from schemas import state
from schemas.config import Config, VmsConfig
from schemas.stream import Stream
from tests.producers._vms import fake_vm, names, until

S = 10**9


def watch(pid):
    clock = SimpleNamespace(ns=0)
    watched = Topology(Finder(VmsConfig(scan_interval_s=1)), lambda: clock.ns)

    def sample(at_s):
        clock.ns = at_s * S
        return [record for record in watched.sample() if record.fields["pid"] == pid]

    return sample


def test_a_vm_and_its_threads_are_told_once_then_each_minute_and_when_they_go():
    with fake_vm("CPU 0/KVM", "CPU 1/KVM", "IO io0", "worker", command=("-name", "web")) as fake:
        sample = watch(fake.pid)
        vm, first, second, main, io = sample(10)
        assert {main.kind, io.kind} == {"topology_thread"}
        assert [(each.fields["role"], each.fields["vm"]) for each in (main, io)] == [
            ("main", "web"),
            ("iothread", "web"),
        ]
        assert (io.fields["name"], main.fields["tid"]) == ("io0", fake.pid)
        assert (io.fields["valid_from_ns"], io.fields["valid_until_ns"]) == (10 * S, None)
        assert (vm.kind, vm.ts_ns, vm.fields["vm"], vm.fields["vcpus"]) == ("topology_vm", 10 * S, "web", 2)
        assert (vm.fields["uuid"], vm.fields["guest_machine"], vm.fields["vmm"]) == (None, "web", "qemu")
        assert (vm.fields["valid_from_ns"], vm.fields["valid_until_ns"]) == (10 * S, None)
        assert {first.kind, second.kind} == {"topology_vcpu"}
        assert [each.fields["vcpu"] for each in (first, second)] == [0, 1]
        assert first.fields["cpus_allowed"]
        assert first.fields["last_cpu"] < os.cpu_count()
        assert sample(20) == []
        assert len(sample(70)) == 5
        fake.end("CPU 1/KVM")
        until(lambda: len(names(f"/proc/{fake.pid}/task")) == 4)
        (gone,) = sample(80)
        assert (gone.fields["vcpu"], gone.fields["valid_from_ns"], gone.fields["valid_until_ns"]) == (1, 10 * S, 70 * S)
    ended = sample(90)
    assert {(each.kind, each.fields["valid_until_ns"]) for each in ended} == {
        ("topology_vm", 80 * S),
        ("topology_vcpu", 80 * S),
        ("topology_thread", 80 * S),
    }


def test_other_cpus_allowed_are_another_fact():
    with fake_vm("CPU 0/KVM") as fake:
        sample = watch(fake.pid)
        _, before, _ = sample(1)
        cpu = min(os.sched_getaffinity(before.fields["tid"]))
        os.sched_setaffinity(before.fields["tid"], {cpu})
        ended, begun = sample(2)
    assert (ended.fields["cpus_allowed"], ended.fields["valid_until_ns"]) == (before.fields["cpus_allowed"], S)
    assert (begun.fields["cpus_allowed"], begun.fields["valid_from_ns"]) == (str(cpu), 2 * S)
    assert begun.fields["valid_until_ns"] is None


def test_the_surface_is_one_source_that_goes_on_where_the_log_ends(monkeypatch):
    monkeypatch.setattr(vms, "shared", Finder)
    stream = Stream("m", "b", "host", "topology", "", "boot")
    opening = Opening(Identity("m", "b", "guest-kernel"), {stream: Known(7, 1)}, Config())
    (source,) = topology.open_sources(opening)
    with fake_vm("CPU 0/KVM", command=("-name", "web")) as fake:
        source.drain()
    (batch,) = source.cut()
    assert (source.stream, batch.first, source.tick_s) == (stream, 7, 5.0)
    assert fake.pid in {record.fields["pid"] for record in state.unpack(batch.body)}


def test_check_says_how_many_there_are():
    with fake_vm("CPU 0/KVM", "CPU 1/KVM"):
        assert topology.check().startswith("VMs that run here now: ")
