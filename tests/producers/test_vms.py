"""VMs among the processes of this machine, and what files of /proc say."""

import os
import threading

import pytest

from producers import vmm_threads, vms
from producers.vms import Finder, parse_name, parse_stat
from schemas.config import Vm, VmsConfig
from tests.producers._vms import fake_vm, names, until

UUID = "0d9e47b2-88a1-4c6f-b3f5-52c18e9a7d04"
QEMU = ("-name", "guest=web,debug-threads=on", "-uuid", UUID)


def find(pid, config=None):
    return [vm for vm in Finder(config or VmsConfig()).found(0) if vm.process.pid == pid]


def test_a_process_with_threads_of_vcpus_is_a_vm_with_the_name_of_its_command_line():
    with fake_vm("CPU 1/KVM", "CPU 0/KVM", "IO mon_iothread", command=QEMU) as fake:
        (vm,) = find(fake.pid)
    assert (vm.name, vm.uuid, vm.machine, vm.vmm) == ("web", UUID, UUID, "qemu")
    assert [each.vcpu for each in vm.vcpus] == [0, 1]
    assert {each.thread.pid for each in vm.vcpus} == {fake.pid}
    assert all(each.thread.tid > fake.pid for each in vm.vcpus)
    assert all(each.thread.start_ns >= vm.process.start_ns > 0 for each in vm.vcpus)


@pytest.mark.parametrize(
    ("threads", "command", "vmm", "name", "vcpus"),
    [
        (["CPU 0/TCG", "CPU 11/TCG"], ["-name", "a"], "qemu", "a", [0, 11]),
        (["ALL CPUs/TCG"], ["-name", "a"], "qemu", "a", [None]),
        (["fc_vcpu 0", "fc_vcpu 1"], ["--id", "anonymous-1"], "firecracker", "anonymous-1", [0, 1]),
        (["vcpu0", "vcpu1"], [], "cloud-hypervisor", None, [0, 1]),
    ],
)
def test_each_monitor_has_names_of_its_own(threads, command, vmm, name, vcpus):
    with fake_vm(*threads, command=command) as fake:
        (vm,) = find(fake.pid)
    assert (vm.vmm, [each.vcpu for each in vm.vcpus]) == (vmm, vcpus)
    assert (vm.name == name) if name else vm.name.endswith(f"-{fake.pid}")
    assert (vm.uuid, vm.machine) == ("", vm.name)


def test_threads_that_a_guest_waits_for_are_told_by_their_names_the_most_telling_first():
    names = ("CPU 0/KVM", "worker", "IO io one", "vhost-77", "iou-wrk-12", "IO disk2", "IO mon_iothread", "call_rcu")
    with fake_vm(*names, "qemu", "SPICE Worker", command=QEMU, name="qemu") as fake:
        (vm,) = find(fake.pid)
    assert [(each.role, each.name) for each in vm.helpers][1:] == [
        ("iothread", "io one"),
        ("iothread", "disk2"),
        ("worker", "worker"),
        ("worker", "iou-wrk-12"),
        ("worker", "qemu"),
        ("vhost", "vhost-77"),
    ]
    main = vm.helpers[0]
    assert (main.role, main.thread) == ("main", vm.process)
    assert len({each.thread for each in (*vm.helpers, *vm.vcpus)}) == 8


def test_a_virtiofsd_is_of_the_vm_that_names_its_socket(tmp_path):
    socket = tmp_path / "fs.sock"
    daemon = ("--shared-dir", "/srv", f"--socket-path={socket}")
    qemu = (*QEMU, "-chardev", f"socket,id=fs0,path={socket}")
    with (
        fake_vm("pool", command=daemon, name="virtiofsd") as served,
        fake_vm("pool", command=("--socket-path", f"{socket}2"), name="virtiofsd"),
        fake_vm("CPU 0/KVM", command=qemu) as fake,
    ):
        (vm,) = find(fake.pid)
        daemons = [each for each in vm.helpers if each.role == "daemon"]
        assert {each.thread.pid for each in daemons} == {served.pid}
        assert {each.name for each in daemons} == {"virtiofsd", "pool"}


def test_a_kernel_thread_of_vhost_is_of_the_vm_whose_thread_it_names(tmp_path):
    def write(pid, tid, name, flags):
        folder = tmp_path / str(pid) / "task" / str(tid)
        folder.mkdir(parents=True)
        line = (
            f"{tid} ({name}) S 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 2 0 500 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 5 0 0"
        )
        (folder / "stat").write_text(line)
        if pid == tid:
            (folder.parent.parent / "stat").write_text(line)

    write(70, 70, "qemu-system-x86", 0)
    write(70, 71, "CPU 0/KVM", 0)
    write(80, 80, "vhost-71", 0x00200000)
    write(81, 81, "vhost-99", 0x00200000)
    write(82, 82, "vhost-70", 0)  # whoever calls itself so is not the kernel's
    (vm,) = Finder(VmsConfig(), tmp_path).found(0)
    assert [(each.role, each.thread.tid) for each in vm.helpers] == [("main", 70), ("vhost", 80)]


def test_what_only_sounds_like_a_vcpu_is_none():
    with fake_vm("CPU x/KVM", "my vcpu0", "vcpu", "fc_vcpu") as fake:
        assert find(fake.pid) == []


def test_the_configuration_names_a_process_that_says_nothing():
    with fake_vm("worker") as fake:
        (vm,) = find(fake.pid, VmsConfig(machines=(Vm("db", fake.pid),)))
    assert (vm.name, vm.vcpus) == ("db", ())


def test_threads_that_qemu_itself_names_are_followed_where_they_have_no_names():
    with fake_vm("qemu-system-x86", "worker", "nameless", command=["-name", "plain"]) as fake:
        finder = Finder(VmsConfig())
        tids = sorted(int(name) for name in names(f"/proc/{fake.pid}/task"))
        finder.tell("plain", {0: tids[1], 1: tids[2]}, {tids[3]: "io0"})
        (vm,) = [each for each in finder.found(0) if each.process.pid == fake.pid]
        assert [(each.vcpu, each.thread.tid) for each in vm.vcpus] == [(0, tids[1]), (1, tids[2])]
        assert [(each.role, each.name) for each in vm.helpers][1:] == [("iothread", "io0")]
        # Threads of two processes are no VM.
        finder.tell("plain", {0: tids[1], 1: threading.get_native_id()}, {})
        assert [each for each in finder.found(1 << 60) if each.process.pid == fake.pid] == []


def test_processes_are_looked_through_as_often_as_said_and_a_new_vm_is_found():
    finder = Finder(VmsConfig(scan_interval_s=2))
    before = finder.found(0)
    with fake_vm("CPU 0/KVM") as fake:
        assert finder.found(1_999_999_999) is before
        assert fake.pid in {vm.process.pid for vm in finder.found(2_000_000_000)}
    assert fake.pid not in {vm.process.pid for vm in finder.found(4_000_000_000)}


def test_a_process_that_becomes_a_vm_later_is_one():
    finder = Finder(VmsConfig())
    with fake_vm("a", "CPU 0/KVM") as fake:
        for at in range(3):
            assert fake.pid in {vm.process.pid for vm in finder.found(at << 40)}
        fake.end("CPU 0/KVM")
        until(lambda: len(names(f"/proc/{fake.pid}/task")) == 2)
        assert fake.pid not in {vm.process.pid for vm in finder.found(9 << 40)}


def test_more_vcpus_than_a_host_has_are_left_out_and_counted(monkeypatch):
    monkeypatch.setattr(vms, "VCPUS_MAX", 2)
    finder = Finder(VmsConfig())
    with fake_vm("CPU 0/KVM", "CPU 1/KVM", "CPU 2/KVM") as fake:
        found = finder.found(0)
    assert sum(len(vm.vcpus) for vm in found) == 2
    assert all(vm.helpers for vm in found)
    assert finder.left_out >= 1
    assert fake.pid in {vm.process.pid for vm in found}


def test_more_helpers_than_are_followed_are_left_out_and_counted(monkeypatch):
    monkeypatch.setattr(vmm_threads, "VM_THREADS_MAX", 2)
    finder = Finder(VmsConfig())
    with fake_vm("CPU 0/KVM", "worker", "worker", "IO a") as fake:
        (vm,) = [each for each in finder.found(0) if each.process.pid == fake.pid]
    assert [each.role for each in vm.helpers] == ["main", "iothread"]
    assert finder.left_out >= 2


@pytest.mark.parametrize(
    ("words", "vmm", "name", "uuid"),
    [
        (["-name", "guest=a,,b,process=x"], "qemu", "a,b", ""),
        (["-name", "process=x,guest=c", "-uuid", "U"], "qemu", "c", "U"),
        (["--name", "d"], "qemu", "d", ""),
        (["-name"], "qemu", "", ""),
        (["-name", "x" * 300], "qemu", "x" * 255, ""),
    ],
)
def test_names_are_read_as_the_monitor_reads_them(words, vmm, name, uuid):
    assert parse_name("\0".join(["qemu", *words, ""]).encode(), vmm) == (name, uuid)


def test_a_thread_named_like_the_file_itself_is_read_right():
    line = b"7 (a) R (b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 500 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 5 0 0"
    stat = parse_stat(line)
    assert (stat.name, stat.state, stat.threads, stat.cpu) == (b"a) R (b", "S", 3, 5)
    assert stat.start_ns == 500 * 10**9 // os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("data", [b"", b"7", b"7 (a", b"7 (a) S 1", b") ("])
def test_other_bytes_are_no_stat(data):
    assert parse_stat(data) is None
