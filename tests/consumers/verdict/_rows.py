"""For each row of the decision table an incident and facts, constructed, with the answer that they must give."""

from dataclasses import replace
from typing import NamedTuple

from consumers.incidents.incident import Incident
from consumers.reports.report import Kind, Shape
from consumers.verdict.facts import Facts, known
from consumers.verdict.verdict import Confidence, Owner
from tests.consumers.verdict._cases import SOURCE, facts, incident, report, times

HIGH, MEDIUM, LOW, NONE = Confidence.HIGH, Confidence.MEDIUM, Confidence.LOW, Confidence.NONE
SPIN = ("hyplab_burn+0x15/0x30", "hyplab_spin+0x2c/0x70", "kthread+0xda/0x100")
LOOP = ("rhashtable_walk_next", "inet_diag_dump", "netlink_dump")
IPI = ("smp_call_function_many_cond", "on_each_cpu_cond_mask", "text_poke_bp_batch")
DISK = ("__schedule", "schedule", "io_schedule", "bit_wait_io", "ext4_sync_file")
DUMP = (*DISK, "dump_emit", "elf_core_dump", "do_coredump")
NAP = ("__schedule", "schedule", "schedule_timeout", "msleep", "hyplab_hold", "kthread")
GUEST = {"G": 0.98, "X": 0.01, "W": 0.01}
HUNG = Kind.HUNG_TASK


def _netdev():
    return incident(notes=("NETDEV WATCHDOG: eth0 (virtio_net)",))


def vm(kind=Kind.VM_STOPPED):
    """Return what a host says of its VM."""
    found = incident(report(kind, (), 40.0), source=SOURCE._replace(layer="virtual-platform"))
    found.vm = "web-7"
    return found


def panic(why, *notes, source=SOURCE, **more):
    """Return what a kernel says of its own end."""
    said = (*notes, f"Kernel panic - not syncing: {why}")
    return incident(report(Kind.PANIC, (0,), None, notes=said, **more), source=source)


class Case(NamedTuple):
    name: str
    row: str
    owner: Owner
    confidence: Confidence
    incident: Incident
    facts: Facts
    shared: Owner | None = None


def hung(frames=DISK, *others, **more):
    return incident(report(HUNG, length_s=120.0, frames=frames, **more), *others)


def rcu(shape, ticks=None, kind=Kind.RCU_STALL, **more):
    return report(kind, shape=shape, **{"numbers": {} if ticks is None else {"ticks": ticks}} | more)


def _disk(**more):
    return facts(length_s=120.0, **more)


_PAUSED = facts(times(T=0.97, GX=0.03))
_HOST = SOURCE._replace(layer="host")
_STALL = rcu(Shape.RAN, frames=LOOP)
CASES = (
    Case("frozen", "C1", Owner.VMM_PAUSE, HIGH, incident(), _PAUSED),
    Case("starved", "C2", Owner.HOST_CPU, HIGH, incident(), facts(times(W=0.8, GX=0.2))),
    Case("starved in part", "C2", Owner.HOST_CPU, MEDIUM, incident(rcu(Shape.IN_PART, 2000)), facts(times(W=0.29, GX=0.7, SH=0.01))),
    Case("starved and idle", "C2", Owner.HOST_CPU, MEDIUM, incident(), facts(times(W=0.45, GX=0.2, H=0.35))),
    Case("waited and ran enough", "-", Owner.UNDETERMINED, NONE, incident(), facts(times(W=0.29, GX=0.71))),
    Case("swapped", "C3", Owner.HOST_MEMORY, HIGH, incident(), facts(times(S=0.9, GX=0.1), memory=True)),
    Case("page fault", "C3", Owner.HOST_MEMORY, HIGH, incident(), facts(times(S=0.9, GX=0.1), sleep_memory=True)),
    Case(
        "synchronous disk", "C4", Owner.STORAGE_BACKEND, HIGH, incident(),
        facts(times(S=0.9, GX=0.1), sleep_io=True, io_slow=True),
    ),
    Case("VMM loops", "C5", Owner.VMM_BUG, MEDIUM, incident(), facts(times(X=0.9, G=0.1), exits="userspace")),
    Case("KVM loops", "C5", Owner.HOST_KERNEL, MEDIUM, incident(), facts(times(X=0.9, G=0.1), exits="kernel")),
    Case("exits storm", "C5", Owner.VMM_BUG, MEDIUM, incident(), facts(times(GX=0.9, W=0.1), exit_storm=True)),
    Case("host locked up", "C6", Owner.HOST_KERNEL, HIGH, incident(), facts(times(GX=0.3, SH=0.7), host_lockup=True)),
    Case(
        "machine check", "C6", Owner.HARDWARE_FIRMWARE, HIGH, incident(),
        facts(times(GX=0.3, SH=0.7), host_hardware=True),
    ),
    Case("host locked up, VM paused", "C1", Owner.VMM_PAUSE, HIGH, incident(), replace(_PAUSED, host_lockup=known(True))),
    Case("host locked up, vCPU waited", "C6", Owner.HOST_KERNEL, HIGH, incident(), facts(times(W=0.8, GX=0.2), host_lockup=True)),
    Case("machine check of a paused VM", "C1", Owner.VMM_PAUSE, HIGH, incident(), replace(_PAUSED, host_hardware=known(True))),
    Case(
        "machine check on a busy host", "C2", Owner.HOST_CPU, HIGH, incident(),
        facts(times(W=0.8, GX=0.2), host_hardware=True),
    ),
    Case(
        "machine check, swapped", "C3", Owner.HOST_MEMORY, HIGH, incident(),
        facts(times(S=0.9, GX=0.1), memory=True, host_hardware=True),
    ),
    Case(
        "machine check, waited in part", "C6", Owner.HARDWARE_FIRMWARE, HIGH, incident(),
        facts(times(W=0.45, GX=0.2, H=0.35), host_hardware=True),
    ),
    Case(
        "machine check and locked up", "C6", Owner.HARDWARE_FIRMWARE, HIGH, incident(),
        facts(times(W=0.8, GX=0.2), host_hardware=True, host_lockup=True),
    ),
    Case("kernel loops", "C7", Owner.GUEST_KERNEL, HIGH, incident(frames=LOOP), facts(times(**GUEST))),
    Case("ticks all along", "C7", Owner.GUEST_KERNEL, HIGH, incident(rcu(Shape.RAN)), facts(times(**GUEST))),
    Case("no exits known", "C7", Owner.GUEST_KERNEL, MEDIUM, incident(frames=LOOP), facts(times(GX=0.99, W=0.01))),
    Case(
        "module loops", "C7", Owner.GUEST_DRIVER, HIGH, incident(frames=SPIN, module="hyplab"), facts(times(**GUEST))
    ),
    Case("interrupts off", "C8", Owner.GUEST_KERNEL, MEDIUM, incident(rcu(Shape.SILENT, 2, frames=LOOP)), facts(times(**GUEST))),
    Case(
        "module, interrupts off", "C8", Owner.GUEST_DRIVER, MEDIUM,
        incident(rcu(Shape.SILENT, 2, frames=SPIN, module="hyplab")), facts(times(**GUEST)),
    ),
    Case("loops on a busy host", "C7", Owner.GUEST_KERNEL, MEDIUM, incident(frames=LOOP), facts(times(GX=0.75, W=0.25))),
    Case(
        "module loops on a busy host", "C7", Owner.GUEST_DRIVER, MEDIUM, incident(frames=SPIN, module="hyplab"),
        facts(times(GX=0.75, W=0.25)),
    ),
    Case(
        "interrupts off on a busy host", "C8", Owner.GUEST_KERNEL, MEDIUM,
        incident(rcu(Shape.SILENT, 2, frames=LOOP)), facts(times(GX=0.75, W=0.25)),
    ),
    Case(
        "module, interrupts off on a busy host", "C8", Owner.GUEST_DRIVER, MEDIUM,
        incident(rcu(Shape.SILENT, 2, frames=SPIN, module="hyplab")), facts(times(GX=0.75, W=0.25)),
    ),
    Case(
        "hard lockup", "C8", Owner.GUEST_KERNEL, MEDIUM, incident(kind=Kind.HARD_LOCKUP, length_s=None, frames=LOOP),
        facts(times(**GUEST)),
    ),
    Case(
        "timer lost", "C9", Owner.VMM_BUG, MEDIUM, incident(rcu(Shape.NOTHING_RAN, 1)),
        facts(times(H=0.97, GX=0.03), timer_due=True),
    ),
    Case(
        "timer not armed", "C9", Owner.GUEST_KERNEL, LOW, incident(rcu(Shape.NOTHING_RAN, 1)),
        facts(times(H=0.97, GX=0.03), timer_due=False),
    ),
    Case("halted", "C9", Owner.UNDETERMINED, NONE, incident(rcu(Shape.NOTHING_RAN, 1)), facts(times(H=0.97, GX=0.03))),
    Case(
        "victim of an IPI", "C1", Owner.VMM_PAUSE, HIGH,
        incident(report(cpus=(0,), frames=IPI), report(ts_s=106, length_s=14.0)), _PAUSED,
    ),
    Case("waits for nobody known", "C10", Owner.UNDETERMINED, NONE, incident(cpus=(0,), frames=IPI), facts(times(**GUEST), cpu=0)),
    Case(
        "whole VM in part", "C11", Owner.VMM_PAUSE, MEDIUM, incident(report(cpus=(0,)), report(ts_s=100.5)),
        facts(times(T=0.4, GX=0.3, SH=0.3), cpu=0),
    ),
    Case("whole VM", "C11", Owner.UNDETERMINED, NONE, incident(report(cpus=(0,)), report(ts_s=100.5)), facts()),
    Case(
        "victims rotate", "C12", Owner.UNDETERMINED, NONE,
        incident(*(report(cpus=(0,), task=f"t{i}", pid=i, frames=(f"f{i}",), ts_s=100 + 30 * i) for i in range(3))),
        facts(),
    ),
    Case("scheduler of BPF", "C13", Owner.GUEST_POLICY, MEDIUM, incident(kind=Kind.SCX_STALL, length_s=30.0), facts(times(**GUEST))),
    Case("RT throttling", "C13", Owner.GUEST_POLICY, MEDIUM, incident(), facts(times(**GUEST), rt_line=True)),
    Case(
        "RT throttling, a program runs", "C13", Owner.GUEST_POLICY, MEDIUM,
        incident(rcu(Shape.RAN, numbers={"ticks": 5000, "in_user_space": 1})), facts(times(**GUEST), rt_line=True),
    ),
    Case(
        "RT throttling, module loops", "C7", Owner.GUEST_DRIVER, HIGH, incident(frames=SPIN, module="hyplab"),
        facts(times(**GUEST), rt_line=True),
    ),
    Case(
        "RT throttling, interrupts off", "C8", Owner.GUEST_KERNEL, MEDIUM, incident(rcu(Shape.SILENT, 2, frames=LOOP)),
        facts(times(**GUEST), rt_line=True),
    ),
    Case("RT throttling, no times", "-", Owner.UNDETERMINED, NONE, incident(frames=SPIN, module="hyplab"), facts(rt_line=True)),
    Case("RT task", "C13", Owner.GUEST_POLICY, HIGH, incident(), facts(times(**GUEST), hog=True)),
    Case("RT task in a module", "C13", Owner.GUEST_POLICY, HIGH, incident(frames=SPIN, module="x"), facts(times(**GUEST), hog=True)),
    Case("20 ms", "C14", Owner.CONFIG_THRESHOLD, HIGH, incident(kind=Kind.RCU_EXP_STALL, length_s=0.02), facts(times(**GUEST))),
    Case("thresholds lowered", "C14", Owner.CONFIG_THRESHOLD, HIGH, incident(length_s=2.0), facts(times(**GUEST), thresholds=True)),
    Case("lkdtm", "C15", Owner.INJECTED, HIGH, incident(frames=("lkdtm_SOFTLOCKUP",)), facts(times(**GUEST))),
    Case("marked", "C15", Owner.INJECTED, HIGH, incident(frames=LOOP), facts(times(**GUEST), marker=True)),
    Case(
        "bare metal", "C16", Owner.HOST_KERNEL, MEDIUM, incident(frames=LOOP, source=_HOST), facts(bare=True)
    ),
    Case(
        "bare metal, module", "C16", Owner.GUEST_DRIVER, MEDIUM, incident(frames=SPIN, module="x", source=_HOST), facts(bare=True)
    ),
    Case(
        "bare metal, errors", "C16", Owner.HARDWARE_FIRMWARE, MEDIUM, incident(source=_HOST), facts(bare=True, hardware=True)
    ),
    Case(
        "two explain it", "C1", Owner.VMM_PAUSE, MEDIUM, incident(), facts(times(T=0.45, W=0.4, GX=0.15)), Owner.HOST_CPU
    ),
    Case("one and a part", "C2", Owner.HOST_CPU, HIGH, incident(), facts(times(T=0.35, W=0.6, GX=0.05)), Owner.VMM_PAUSE),
    Case("disk slow", "S1", Owner.STORAGE_BACKEND, HIGH, hung(), _disk(io_slow=True)),
    Case("QEMU's error", "S1", Owner.STORAGE_BACKEND, HIGH, hung(), _disk(io_error=True)),
    Case("disk limited", "S1", Owner.STORAGE_BACKEND, MEDIUM, hung(), _disk(io_limited=True)),
    Case("host's disk timed out", "S1", Owner.STORAGE_BACKEND, MEDIUM, hung(), _disk(io_timeout=True)),
    Case("network disk", "S1", Owner.NETWORK_BACKEND, HIGH, hung(), _disk(io_slow=True, io_network=True)),
    Case("answered", "S2", Owner.GUEST_KERNEL, MEDIUM, hung(), _disk(io_slow=False, io_done=True)),
    Case("I/O thread starved", "S3", Owner.HOST_CPU, HIGH, hung(), _disk(io_seen=False, iothread=times(W=0.9, X=0.1))),
    Case("I/O thread frozen", "S3", Owner.VMM_PAUSE, HIGH, hung(), _disk(io_seen=False, iothread=times(T=0.9, SH=0.1))),
    Case("I/O thread busy", "S3", Owner.VMM_BUG, MEDIUM, hung(), _disk(io_seen=False, iothread=times(X=0.9, SH=0.1))),
    Case(
        "I/O thread swapped out", "S3", Owner.HOST_MEMORY, HIGH, hung(),
        _disk(io_seen=False, iothread=times(S=0.9, X=0.1), memory=True),
    ),
    Case(
        "I/O thread frozen on a busy host", "S3", Owner.VMM_PAUSE, HIGH, hung(),
        facts(times(W=0.6, GX=0.4), length_s=120.0, io_seen=False, iothread=times(T=0.9, SH=0.1)),
    ),
    Case("I/O thread half known", "S3", Owner.HOST_CPU, MEDIUM, hung(), _disk(io_seen=False, iothread=times(W=0.6))),
    Case("main loop starved", "S3", Owner.HOST_CPU, HIGH, hung(), _disk(io_seen=False, main_loop=times(W=0.9, X=0.1))),
    Case("main loop frozen", "S3", Owner.VMM_PAUSE, HIGH, hung(), _disk(io_seen=False, main_loop=times(T=0.9, SH=0.1))),
    Case("main loop busy", "S3", Owner.VMM_BUG, MEDIUM, hung(), _disk(io_seen=False, main_loop=times(X=0.9, SH=0.1))),
    Case(
        "main loop swapped out", "S3", Owner.HOST_MEMORY, HIGH, hung(),
        _disk(io_seen=False, main_loop=times(S=0.9, X=0.1), memory=True),
    ),
    Case("I/O thread asleep", "S4", Owner.UNDETERMINED, NONE, hung(), _disk(io_seen=False, iothread=times(SH=1.0))),
    Case("disk, no host data", "S4", Owner.UNDETERMINED, NONE, hung(), Facts.none()),
    Case("FUSE", "S5", Owner.GUEST_USERSPACE, MEDIUM, hung(("request_wait_answer", "fuse_simple_request")), _disk()),
    Case("FUSE's daemon", "S5", Owner.GUEST_USERSPACE, HIGH, hung(("fuse_simple_request",)), _disk(daemon_stuck=True)),
    Case("virtiofsd", "S5", Owner.VMM_BUG, HIGH, hung(("virtio_fs_enqueue_req",)), _disk(daemon_stuck=True)),
    Case("lock, nobody known", "S6", Owner.UNDETERMINED, NONE, hung(("__mutex_lock", "hyplab_wait")), _disk()),
    Case("naps", "S6", Owner.GUEST_KERNEL, MEDIUM, hung(NAP), facts(times(SH=0.9, GX=0.1), length_s=120.0)),
    Case(
        "module naps", "S6", Owner.GUEST_DRIVER, MEDIUM, hung(NAP, module="hyplab"),
        facts(times(SH=0.9, GX=0.1), length_s=120.0),
    ),
    Case("naps, its CPU perhaps away", "-", Owner.UNDETERMINED, NONE, hung(NAP), facts(times(STH=0.9, GX=0.1), length_s=120.0)),
    Case(
        "lock's holder", "S1", Owner.STORAGE_BACKEND, HIGH,
        hung(("__mutex_lock",), report(HUNG, frames=DISK, pid=7, task="dd"), holder="dd:7"), _disk(io_slow=True),
    ),
    Case(
        "behind an RCU stall", "C7", Owner.GUEST_KERNEL, HIGH, hung(("synchronize_rcu",), _STALL), facts(times(**GUEST))
    ),
    Case("ptrace", "S8", Owner.GUEST_USERSPACE, MEDIUM, hung(("ptrace_stop", "get_signal")), _disk()),
    Case("core dump to a disk", "S4", Owner.UNDETERMINED, NONE, hung(DUMP), _disk()),
    Case("core dump to a disk, host not seen", "S4", Owner.UNDETERMINED, NONE, hung(DUMP), Facts.none()),
    Case("core dump to a slow disk", "S1", Owner.STORAGE_BACKEND, HIGH, hung(DUMP), _disk(io_slow=True)),
    Case("FUSE passes through", "S4", Owner.UNDETERMINED, NONE, hung((*DISK, "fuse_passthrough_read_iter")), _disk()),
    Case("balloon", "S9", Owner.HOST_MEMORY, MEDIUM, hung(("virtballoon_free_page_report",)), _disk(memory=True)),
    Case("task of a paused VM", "C1", Owner.VMM_PAUSE, HIGH, hung(), facts(times(T=0.9, GX=0.1), length_s=120.0)),
    Case("clock, paused", "K1", Owner.VMM_PAUSE, HIGH, incident(kind=Kind.CLOCKSOURCE_UNSTABLE, cpus=()), _PAUSED),
    Case("clock, starved", "K1", Owner.HOST_CPU, HIGH, incident(kind=Kind.CLOCKSOURCE_UNSTABLE, cpus=()), facts(times(W=0.9, GX=0.1))),
    Case(
        "TSC moved", "K1", Owner.VMM_BUG, HIGH, incident(kind=Kind.CLOCKSOURCE_UNSTABLE, cpus=()),
        facts(times(**GUEST), tsc_write=True),
    ),
    Case(
        "host suspended", "K2", Owner.VMM_PAUSE, HIGH, incident(kind=Kind.CLOCKSOURCE_UNSTABLE, cpus=()),
        facts(times(**GUEST), many_vms=True, host_suspend=True),
    ),
    Case(
        "HPET slow", "K3", Owner.VMM_BUG, MEDIUM,
        incident(kind=Kind.CLOCKSOURCE_UNSTABLE, cpus=(), notes=("clocksource: hpet read-back delay of 210000ns",)),
        facts(times(**GUEST), bare=False),
    ),
    Case(
        "TSC of bare metal", "K4", Owner.HARDWARE_FIRMWARE, MEDIUM,
        incident(kind=Kind.CLOCKSOURCE_UNSTABLE, cpus=(), source=_HOST), facts(bare=True, hardware=True),
    ),
    Case(
        "vhost starved", "N1", Owner.HOST_CPU, HIGH, _netdev(),
        facts(vhost=times(W=0.9, X=0.1)),
    ),
    Case(
        "vhost stuck", "N1", Owner.VMM_BUG, HIGH, _netdev(),
        facts(vhost=times(S=0.9, X=0.1)),
    ),
    Case("vhost frozen", "N1", Owner.VMM_PAUSE, HIGH, _netdev(), facts(vhost=times(T=0.9, X=0.1))),
    Case("network's main loop starved", "N1", Owner.HOST_CPU, HIGH, _netdev(), facts(main_loop=times(W=0.9, X=0.1))),
    Case("network's main loop frozen", "N1", Owner.VMM_PAUSE, HIGH, _netdev(), facts(main_loop=times(T=0.9, X=0.1))),
    Case("network's main loop stuck", "N1", Owner.VMM_BUG, HIGH, _netdev(), facts(main_loop=times(S=0.9, X=0.1))),
    Case("disk failed", "V1", Owner.STORAGE_BACKEND, HIGH, vm(), facts(io_error=True, monitored=True)),
    Case("disk failed, not watched", "V1", Owner.STORAGE_BACKEND, MEDIUM, vm(), facts(io_error=True)),
    Case("internal error", "V2", Owner.VMM_BUG, MEDIUM, vm(), facts(vm_internal=True, monitored=True)),
    Case("paused", "V3", Owner.VMM_PAUSE, HIGH, vm(), facts(vm_paused=True, monitored=True)),
    Case("panic", "V4", Owner.UNDETERMINED, NONE, vm(Kind.PANIC), facts(io_error=True, monitored=True)),
    Case("sysrq", "P1", Owner.GUEST_USERSPACE, MEDIUM, panic("sysrq triggered crash"), facts()),
    Case("sysrq of old", "P1", Owner.GUEST_USERSPACE, MEDIUM, panic("Fatal exception", frames=("sysrq_handle_crash",)), facts()),
    Case("panic on a broken CPU", "P2", Owner.HARDWARE_FIRMWARE, HIGH, panic("Fatal exception", frames=LOOP), facts(times(**GUEST), host_hardware=True)),
    Case("machine check of bare metal", "P2", Owner.HARDWARE_FIRMWARE, MEDIUM, panic("Fatal machine check", source=_HOST), facts(bare=True)),
    Case("machine check in a guest", "P2", Owner.UNDETERMINED, NONE, panic("Fatal machine check"), facts(bare=False)),
    Case("abort in a guest", "P2", Owner.UNDETERMINED, NONE, panic("synchronous external abort: Fatal exception", frames=LOOP), facts()),
    Case("oops", "P3", Owner.GUEST_KERNEL, MEDIUM, panic("Fatal exception in interrupt", frames=LOOP), facts()),
    Case("oops of arm64", "P3", Owner.GUEST_KERNEL, MEDIUM, panic("Oops - BUG: Fatal exception", frames=LOOP), facts()),
    Case("oops of a module", "P3", Owner.GUEST_DRIVER, MEDIUM, panic("Fatal exception", frames=SPIN, module="hyplab"), facts()),
    Case("oops of a host", "P3", Owner.HOST_KERNEL, MEDIUM, panic("Fatal exception", frames=LOOP, source=_HOST), facts(bare=True)),
    Case("oops whose stack is lost", "-", Owner.UNDETERMINED, NONE, panic("Fatal exception"), facts()),
    Case("init died", "P4", Owner.GUEST_USERSPACE, LOW, panic("Attempted to kill init! exitcode=0x0000000b"), facts()),
    Case("lines of the stall are lost", "P5", Owner.UNDETERMINED, NONE, panic("softlockup: hung tasks"), facts()),
    Case("no root", "P6", Owner.UNDETERMINED, NONE, panic("VFS: Unable to mount root fs on unknown-block(0,0)"), facts()),
    Case("no memory", "P7", Owner.UNDETERMINED, NONE, panic("Out of memory: compulsory panic_on_oom is enabled"), facts()),
    Case("init's disk", "P8", Owner.UNDETERMINED, NONE, panic("Attempted to kill init! exitcode=0x00000007"), facts()),
    Case("watchdog", "V5", Owner.UNDETERMINED, NONE, vm(Kind.WATCHDOG), facts(monitored=True)),
)  # fmt: skip
