"""What is said of an incident: who owned it, how sure that is, by which evidence, and what evidence was missing."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Owner(StrEnum):
    """The layer or resource that failed first."""

    VMM_PAUSE = "vmm_pause"
    VMM_BUG = "vmm_bug"
    HOST_CPU = "host_cpu"
    HOST_MEMORY = "host_memory"
    HOST_KERNEL = "host_kernel"
    STORAGE_BACKEND = "storage_backend"
    NETWORK_BACKEND = "network_backend"
    HARDWARE_FIRMWARE = "hardware_firmware"
    GUEST_KERNEL = "guest_kernel"
    GUEST_DRIVER = "guest_driver_or_oot_module"
    GUEST_USERSPACE = "guest_userspace"
    GUEST_POLICY = "guest_policy"
    CONFIG_THRESHOLD = "config_threshold"
    INJECTED = "injected"
    UNDETERMINED = "undetermined"


class Confidence(StrEnum):
    """How far the verdict can be trusted; `none` goes with `undetermined`."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NONE = "none"


class Record(NamedTuple):
    """Where a piece of evidence is stored: rows `first` to `last` of a stream in a table of the lake (or of a file)."""

    table: str
    machine: str
    surface: str
    instance: str
    first: int
    last: int


class Evidence(NamedTuple):
    """One thing that was found. `id` is that of the inventory (G1 to M2); `against`: it speaks against the owner."""

    id: str
    text: str
    records: tuple[Record, ...] = ()
    against: bool = False


class Missing(NamedTuple):
    """One thing that was not there to be consulted, and how to get it."""

    id: str
    text: str
    remedy: str


class Rejected(NamedTuple):
    """An owner that was considered and is not it."""

    owner: Owner
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer. `row` is the row of the decision table (C1 to V5, or `-`), `rules` the version of that table.

    `shared` names a second owner where two each explain at least 0.3 of the length: then neither is picked alone.
    `beside` are owners of other rows that hold as well: what an injection was made with, what a lockup of the host did
    to the guest. Whoever knows less may be left with one of them.
    """

    owner: Owner
    confidence: Confidence
    row: str
    rules: int
    sentence: str
    evidence: tuple[Evidence, ...] = ()
    missing: tuple[Missing, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    shared: Owner | None = None
    beside: tuple[Owner, ...] = ()
