"""Evidence with its coverage: a fact is known, or it is said that it is not and how to get it. Blind is never absent.

The ids are those of the inventory of evidence: G the guest, H the host, M the map between them and what was lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final, Generic, NamedTuple, TypeVar

from consumers.verdict.shares import Shares
from consumers.verdict.verdict import Evidence, Record

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """What is known of one thing, or (`value` None) why it is not.

    Not `complete`: something of its streams is missing, so that what was found holds, and what was not proves nothing.
    `text` says it for people, `records` are where it is stored.
    """

    value: T | None = None
    text: str = ""
    records: tuple[Record, ...] = ()
    complete: bool = True
    why: str = ""
    remedy: str = ""


def known(value: T, text: str = "", records: tuple[Record, ...] = (), *, complete: bool = True) -> Fact[T]:
    """Return a fact."""
    return Fact(value, text, records, complete)


def unknown(why: str, remedy: str = "") -> Fact[T]:
    """Return that nothing is known; without a `remedy` it is the usual one of that fact."""
    return Fact(why=why, remedy=remedy)


def holds(fact: Fact[bool]) -> bool | None:
    """Return whether it is so; None where that is not known."""
    if fact.value is None or (not fact.value and not fact.complete):
        return None
    return fact.value


class About(NamedTuple):
    """What a fact is: its id in the inventory, what it says, and how to get it."""

    id: str
    title: str
    remedy: str


_KVM: Final = "record kvm:kvm_entry, kvm:kvm_exit and kvm:kvm_userspace_exit of the host (surface ftrace)"
_KMSG: Final = "run the agent on the host with the surface kmsg"
_BLOCK: Final = "run the agent on the host with the BPF program block-io"
_SCHED: Final = "record sched:sched_switch and sched:sched_wakeup of the host (surface ftrace)"
_QMP: Final = "configure the VM's monitor (surface qmp)"
_THREADS: Final = "run the agent on the host with the surface vcpu-time"
ABOUT: Final[Mapping[str, About]] = {
    "host": About("H1", "any stream of the host over the interval", "run the agent on the host of this VM"),
    "mapped": About(
        "M1", "which thread of the host runs which vCPU", "run the agent on the host with the surface topology"
    ),
    "lost": About(
        "M2", "what was lost of the streams used", "read `hypocenter losses`; give rings and spool more room"
    ),
    "clock_error_s": About(
        "M2", "the guest's time on the host's clock", "run the relay, or the surface clocks on guest and host"
    ),
    "vcpu": About(
        "H1",
        "where the vCPU's time went on the host",
        "run the agent on the host with the surfaces topology and vcpu-time, and the BPF program vcpu for every stay",
    ),
    "exits": About("H2", "what the time in KVM or the VMM was for", _KVM),
    "exit_storm": About(
        "H2",
        "whether KVM left the vCPU far more often than before",
        "configure the VM's monitor (surface qmp, QEMU 7.1 or newer)",
    ),
    "sleep_memory": About("H1", "whether the vCPU's thread slept for memory", "run the BPF program vcpu; " + _SCHED),
    "sleep_io": About("H1", "whether the vCPU's thread slept for a disk", "run the BPF program vcpu on the host"),
    "memory": About("H3", "pressure on the host's memory", "run the agent on the host with the surface procfs"),
    "host_lockup": About("H5", "a lockup or stall on the host's CPU that carried the vCPU", _KMSG),
    "host_hardware": About("H5", "an error of the hardware on the host's CPU that carried the vCPU", _KMSG),
    "io_slow": About("H6", "requests to the disk behind the guest's, slow or open", _BLOCK),
    "io_error": About("H4", "errors of I/O that the VMM had", _QMP),
    "vm_paused": About("H4", "whether the VM was paused by its monitor, a snapshot or a migration", _QMP),
    "vm_internal": About("H4", "whether the VMM stopped over an error of its own", _QMP),
    "monitored": About("H4", "what the VM's monitor said over the whole time", _QMP),
    "io_limited": About(
        "H4", "whether the VMM held requests back to a limit", _QMP + "; run the guest's agent with the surface procfs"
    ),
    "io_timeout": About("H5", "timeouts of the VM's disks in the host's log", _KMSG),
    "io_done": About(
        "H4", "that the VMM had ended the request", _QMP + "; run the guest's agent with the surface procfs"
    ),
    "io_seen": About("H6", "that the request reached the host's disk", _BLOCK + ", and the surfaces vcpu-time and qmp"),
    "io_network": About(
        "H6",
        "the link or the server behind a disk over the network",
        "collect the kernel log of whoever serves the disk",
    ),
    "iothread": About("H1", "where the time of the VM's I/O thread went", _THREADS),
    "main_loop": About("H1", "where the time of the VMM's main loop went", _THREADS),
    "vhost": About("H1", "where the time of the vhost thread went", _THREADS),
    "timer_due": About(
        "H2", "whether a timer or interrupt was due and not delivered", "record kvm:kvm_set_irq of the host"
    ),
    "hog": About("G5", "a real-time task that kept the guest's CPU", "record sched:sched_switch of the guest"),
    "rt_line": About("G1", "the guest's line that real-time tasks were throttled", "collect the guest's kernel log"),
    "marker": About(
        "G1", "the mark of a test that injects failures", "collect the guest's kernel log before the report"
    ),
    "thresholds": About(
        "G3", "whether thresholds are lower than usual", "run the guest's agent with the surface procfs"
    ),
    "bare": About("M1", "whether the machine is a VM", "run the agent on the host with the surface topology"),
    "hardware": About("H5", "errors of the hardware in the machine's own log", "collect the machine's kernel log"),
    "many_vms": About(
        "H4", "whether other VMs of the host had the same", "collect the kernel logs of its other guests"
    ),
    "host_suspend": About("H5", "whether the host was suspended", _KMSG),
    "tsc_write": About("H7", "whether the guest's TSC was moved", "record kvm:kvm_write_tsc_offset of the host"),
    "daemon_stuck": About("H1", "whether the daemon that is waited for stood", _THREADS + ", which follows virtiofsd"),
}


@dataclass(slots=True)
class Facts:
    """All that is known beside the text, over the time in question of `length_s`.

    `vcpus` is by the guest's number of the CPU. `found` is evidence that decides nothing and is worth telling.
    """

    length_s: float | None = None
    vcpus: dict[int, Fact[Shares]] = field(default_factory=dict)
    found: tuple[Evidence, ...] = ()
    host: Fact[bool] = Fact()
    mapped: Fact[bool] = Fact()
    lost: Fact[int] = Fact()
    clock_error_s: Fact[float] = Fact()
    exits: Fact[str] = Fact()
    exit_storm: Fact[bool] = Fact()
    sleep_memory: Fact[bool] = Fact()
    sleep_io: Fact[bool] = Fact()
    memory: Fact[bool] = Fact()
    host_lockup: Fact[bool] = Fact()
    host_hardware: Fact[bool] = Fact()
    io_slow: Fact[bool] = Fact()
    io_error: Fact[bool] = Fact()
    io_limited: Fact[bool] = Fact()
    vm_paused: Fact[bool] = Fact()
    vm_internal: Fact[bool] = Fact()
    monitored: Fact[bool] = Fact()
    io_timeout: Fact[bool] = Fact()
    io_done: Fact[bool] = Fact()
    io_seen: Fact[bool] = Fact()
    io_network: Fact[bool] = Fact()
    iothread: Fact[Shares] = Fact()
    main_loop: Fact[Shares] = Fact()
    vhost: Fact[Shares] = Fact()
    timer_due: Fact[bool] = Fact()
    hog: Fact[bool] = Fact()
    rt_line: Fact[bool] = Fact()
    marker: Fact[bool] = Fact()
    thresholds: Fact[bool] = Fact()
    bare: Fact[bool] = Fact()
    hardware: Fact[bool] = Fact()
    many_vms: Fact[bool] = Fact()
    host_suspend: Fact[bool] = Fact()
    tsc_write: Fact[bool] = Fact()
    daemon_stuck: Fact[bool] = Fact()

    @classmethod
    def none(cls) -> "Facts":
        """Return that nothing is known but the text."""
        return cls()

    def flag(self, name: str) -> Fact[bool]:
        """Return the fact `name`, which is or is not so."""
        fact: Fact[bool] = getattr(self, name)
        return fact

    def shares(self, name: str) -> Fact[Shares]:
        """Return where the time of the thread `name` went."""
        fact: Fact[Shares] = getattr(self, name)
        return fact


#: The names of threads beside the vCPUs.
HELPERS: Final = ("iothread", "main_loop", "vhost")
#: The names of what can be known or not.
NAMES: Final = tuple(each.name for each in fields(Facts) if each.name not in ("length_s", "vcpus", "found"))
