"""The one configuration file: every table and key, with its default and bounds. Flags override their keys."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from schemas import bounds, metrics_address
from schemas.alert_config import AlertConfig
from schemas.bounds import each_matching, each_within, key, matching, one_of, some_of, within
from schemas.errors import UsageError
from schemas.kafka_config import KafkaConfig
from schemas.stream import Layer
from schemas.surfaces import NAMES

#: Where a pin is whose path has no folder.
PINS: Final = Path("/sys/fs/bpf")
_NAME: Final = matching(r"[A-Za-z0-9._-]{1,128}", "1 to 128 letters, digits, dots, dashes or _")


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """`[agent]`: what to read and how long to gather it."""

    machine: str | None = key(None, bounds.tag())  # default: /etc/machine-id, else the host name
    layer: str | None = key(None, one_of(Layer))  # default: guest-kernel on a virtual machine, else host
    surfaces: tuple[str, ...] = key(("kmsg",), some_of(NAMES))
    for_s: float | None = key(
        None, within(0.001, 1e9, "seconds")
    )  # stop after so long; default: run until told to stop
    linger_ms: int = key(25, within(0, 60_000, "ms"))  # a record waits at most this long for company in its frame
    heartbeat_s: float = key(10.0, within(0.1, 3600, "seconds"))
    #: Frames waiting for the disk; above it the kernel's ring is left to fill.
    queue_bytes_max: int = key(32 << 20, within(1 << 20, 1 << 34, "bytes"))
    #: Of a guest without a network: the virtio-serial port, or the vsock as "vsock:CID:PORT".
    relay: str | None = key(None, matching(r"[^\0]+", "the path of a port, or vsock:CID:PORT"))
    metrics: str = key(metrics_address.AGENT, metrics_address.rule())

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """`[relay]`: what the relay on a host takes of its guests; of more it lets them wait, and they keep it."""

    guest_rate_bytes: int = key(64 << 20, within(1 << 16, 1 << 40, "bytes"))
    guest_rate_packets: int = key(4000, within(10, 10_000_000, "packets"))  # frames, pings, and what is neither
    #: Frames of all guests that wait for the disk; above it no guest is read.
    queue_bytes_max: int = key(32 << 20, within(1 << 21, 1 << 34, "bytes"))
    window_bytes: int = key(4 << 20, within(1 << 21, 1 << 26, "bytes"))  # what a guest sends ahead of the disk
    report_s: float = key(10.0, within(0.1, 3600, "seconds"))  # between two accounts of every guest
    metrics: str = key(metrics_address.RELAY, metrics_address.rule())

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, slots=True)
class TraceSet:
    """`[[ftrace.sets]]`: events that go into one ring of their own."""

    name: str = key("default", matching(r"[a-z0-9_]{1,32}", "1 to 32 small letters, digits or _"))
    #: As "system:event"; *, ? and [...] match several.
    events: tuple[str, ...] = key((), each_matching(r"[^:=\s]+:[^:=\s]+", 'a list of "system:event", none twice'))
    #: As "system:event=expression", in the kernel's filter language: Documentation/trace/events.rst.
    filters: tuple[str, ...] = key(
        (), each_matching(r"[^:=\s]+:[^:=\s]+=[^\0\n]+", 'a list of "system:event=expression", none twice')
    )
    buffer_kib_per_cpu: int = key(8192, within(64, 1 << 24, "KiB"))
    subbuf_kib: int | None = key(None, one_of((4, 8, 16, 32, 64)))  # default: the kernel's, one page
    clock: str = key("mono", matching(r"[a-z0-9_-]{1,32}", "the name of a trace clock"))

    def __post_init__(self) -> None:
        bounds.check(self)
        if not self.events:
            raise UsageError(f"events is missing: name what the set {self.name} traces")


@dataclass(frozen=True, slots=True)
class FtraceConfig:
    """`[ftrace]`: trace events, as sets."""

    sets: tuple[TraceSet, ...] = ()
    tick_ms: int = key(250, within(10, 60_000, "ms"))  # how long an event of a quiet CPU waits in the ring

    def __post_init__(self) -> None:
        bounds.check(self)
        names = [each.name for each in self.sets]
        if len(set(names)) < len(names):
            raise UsageError(f"sets want a name each, none twice, not {', '.join(names)}")


@dataclass(frozen=True, slots=True)
class BpfProgram:
    """`[[bpf.programs]]`: a program that comes with the agent, and the ring that it writes to."""

    name: str = key("", matching(r"[a-z0-9-]{1,32}", "1 to 32 small letters, digits or dashes"))
    threshold_us: int | None = key(None, within(0, 10**12, "us"))  # default: the program's own
    ring_kib: int = key(4096, one_of(1 << power for power in range(2, 21)))
    #: Of processes or threads to follow, as the initial namespace numbers them.
    pids: tuple[int, ...] = key((), each_within(1, (1 << 31) - 1, 64, "numbers of processes"))
    cgroup: Path | None = None  # follow the threads in it and below; of version 2
    look_ms: int | None = key(None, within(50, 3_600_000, "ms"))  # default: the program's own
    records: bool = True  # false: it counts and measures, and writes no record

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, slots=True)
class BpfPinned:
    """`[[bpf.pinned]]`: a ring that somebody else's program fills, by its pin."""

    path: str = key("", matching(r"[^\0]*[^\0/]", "the path of a pin"))
    name: str | None = key(None, matching(r"[A-Za-z0-9_-]{1,64}", "1 to 64 letters, digits, dashes or _"))
    struct: str | None = key(None, matching(r"[A-Za-z_][A-Za-z0-9_]{0,127}", "the name of a C struct"))  # default: raw

    def __post_init__(self) -> None:
        bounds.check(self)
        if self.name is None:
            dataclasses.replace(self, name=self.pin.name)  # which may be no name for a stream

    @property
    def pin(self) -> Path:
        """Where it is pinned; a path without a folder is that of `PINS`."""
        return PINS / self.path

    @property
    def named(self) -> str:
        """The name of its stream: `name`, else the last part of its path."""
        return self.name or self.pin.name


@dataclass(frozen=True, slots=True)
class BpfConfig:
    """`[bpf]`: programs that are loaded into the kernel."""

    programs: tuple[BpfProgram, ...] = ()
    tick_ms: int = key(250, within(10, 60_000, "ms"))  # how long a record waits in a ring that does not fill
    pinned: tuple[BpfPinned, ...] = ()
    snapshot_s: float = key(10.0, within(0, 3600, "seconds"))  # between samples of all counts and histograms; 0: none

    def __post_init__(self) -> None:
        bounds.check(self)
        names = [each.name for each in self.programs]
        if len(set(names)) < len(names):
            raise UsageError(f"programs want a name each, none twice, not {', '.join(names)}")
        rings = [each.named for each in self.pinned]
        if len(set(rings)) < len(rings):
            raise UsageError(f"pinned rings want a name each, none twice, not {', '.join(rings)}: give them a name")


@dataclass(frozen=True, slots=True)
class ClocksConfig:
    """`[clocks]`: readings of the clocks; one more comes whenever somebody sets one.

    `printk_marker`: where perf does not show printk's clock, each reading may write a record to the kernel log.
    """

    interval_s: float = key(10.0, within(0.1, 3600, "seconds"))
    printk_marker: bool = False

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, slots=True)
class Vm:
    """`[[vms.machines]]`: what a VM's own process does not tell."""

    name: str = key("", bounds.tag())
    pid: int | None = key(None, within(1, 1 << 22, "as a process id"))  # default: found by the names of its threads
    qmp: Path | None = None  # a socket of QEMU's monitor that nobody else uses

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, slots=True)
class VmsConfig:
    """`[vms]`: the virtual machines of this host."""

    machines: tuple[Vm, ...] = ()
    scan_interval_s: float = key(5.0, within(0.1, 3600, "seconds"))  # how often new VMs and threads are looked for
    vcpu_interval_s: float = key(1.0, within(0.01, 3600, "seconds"))  # between two samples of a vCPU's thread
    qmp_interval_s: float = key(10.0, within(0.1, 3600, "seconds"))  # between two questions to a VM's monitor

    def __post_init__(self) -> None:
        bounds.check(self)
        names = [each.name for each in self.machines]
        if len(set(names)) < len(names):
            raise UsageError(f"machines want a name each, none twice, not {', '.join(names)}")


@dataclass(frozen=True, slots=True)
class ProcfsConfig:
    """`[procfs]`: files of /proc that are read again and again."""

    interval_s: float = key(5.0, within(0.1, 3600, "seconds"))
    blocked_s: float = key(30.0, within(0, 3600, "seconds"))  # how often tasks are searched for blocked ones; 0: never

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """`[log]`: the embedded log; `[spool]` has the same keys for the spool in front of Kafka."""

    dir: Path | None = None
    retention_bytes: int = key(1 << 30, within(1, 1 << 50, "bytes"))  # the newest segment stays in any case
    retention_hours: float | None = key(168.0, within(0.01, 1_000_000, "hours"))
    segment_bytes: int = key(16 << 20, within(1 << 12, 1 << 30, "bytes"))

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """`[collect]`: where the lake is and when a commit is cut."""

    lake: Path | None = None
    cut_bytes: int = key(64 << 20, within(1, 1 << 34, "bytes"))  # of frame bodies buffered for one partition
    cut_rows: int = key(1_000_000, within(1, 100_000_000, "rows"))
    cut_age_s: float = key(10.0, within(0, 86_400, "seconds"))
    #: A Kafka consumer group; default: a static list of partitions.
    group: str | None = key(None, _NAME)
    #: Default: all of them.
    partitions: tuple[str, ...] = key(
        (), each_matching(r"[A-Za-z0-9._-]{1,249}:[0-9]{1,9}", 'a list of "topic:number", none twice')
    )
    group_instance: str | None = key(None, _NAME)  # this member's lasting name; default: a new member at each start
    #: A member silent for so long is dead, and the others take over; brokers allow this range by default.
    group_session_s: float = key(30.0, within(6, 1800, "seconds"))
    compact: bool = True  # compact sealed hours while following
    #: How many hours the lake keeps, and how many bytes its files may have; None is no limit.
    retention_hours: float | None = key(None, within(1, 1_000_000, "hours"))
    retention_bytes: int | None = key(None, within(1, 1 << 60, "bytes"))
    metrics: str = key(metrics_address.COLLECTOR, metrics_address.rule())

    def __post_init__(self) -> None:
        bounds.check(self)
        if self.group is not None and self.partitions:
            raise UsageError("partitions cannot be chosen where group shares them: give one of the two")
        if not self.compact and (self.retention_hours is not None or self.retention_bytes is not None):
            raise UsageError("retention is a part of compact, which is off: give `hypocenter compact` the limits")


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    agent: AgentConfig = field(default_factory=AgentConfig)
    ftrace: FtraceConfig = field(default_factory=FtraceConfig)
    bpf: BpfConfig = field(default_factory=BpfConfig)
    clocks: ClocksConfig = field(default_factory=ClocksConfig)
    vms: VmsConfig = field(default_factory=VmsConfig)
    procfs: ProcfsConfig = field(default_factory=ProcfsConfig)
    relay: RelayConfig = field(default_factory=RelayConfig)
    log: LogConfig = field(default_factory=LogConfig)
    spool: LogConfig = field(default_factory=lambda: LogConfig(retention_hours=None, retention_bytes=512 << 20))
    kafka: KafkaConfig | None = None
    collect: CollectConfig = field(default_factory=CollectConfig)
    alert: AlertConfig = field(default_factory=AlertConfig)
