"""The decision table as data: which conditions make whom the owner, how surely, and what a row needs to be told.

A condition is true, false, or not known. A row is an answer when all of its are true, whatever is not known beside it:
so whoever knows less has fewer answers and never another one. Thresholds of shares are of the time in question.
"""

from typing import Final, NamedTuple

from consumers.verdict.text import Symptom
from consumers.verdict.verdict import Confidence, Owner

#: Grows with each change of the table or of what decides beside it; every verdict carries it.
RULES_VERSION: Final = 5
#: Two owners that each explain so much are both told.
SHARED_MIN: Final = 0.3


#: The threads whose time is asked for: the accused vCPU's, and those that serve the guest's disks and networks.
THREADS: Final = {
    "vcpu": "the vCPU",
    "iothread": "the I/O thread",
    "main_loop": "the main loop of the VMM",
    "vhost": "the vhost thread",
}


class Share(NamedTuple):
    """At least, or at most, this share of a thread's time was one of `letters`."""

    letters: str
    at_least: float | None = None
    at_most: float | None = None
    of: str = "vcpu"


class Most(NamedTuple):
    """`letter` explains more of the time than any other of W, S and T."""

    letter: str


class Is(NamedTuple):
    """A fact holds, or (`so` False) is known not to."""

    fact: str
    so: bool = True


class Says(NamedTuple):
    """The text of the incident says so."""

    question: str


class Exits(NamedTuple):
    """Where the time outside the guest went: `userspace` or `kernel`."""

    where: str


class Either(NamedTuple):
    """One of these is enough."""

    options: tuple["Condition", ...]


Condition = Share | Most | Is | Says | Exits | Either


class Row(NamedTuple):
    """One way to name an owner. `by_text`: the text is evidence enough where there is nothing of the host.

    `letters` are the share that the row explains, for owners that share the time.
    """

    id: str
    symptoms: frozenset[Symptom]
    conditions: tuple[Condition, ...]
    owner: Owner
    confidence: Confidence
    says: str
    by_text: bool = False
    letters: str = ""


class Hint(NamedTuple):
    """What the text suggests where no row is an answer: told, and never an owner."""

    id: str
    symptoms: frozenset[Symptom]
    question: str
    says: str


_CPU: Final = frozenset({Symptom.CPU})
_TASK: Final = frozenset({Symptom.TASK})
_CLOCK: Final = frozenset({Symptom.CLOCK})
_NETWORK: Final = frozenset({Symptom.NETWORK})
_VM: Final = frozenset({Symptom.VM})
_PANIC: Final = frozenset({Symptom.PANIC})
_STANDS: Final = _CPU | _TASK | _NETWORK
_ANY: Final = _STANDS | _CLOCK | _PANIC
_HIGH, _MEDIUM, _LOW = Confidence.HIGH, Confidence.MEDIUM, Confidence.LOW
_MODULE, _NO_MODULE = Says("module"), Says("no_module")
_GUEST_RAN: Final = (Share("GX", 0.8), Share("WST", at_most=0.1))
#: On a host that others use as well, even a loop has no more.
_GUEST_RAN_MOST: Final = (Share("GX", 0.5), Share("ST", at_most=SHARED_MIN))
#: A vCPU that had most of its time had enough for what its kernel wants of it in seconds.
_TOO_LITTLE: Final = Either((Says("in_part"), Share("GX", at_most=0.5)))
_SLOW_DISK: Final = Either((Is("io_slow"), Is("io_timeout")))
_IN_VMM: Final = "its time went into the VMM"
_IN_KVM: Final = "its time went into KVM"
_BY_PAUSE: Final = "it was paused, stopped or frozen"
_BY_WAIT: Final = "the host had no CPU for it"
_BY_MEMORY: Final = "the host had no memory for it"
_BY_DISK: Final = "its own thread waited for a disk of the host"
_LOOPS: Final = "it ran all along, and its kernel looped"
_DAEMON: Final = "it waits for a daemon of the guest"
_DEAF: Final = "it ran all along with interrupts off"
_LOOPS_MOST: Final = "it ran for most of the time, and its kernel looped"
_DEAF_MOST: Final = "it ran for most of the time with interrupts off"
_OOPS: Final = "its own code met an exception that it cannot go on from"
_OOPS_MODULE: Final = "the code of a module met an exception that its kernel cannot go on from"
_NAPS: Final = "it sleeps for as long as its own code asked for, and no CPU of it was taken away"

#: In the order in which they go before one another.
ROWS: Final[tuple[Row, ...]] = (
    Row("C15", _ANY, (Either((Says("injected"), Is("marker"))),), Owner.INJECTED, _HIGH, "a test injected it", True),
    Row("C14", _CPU, (Says("short"),), Owner.CONFIG_THRESHOLD, _HIGH, "so short a wait is no failure", True),
    Row(
        "C14", _CPU, (Is("thresholds"), Says("short_lowered")), Owner.CONFIG_THRESHOLD, _HIGH,
        "thresholds were lowered, and so short a wait is no failure", True,
    ),
    # Who is paused waits for no CPU, locked up or not.
    Row("C1", _STANDS, (Share("T", 0.5),), Owner.VMM_PAUSE, _HIGH, _BY_PAUSE, letters="T"),
    Row(
        "C6", _CPU, (Is("host_hardware"), Is("host_lockup")), Owner.HARDWARE_FIRMWARE, _HIGH,
        "the host's CPU below it had an error and was locked up",
    ),
    Row("C6", _CPU, (Is("host_lockup"),), Owner.HOST_KERNEL, _HIGH, "the host's CPU below it was locked up itself"),
    # That the vCPUs waited for CPUs as well moves no request.
    Row(
        "S3", _TASK, (Says("io"), Is("io_seen", so=False), Share("W", 0.5, of="iothread")), Owner.HOST_CPU, _HIGH,
        "the VM's I/O thread got no CPU",
    ),
    Row(
        "S3", _TASK, (Says("io"), Is("io_seen", so=False), Share("T", 0.5, of="iothread")), Owner.VMM_PAUSE, _HIGH,
        "the VM's I/O thread was stopped or frozen",
    ),
    Row(
        "S3", _TASK, (Says("io"), Is("io_seen", so=False), Share("S", 0.5, of="iothread"), Is("memory")),
        Owner.HOST_MEMORY, _HIGH, "the host had no memory for the VM's I/O thread",
    ),
    Row(
        "S3", _TASK, (Says("io"), Is("io_seen", so=False), Share("X", 0.5, of="iothread")), Owner.VMM_BUG, _MEDIUM,
        "the VM's I/O thread ran and did not pass the request on",
    ),
    Row(
        "S3", _TASK, (Says("io"), Is("io_seen", so=False), Share("W", 0.5, of="main_loop")), Owner.HOST_CPU, _HIGH,
        "the VMM's main loop, which serves the disk, got no CPU",
    ),
    Row(
        "S3", _TASK, (Says("io"), Is("io_seen", so=False), Share("T", 0.5, of="main_loop")), Owner.VMM_PAUSE, _HIGH,
        "the VMM's main loop, which serves the disk, was stopped or frozen",
    ),
    Row(
        "S3", _TASK, (Says("io"), Is("io_seen", so=False), Share("S", 0.5, of="main_loop"), Is("memory")),
        Owner.HOST_MEMORY, _HIGH, "the host had no memory for the VMM's main loop, which serves the disk",
    ),
    Row(
        "S3", _TASK, (Says("io"), Is("io_seen", so=False), Share("X", 0.5, of="main_loop")), Owner.VMM_BUG, _MEDIUM,
        "the VMM's main loop, which serves the disk, ran and did not pass the request on",
    ),
    Row("C2", _STANDS, (Share("W", 0.5),), Owner.HOST_CPU, _HIGH, _BY_WAIT, letters="W"),
    Row(
        "C3", _STANDS, (Share("S", 0.5), Either((Is("sleep_memory"), Is("memory")))), Owner.HOST_MEMORY, _HIGH,
        _BY_MEMORY, letters="S",
    ),
    Row(
        "C4", _STANDS, (Share("S", 0.5), Is("sleep_io"), Is("io_slow")), Owner.STORAGE_BACKEND, _HIGH, _BY_DISK,
        letters="S",
    ),
    # An error stops a CPU, and tells of no time: what was measured to have taken half of it goes before.
    Row("C6", _CPU, (Is("host_hardware"),), Owner.HARDWARE_FIRMWARE, _HIGH, "the host's CPU below it had an error"),
    Row("C2", _CPU, (Share("W", 0.2), Most("W"), _TOO_LITTLE), Owner.HOST_CPU, _MEDIUM, _BY_WAIT, letters="W"),
    Row("C5", _CPU, (Share("X", 0.5), Exits("userspace")), Owner.VMM_BUG, _MEDIUM, _IN_VMM, letters="X"),
    Row("C5", _CPU, (Share("X", 0.5), Exits("kernel")), Owner.HOST_KERNEL, _MEDIUM, _IN_KVM, letters="X"),
    Row(
        "C5", _CPU, (Share("GX", 0.5), Is("exit_storm")), Owner.VMM_BUG, _MEDIUM,
        "its CPU left the guest for the VMM far more often than before", letters="GX",
    ),
    Row("C13", _CPU, (Is("hog"),), Owner.GUEST_POLICY, _HIGH, "a real-time task of the guest kept its CPU", True),
    Row("C13", _CPU, (Says("scx"),), Owner.GUEST_POLICY, _MEDIUM, "the guest's own choice of a scheduler", True),
    # The line comes once in a boot and names neither CPU nor task; a driver's own thread that loops makes it too.
    Row(
        "C13", _CPU, (Is("rt_line"), Says("no_place")), Owner.GUEST_POLICY, _MEDIUM,
        "the guest's own choice of real-time priorities", True,
    ),
    Row("C7", _CPU, (*_GUEST_RAN, Says("looped"), _NO_MODULE), Owner.GUEST_KERNEL, _HIGH, _LOOPS, letters="GX"),
    Row("C7", _CPU, (*_GUEST_RAN, Says("looped"), _MODULE), Owner.GUEST_DRIVER, _HIGH, _LOOPS, letters="GX"),
    Row("C8", _CPU, (*_GUEST_RAN, Says("silent"), _NO_MODULE), Owner.GUEST_KERNEL, _MEDIUM, _DEAF, letters="GX"),
    Row("C8", _CPU, (*_GUEST_RAN, Says("silent"), _MODULE), Owner.GUEST_DRIVER, _MEDIUM, _DEAF, letters="GX"),
    Row(
        "C7", _CPU, (*_GUEST_RAN_MOST, Says("looped"), _NO_MODULE), Owner.GUEST_KERNEL, _MEDIUM, _LOOPS_MOST,
        letters="GX",
    ),
    Row(
        "C7", _CPU, (*_GUEST_RAN_MOST, Says("looped"), _MODULE), Owner.GUEST_DRIVER, _MEDIUM, _LOOPS_MOST,
        letters="GX",
    ),
    Row(
        "C8", _CPU, (*_GUEST_RAN_MOST, Says("silent"), _NO_MODULE), Owner.GUEST_KERNEL, _MEDIUM, _DEAF_MOST,
        letters="GX",
    ),
    Row(
        "C8", _CPU, (*_GUEST_RAN_MOST, Says("silent"), _MODULE), Owner.GUEST_DRIVER, _MEDIUM, _DEAF_MOST,
        letters="GX",
    ),
    Row(
        "C9", _CPU, (Share("H", 0.8), Says("nothing_ran"), Is("timer_due")), Owner.VMM_BUG, _MEDIUM,
        "it was halted, and what should have woken it was not delivered", letters="H",
    ),
    Row(
        "C9", _CPU, (Share("H", 0.8), Says("nothing_ran"), Is("timer_due", so=False)), Owner.GUEST_KERNEL, _LOW,
        "it was halted, and had armed nothing to wake it", letters="H",
    ),
    Row("C11", _CPU, (Says("together"), Share("T", 0.2), Most("T")), Owner.VMM_PAUSE, _MEDIUM, _BY_PAUSE, letters="T"),
    Row("C16", _CPU, (Is("bare"), Is("hardware")), Owner.HARDWARE_FIRMWARE, _MEDIUM, "the machine reports errors"),
    Row(
        "C16", _CPU, (Is("bare"), Either((Says("looped"), Says("silent"))), _NO_MODULE), Owner.HOST_KERNEL, _MEDIUM,
        "there is nothing below this kernel but hardware",
    ),
    Row(
        "C16", _CPU, (Is("bare"), Either((Says("looped"), Says("silent"))), _MODULE), Owner.GUEST_DRIVER, _MEDIUM,
        "there is nothing below this kernel but hardware, and a module's code was running",
    ),
    Row(
        "S1", _TASK, (Says("io"), _SLOW_DISK, Is("io_network")), Owner.NETWORK_BACKEND, _HIGH,
        "the link or the server behind the disk was away",
    ),
    Row(
        "S1", _TASK, (Says("io"), Either((Is("io_slow"), Is("io_error")))), Owner.STORAGE_BACKEND, _HIGH,
        "the host's request to the disk was slow, open or failed",
    ),
    Row("S1", _TASK, (Says("io"), Is("io_timeout")), Owner.STORAGE_BACKEND, _MEDIUM, "the VM's disk timed out"),
    Row(
        "S1", _TASK, (Says("io"), Is("io_limited")), Owner.STORAGE_BACKEND, _MEDIUM,
        "the VMM held its requests back to the limit of the disk",
    ),
    Row(
        "S2", _TASK, (Says("io"), Is("io_slow", so=False), Is("io_done")), Owner.GUEST_KERNEL, _MEDIUM,
        "the host had answered, and the guest did not take it",
    ),
    Row("S5", _TASK, (Says("guest_daemon"), Is("daemon_stuck")), Owner.GUEST_USERSPACE, _HIGH, _DAEMON, True),
    Row("S5", _TASK, (Says("guest_daemon"),), Owner.GUEST_USERSPACE, _MEDIUM, _DAEMON, True),
    Row("S5", _TASK, (Says("host_daemon"), Is("daemon_stuck")), Owner.VMM_BUG, _HIGH, "the host's daemon stood"),
    Row(
        "S6", _TASK, (Says("naps"), Share("WT", at_most=0.5), _NO_MODULE), Owner.GUEST_KERNEL, _MEDIUM, _NAPS,
    ),
    Row("S6", _TASK, (Says("naps"), Share("WT", at_most=0.5), _MODULE), Owner.GUEST_DRIVER, _MEDIUM, _NAPS),
    Row("S8", _TASK, (Says("design"),), Owner.GUEST_USERSPACE, _MEDIUM, "somebody wants the task to stand", True),
    Row("S9", _TASK, (Says("guest_memory"), Is("memory")), Owner.HOST_MEMORY, _MEDIUM, _BY_MEMORY),
    Row(
        "V1", _VM, (Says("vm_stopped"), Is("io_error")), Owner.STORAGE_BACKEND, _HIGH,
        "the VMM stopped it over an error of its disk",
    ),
    Row(
        "V2", _VM, (Says("vm_stopped"), Is("vm_internal")), Owner.VMM_BUG, _MEDIUM,
        "the VMM stopped it over an error of its own",
    ),
    Row("V3", _VM, (Says("vm_stopped"), Is("vm_paused")), Owner.VMM_PAUSE, _HIGH, "it was paused, and not resumed"),
    Row("P1", _PANIC, (Says("asked"),), Owner.GUEST_USERSPACE, _MEDIUM, "somebody asked its kernel to crash", True),
    Row("P2", _PANIC, (Is("host_hardware"),), Owner.HARDWARE_FIRMWARE, _HIGH, "the host's CPU below it had an error"),
    Row(
        "P2", _PANIC, (Is("bare"), Either((Is("hardware"), Says("hardware")))), Owner.HARDWARE_FIRMWARE, _MEDIUM,
        "the machine reports errors",
    ),
    # An error in memory that a host or a device broke looks the same.
    Row("P3", _PANIC, (Says("oops"), _MODULE), Owner.GUEST_DRIVER, _MEDIUM, _OOPS_MODULE, True),
    Row("P3", _PANIC, (Says("oops"), Says("in_guest"), _NO_MODULE), Owner.GUEST_KERNEL, _MEDIUM, _OOPS, True),
    Row("P3", _PANIC, (Says("oops"), Says("on_host"), _NO_MODULE), Owner.HOST_KERNEL, _MEDIUM, _OOPS, True),
    Row("P4", _PANIC, (Says("init_died"),), Owner.GUEST_USERSPACE, _LOW, "its first program ended", True),
    Row("K2", _CLOCK, (Is("many_vms"), Is("host_suspend")), Owner.VMM_PAUSE, _HIGH, "the host was suspended"),
    Row("K1", _CLOCK, (Share("T", 0.5),), Owner.VMM_PAUSE, _HIGH, _BY_PAUSE, letters="T"),
    Row("K1", _CLOCK, (Share("W", 0.5),), Owner.HOST_CPU, _HIGH, _BY_WAIT, letters="W"),
    Row("K1", _CLOCK, (Is("tsc_write"),), Owner.VMM_BUG, _HIGH, "the guest's TSC was moved"),
    Row(
        "K3", _CLOCK, (Says("slow_clock"), Is("bare", so=False)), Owner.VMM_BUG, _MEDIUM,
        "the emulated clock is slow to read; the TSC is probably good",
    ),
    Row("K4", _CLOCK, (Is("bare"), Is("hardware")), Owner.HARDWARE_FIRMWARE, _MEDIUM, "the machine reports errors"),
    Row("N1", _NETWORK, (Share("W", 0.5, of="vhost"),), Owner.HOST_CPU, _HIGH, "the host had no CPU for vhost"),
    Row("N1", _NETWORK, (Share("T", 0.5, of="vhost"),), Owner.VMM_PAUSE, _HIGH, "vhost was stopped or frozen"),
    Row("N1", _NETWORK, (Share("XS", 0.5, of="vhost"),), Owner.VMM_BUG, _HIGH, "vhost did not pass packets on"),
    Row(
        "N1", _NETWORK, (Share("W", 0.5, of="main_loop"),), Owner.HOST_CPU, _HIGH,
        "the host had no CPU for the VMM's main loop",
    ),
    Row(
        "N1", _NETWORK, (Share("T", 0.5, of="main_loop"),), Owner.VMM_PAUSE, _HIGH,
        "the VMM's main loop was stopped or frozen",
    ),
    Row(
        "N1", _NETWORK, (Share("S", 0.5, of="main_loop"),), Owner.VMM_BUG, _HIGH,
        "the VMM's main loop stood in the host's kernel",
    ),
)  # fmt: skip

#: What explains a part of the time: an answer only where two do, each SHARED_MIN of it.
PARTS: Final[tuple[Row, ...]] = (
    Row("C1", _CPU, (Share("T", SHARED_MIN),), Owner.VMM_PAUSE, _MEDIUM, _BY_PAUSE, letters="T"),
    Row("C2", _CPU, (Share("W", SHARED_MIN),), Owner.HOST_CPU, _MEDIUM, _BY_WAIT, letters="W"),
    Row(
        "C3", _CPU, (Share("S", SHARED_MIN), Either((Is("sleep_memory"), Is("memory")))), Owner.HOST_MEMORY, _MEDIUM,
        _BY_MEMORY, letters="S",
    ),
    Row(
        "C4", _CPU, (Share("S", SHARED_MIN), Is("sleep_io"), Is("io_slow")), Owner.STORAGE_BACKEND, _MEDIUM, _BY_DISK,
        letters="S",
    ),
    Row("C5", _CPU, (Share("X", SHARED_MIN), Exits("userspace")), Owner.VMM_BUG, _MEDIUM, _IN_VMM, letters="X"),
    Row("C5", _CPU, (Share("X", SHARED_MIN), Exits("kernel")), Owner.HOST_KERNEL, _MEDIUM, _IN_KVM, letters="X"),
    Row(
        "C7", _CPU, (Share("GX", SHARED_MIN), Says("looped"), _NO_MODULE), Owner.GUEST_KERNEL, _MEDIUM, _LOOPS,
        letters="GX",
    ),
    Row(
        "C7", _CPU, (Share("GX", SHARED_MIN), Says("looped"), _MODULE), Owner.GUEST_DRIVER, _MEDIUM, _LOOPS,
        letters="GX",
    ),
)  # fmt: skip

HINTS: Final[tuple[Hint, ...]] = (
    Hint("C12", _CPU, "rotating", "one cause below the guest is suspected, not guest code"),
    Hint("C11", _CPU, "together", "a pause of the whole VM is suspected"),
    Hint("C9", _CPU, "nothing_ran", "time that jumped, or timers that were not delivered, are suspected"),
    Hint("S4", _TASK, "io", "storage is suspected"),
    Hint("S6", _TASK, "locked", "the owner is whoever holds the lock, which the text does not tell"),
    Hint("S5", _TASK, "host_daemon", "a daemon of the host is suspected"),
    Hint("S9", _TASK, "guest_memory", "the host's memory is suspected"),
    Hint("V4", _VM, "vm_panicked", "its own kernel is suspected, whose last words may be in pstore or on a console"),
    Hint("V5", _VM, "vm_watchdog", "the guest stood still, or was not run, for as long as its watchdog waits"),
    Hint("P2", _PANIC, "hardware", "hardware is suspected, or what its host tells it of hardware"),
    Hint("P5", _PANIC, "stood_still", "the lines about what stood still are not here"),
    Hint("P6", _PANIC, "no_root", "its disk, its image or its boot options are suspected"),
    Hint("P7", _PANIC, "no_memory", "its programs are suspected, or a host that took memory back"),
    Hint("P8", _PANIC, "bus_error", "the disk that its programs are on is suspected"),
    Hint("K3", _CLOCK, "slow_clock", "an emulated clock that is slow to read is suspected"),
)
