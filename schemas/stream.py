"""A stream: one ordered sequence of records, and the tags that name it."""

from enum import StrEnum
from typing import NamedTuple


class Layer(StrEnum):
    """Where the emitter of a record sits, from the guest's processes down to the firmware."""

    GUEST_USERSPACE = "guest-userspace"
    GUEST_KERNEL = "guest-kernel"
    VIRTUAL_PLATFORM = "virtual-platform"
    HOST = "host"
    HYPERVISOR = "hypervisor"
    FIRMWARE = "firmware"


class Stream(NamedTuple):
    """Identity of one ordered sequence; positions count within it.

    `machine` is the machine id, `boot_id` the kernel's random boot id (32 or 36 hex characters), `instance` tells
    streams of one surface apart (a CPU, a ring; empty where there is one), `clock` names the domain of `ts_ns`.
    """

    machine: str
    boot_id: str
    layer: str
    surface: str
    instance: str
    clock: str
