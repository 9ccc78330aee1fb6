"""What the text of an incident says, as questions that are answered yes or no; the text is never withheld.

Frames are the kernel's functions: kernel/smp.c and kernel/stop_machine.c for waits on other CPUs, block/, mm/, fs/jbd2/
and fs/xfs/ for waits on disks, fs/fuse/, fs/notify/, fs/autofs/ and net/9p/ for waits on daemons,
kernel/locking/ for locks.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Final

from consumers.incidents.incident import Incident
from consumers.incidents.joining import STOOD_STILL
from consumers.reports.frames import anchor
from consumers.reports.report import Kind, Report, Shape, panic_reason

#: Shorter than this is no failure to wake anybody for; kernels with thresholds of 20 ms report it.
SHORT_S: Final = 1.0
#: With thresholds known to be lowered: at watchdog_thresh 1 a soft lockup takes 2 s, and its reports say up to 4.
SHORT_LOWERED_S: Final = 4.0
#: Reports of one pause have the same length and come together, within this.
TOGETHER_S: Final = 2.0
_ROTATING_MIN: Final = 3
#: Quiescent states were forced so often in vain: the grace-period thread ran all along.
_FQS_MIN: Final = 100


class Symptom(StrEnum):
    """Which part of the decision table an incident belongs to."""

    CPU = "cpu"
    TASK = "task"
    CLOCK = "clock"
    NETWORK = "network"
    VM = "vm"
    PANIC = "panic"


_SYMPTOMS: Final[Mapping[Kind, Symptom]] = {
    Kind.HUNG_TASK: Symptom.TASK,
    Kind.RCU_TASKS_STALL: Symptom.TASK,
    Kind.CLOCKSOURCE_UNSTABLE: Symptom.CLOCK,
    Kind.PANIC: Symptom.PANIC,
    Kind.VM_STOPPED: Symptom.VM,
    Kind.WATCHDOG: Symptom.VM,
}
_NETDEV: Final = "NETDEV WATCHDOG"
_OTHER_CPU: Final = (
    "smp_call_function", "csd_lock_wait", "multi_cpu_stop", "stop_machine", "stop_one_cpu", "text_poke",
    "flush_tlb", "native_flush_tlb", "kvm_flush_tlb", "on_each_cpu", "generic_exec_single", "synchronize_rcu",
    "synchronize_sched",
)  # fmt: skip
_IO: Final = (
    "io_schedule", "blk_mq_get_tag", "wait_on_page", "folio_wait", "wait_on_buffer", "__wait_on_buffer",
    "submit_bio_wait", "blkdev_issue_flush", "jbd2_log_wait_commit", "jbd2_journal_commit", "xlog_", "xfs_log",
    "xfs_buf_iowait", "bit_wait_io", "rq_qos_wait", "blk_execute_rq", "dio_await", "__blkdev_direct_IO",
)  # fmt: skip
#: Sleeps that only a timer ends. Who naps again and again is no hung task: it was switched to in between.
_NAP: Final = ("msleep", "usleep_range")
#: schedule_timeout and schedule stand above it.
_NAP_DEPTH: Final = 6
_GUEST_DAEMON: Final = ("request_wait_answer", "fuse_", "__fuse_", "fanotify_", "autofs_", "call_usermodehelper")
_VIRTIOFS: Final = ("virtio_fs_", "virtiofs_")
_9P: Final = ("p9_", "v9fs_")
_GRACE: Final = ("synchronize_rcu", "synchronize_srcu", "rcu_barrier", "synchronize_sched", "wait_rcu_exp_gp")
_LOCK: Final = (
    "__mutex_lock", "mutex_lock", "rwsem_down", "down_read", "down_write", "rtnl_lock", "__down",
    "schedule_preempt_disabled",
)  # fmt: skip
_DESIGN: Final = (
    "ptrace_stop",
    "ptrace_notify",
    "coredump_wait",
    "coredump_task_exit",
    "dump_emit",
    "do_coredump",
    "__refrigerator",
    "do_freezer_trap",
)
_MEMORY: Final = (
    "virtballoon_", "balloon_", "fill_balloon", "leak_balloon", "swap_readpage", "swap_read_folio", "do_swap_page",
    "offline_pages", "online_pages", "memory_block_change_state", "memory_subsys_",
)  # fmt: skip
_INJECTORS: Final = ("lkdtm_", "rcu_torture_stall")
#: How kernels begin to say why they panic (init/do_mounts.c, init/main.c, kernel/exit.c, mm/oom_kill.c).
_NO_ROOT: Final = ("VFS: Unable to mount root", "No working init found", "No init found", "Requested init ")
_NO_MEMORY: Final = ("Out of memory", "System is deadlocked on memory")
_INIT: Final = re.compile(r"Attempted to kill init!(?: exitcode=0x(?P<code>[0-9a-f]{1,8}))?")
#: By the architecture: an exception in the kernel, or in what must not die.
_OOPS: Final = re.compile(
    r"(?:.*: )?Fatal exception|Aiee, killing interrupt|stack-protector: |corrupted stack end|Oops"
)
_HARDWARE: Final = re.compile(r"(?i)machine check|hardware error|serror|external abort|broadcast exception|iock error")
_ASKED: Final = ("sysrq_handle_crash", "write_sysrq_trigger")
_SIGBUS: Final = 7
_SLOW_CLOCKS: Final = ("hpet", "acpi_pm", "acpi-pm")
_VIRTUAL: Final = (
    "qemu", "kvm", "vmware", "virtualbox", "innotek", "xen", "hvm domu", "microsoft corporation virtual",
    "virtual machine", "amazon ec2", "google compute", "bochs", "openstack", "alibaba cloud",
    "cloud-hypervisor", "parallels",
)  # fmt: skip


def symptom(incident: Incident) -> Symptom:
    """Return the part of the table; a panic belongs to what it followed, or to the VM that it is told of."""
    if incident.vm:
        return Symptom.VM
    kind = incident.root.kind
    if any(note.startswith(_NETDEV) for note in incident.root.notes):
        return Symptom.NETWORK
    if kind is Kind.WORKQUEUE_LOCKUP:
        # A pool that is bound to a CPU hangs with it, any other waits for a task.
        return Symptom.CPU if len(incident.root.cpus) == 1 else Symptom.TASK
    return _SYMPTOMS.get(kind, Symptom.CPU)


def function(frame: str) -> str:
    """Return the name of a frame's function: without marks, address, offset and module."""
    name = frame.removeprefix("? ").strip().partition(" ")[0].partition("+")[0]
    return name.rpartition(":")[2].partition(".")[0]


def has_frame(report: Report, starts: tuple[str, ...], depth: int | None = None) -> bool:
    """Return whether one of the first `depth` frames begins with one of `starts`."""
    return any(function(frame).startswith(starts) for frame in report.frames[:depth])


# Below the scheduler and helpers that wait for anything: a frame further out says what for, and not for whom.
def _waits_in(report: Report, starts: tuple[str, ...]) -> bool:
    return anchor([function(frame) for frame in report.frames]).startswith(starts)


def waits_for_cpu(report: Report) -> bool:
    """Return whether what it blames waits for an answer of another CPU, which is then the one to ask about."""
    return report.kind is not Kind.CSD_STALL and has_frame(report, _OTHER_CPU, 4)


def waits_for_grace(incident: Incident) -> bool:
    """Return whether a task waits for a grace period of RCU."""
    return has_frame(incident.root, _GRACE)


def asks_virtiofsd(report: Report) -> bool:
    """Return whether a task waits for the daemon that serves a virtio-fs, which the host runs."""
    return has_frame(report, _VIRTIOFS)


def asks_vmm(report: Report) -> bool:
    """Return whether a task waits for a file system that the VMM serves itself."""
    return has_frame(report, _9P)


def _length_s(incident: Incident) -> float | None:
    found = incident.duration or incident.root.duration
    return None if found is None else found.high


def _short(incident: Incident) -> bool:
    length = _length_s(incident)
    kinds = (Kind.RCU_EXP_STALL, Kind.SCX_LOCKUP, Kind.SCX_STALL)
    return length is not None and length < SHORT_S and incident.root.kind in kinds


def _short_lowered(incident: Incident) -> bool:
    length = _length_s(incident)
    return length is not None and length < SHORT_LOWERED_S


# It looped: its ticks came all along, or the CPU itself says in which function of the kernel it was.
def _looped(incident: Incident) -> bool:
    root = incident.root
    if root.shape is Shape.RAN:
        return True
    return root.kind is Kind.SOFT_LOCKUP and bool(root.frames) and not waits_for_cpu(root)


def _silent(incident: Incident) -> bool:
    root, numbers = incident.root, incident.root.numbers
    if not root.frames:
        return False
    if root.kind is Kind.HARD_LOCKUP or root.shape is Shape.SILENT:
        return True
    # Rows that have no ticks: inside the kernel while others forced quiescent states again and again.
    return root.shape is Shape.NO_TICKS and numbers.get("nest", 0) >= 1 and numbers.get("fqs", 0) >= _FQS_MIN


def _module(incident: Incident) -> bool:
    return bool(incident.root.module)


# No stack came, or what ran was a program of the guest.
def _no_place(incident: Incident) -> bool:
    return not incident.root.frames or bool(incident.root.numbers.get("in_user_space"))


def _together(incident: Incident) -> bool:
    found = [report for report in incident.reports if report.cpus and report.duration and report.ts_ns is not None]
    for one in found:
        for other in found:
            if one.cpus == other.cpus or one.duration is None or other.duration is None:
                continue
            near = abs((one.ts_ns or 0) - (other.ts_ns or 0)) <= TOGETHER_S * 1e9
            if near and abs(one.duration.high - other.duration.high) <= TOGETHER_S:
                return True
    return False


def _rotating(incident: Incident) -> bool:
    blamed = [report for report in incident.reports if report.kind is Kind.SOFT_LOCKUP and report.pid is not None]
    if len({report.pid for report in blamed}) < _ROTATING_MIN:
        return False
    frames = [{function(frame) for frame in report.frames} for report in blamed]
    return not set.intersection(*frames)


def _locked(incident: Incident) -> bool:
    return has_frame(incident.root, _LOCK) or bool(incident.root.holder)


def _io(incident: Incident) -> bool:
    return has_frame(incident.root, _IO)


# virtio-fs is FUSE whose daemon is on the host.
def _guest_daemon(incident: Incident) -> bool:
    root = incident.root
    if _io(incident) or _locked(incident) or asks_virtiofsd(root):
        return False
    return _waits_in(root, _GUEST_DAEMON)


# The note says that a core was dumped of the task, and not that it waits for that (kernel/hung_task.c).
def _design(incident: Incident) -> bool:
    if _io(incident) or _locked(incident):
        return False
    return _waits_in(incident.root, _DESIGN) or "Blocked by coredump." in incident.root.notes


def _slow_clock(incident: Incident) -> bool:
    texts = (*incident.root.notes, *(line.text for line in incident.root.lines))
    emulated = any(name in text for text in texts for name in _SLOW_CLOCKS)
    return emulated and any("read-back delay" in text or "Long readout" in text for text in texts)


def _names_vm(texts: Iterable[str]) -> bool:
    return any(name in text.lower() for text in texts for name in _VIRTUAL)


def on_host(incident: Incident) -> bool:
    """Return whether the producer says that it is a host, and its hardware names no hypervisor."""
    hardware = (incident.root.hardware, *(report.hardware for report in incident.reports))
    return incident.source.layer == "host" and not _names_vm(hardware)


# Why it panicked, where nothing else that is known stood before.
def _why(incident: Incident) -> str:
    return panic_reason(incident.root) if incident.root.kind is Kind.PANIC else ""


def _asked(incident: Incident) -> bool:
    return _why(incident).startswith("sysrq triggered crash") or has_frame(incident.root, _ASKED)


def _init_died(incident: Incident) -> bool:
    return _INIT.match(_why(incident)) is not None and not _bus_error(incident)


# A signal of the exit code is in its lowest bits; this one is a page that could not be read.
def _bus_error(incident: Incident) -> bool:
    found = _INIT.match(_why(incident))
    return found is not None and int(found["code"] or "0", 16) & 0x7F == _SIGBUS


def _hardware(incident: Incident) -> bool:
    texts = (_why(incident), *incident.root.notes)
    return incident.root.kind is Kind.PANIC and any(_HARDWARE.search(text) for text in texts)


def _oops(incident: Incident) -> bool:
    found = _OOPS.match(_why(incident)) is not None and bool(incident.root.frames)
    return found and not _hardware(incident) and not _asked(incident)


def _scx(incident: Incident) -> bool:
    return incident.root.kind in (Kind.SCX_LOCKUP, Kind.SCX_STALL)


#: What the table asks of the text, by name: the question, and what a yes says.
QUESTIONS: Final[Mapping[str, tuple[Callable[[Incident], bool], str]]] = {
    "short": (_short, f"it took less than {SHORT_S:g} s"),
    "short_lowered": (_short_lowered, f"it took less than {SHORT_LOWERED_S:g} s"),
    "looped": (_looped, "the CPU ran in one place of the kernel all along"),
    "silent": (_silent, "the CPU answered nothing, and its stack was seen"),
    "nothing_ran": (lambda each: each.root.shape is Shape.NOTHING_RAN, "nothing ran on the CPU (shape B)"),
    "in_part": (lambda each: each.root.shape is Shape.IN_PART, "the CPU ran in part (shape D)"),
    "module": (_module, "the stack's own frame is of a module"),
    "no_module": (lambda each: not _module(each), "the stack's own frame is of no module"),
    "no_place": (_no_place, "the stack shows no place in the kernel"),
    "together": (_together, "several CPUs report the same length at once"),
    "rotating": (_rotating, "each report blames another task, and no frame is common"),
    "scx": (_scx, "sched_ext gave up a scheduler"),
    "injected": (
        lambda each: any(has_frame(report, _INJECTORS) for report in (each.root, *each.reports)),
        "the stack is of a module that injects failures",
    ),
    "io": (_io, "the stack waits for a disk"),
    "guest_daemon": (_guest_daemon, "the stack waits for a daemon of the guest"),
    "host_daemon": (
        lambda each: asks_virtiofsd(each.root) or asks_vmm(each.root),
        "the stack waits for a daemon of the host",
    ),
    "naps": (lambda each: has_frame(each.root, _NAP, _NAP_DEPTH), "the task sleeps for a time of its own choice"),
    "locked": (_locked, "the task waits for a lock"),
    "design": (_design, "the task stands because somebody wants it to: a debugger, a core dump, a freezer"),
    "guest_memory": (lambda each: has_frame(each.root, _MEMORY), "the stack waits for memory that the host must give"),
    "vm_stopped": (lambda each: each.root.kind is Kind.VM_STOPPED, "the monitor told that the VM was stopped"),
    "vm_panicked": (lambda each: each.root.kind is Kind.PANIC, "the monitor told that the guest panicked"),
    "vm_watchdog": (lambda each: each.root.kind is Kind.WATCHDOG, "the guest did not feed its watchdog in time"),
    "asked": (_asked, "somebody asked the kernel to crash (sysrq)"),
    "init_died": (_init_died, "its first program ended"),
    "bus_error": (_bus_error, "its first program was killed by a bus error"),
    "hardware": (_hardware, "the kernel tells of an error of the hardware"),
    "oops": (_oops, "the kernel met an exception in its own code, and its stack was seen"),
    "on_host": (on_host, "it is the kernel of a host"),
    "in_guest": (lambda each: not on_host(each), "it is not said to be the kernel of a host"),
    "no_root": (
        lambda each: _why(each).startswith(_NO_ROOT),
        "the kernel found no root file system, or no program to begin with",
    ),
    "no_memory": (lambda each: _why(each).startswith(_NO_MEMORY), "the kernel's memory ran out"),
    "stood_still": (
        lambda each: _why(each).startswith(STOOD_STILL),
        "the kernel panicked because something stood still",
    ),
    "slow_clock": (_slow_clock, "the clock that watches is emulated, and was slow to read"),
}
