"""The registry of surfaces: one row each, and every other place finds a surface through its row.

A surface named NAME is read by `producers/NAME.py`, or by `producers/NAME/source.py` where that is a folder, and
decoded by `consumers/decode/NAME.py`, with `_` for each `-`. What comes with another lies in that one's folder.
"""

from typing import Final, NamedTuple

from schemas.errors import UsageError

TOPIC_LOG: Final = "hypocenter.log"
TOPIC_TRACE: Final = "hypocenter.trace"
TOPIC_STATE: Final = "hypocenter.state"
TOPIC_INCIDENT: Final = "hypocenter.incident"
TOPICS: Final = (TOPIC_LOG, TOPIC_TRACE, TOPIC_STATE, TOPIC_INCIDENT)
#: Those whose messages are frames; what the alerting consumer found is JSON (WIRE.md, section 8).
FRAME_TOPICS: Final = (TOPIC_LOG, TOPIC_TRACE, TOPIC_STATE)


class Surface(NamedTuple):
    """One place that bytes come from.

    `encoding` and `encoding_version` name the body's format on the wire; `position_unit` is what a stream position
    counts; `clock` is the domain of its native timestamps; `part_of` names what it comes with where it cannot be
    asked for: another surface, or a verb of the agent's. Positions are the kernel's own numbers where `kernel_numbers`
    says so, else the producer's, which begin anew with a log of its own.
    """

    name: str
    topic: str
    encoding: str
    encoding_version: int
    clock: str
    position_unit: str
    summary: str
    part_of: str | None = None
    kernel_numbers: bool = False


SURFACES: Final = {
    row.name: row
    for row in [
        Surface(
            "kmsg", TOPIC_LOG, "kmsg", 1, "printk", "record", "the kernel log, from /dev/kmsg", kernel_numbers=True
        ),
        Surface("ftrace", TOPIC_TRACE, "ftrace", 1, "mono", "page", "trace events, as pages of the kernel's rings"),
        Surface("bpf", TOPIC_TRACE, "bpf", 1, "mono", "record", "records of BPF programs, from their ring buffers"),
        Surface("clocks", TOPIC_STATE, "clocks", 1, "boot", "record", "the machine's clocks, read together"),
        Surface("topology", TOPIC_STATE, "topology", 1, "boot", "record", "the VMs of this host, and their vCPUs"),
        Surface("vcpu-time", TOPIC_STATE, "vcpu-time", 1, "boot", "record", "how long threads of VMs ran and waited"),
        Surface("qmp", TOPIC_STATE, "qmp", 1, "boot", "record", "QEMU's events, run states and disks of each VM"),
        Surface("procfs", TOPIC_STATE, "procfs", 1, "boot", "record", "files of /proc, and the counters of hangs"),
        Surface("bpf-counts", TOPIC_STATE, "bpf-counts", 1, "mono", "record", "what BPF programs count", part_of="bpf"),
        Surface("relay", TOPIC_STATE, "relay", 1, "boot", "record", "what a relay says of its guests", part_of="relay"),
    ]
}
#: Those that can be asked for.
NAMES: Final = tuple(row.name for row in SURFACES.values() if row.part_of is None)

#: Frames with these encodings (and versions) hold what others are decoded with, named by the SHA-256 of their bodies.
DESCRIPTOR_ENCODINGS: Final = {"ftrace-formats": 1, "bpf-types": 1}

#: A frame of any stream with this encoding carries no records: its body says that the stream is being watched.
HEARTBEAT_ENCODING: Final = "heartbeat"
HEARTBEAT_VERSION: Final = 1


def surface(name: str) -> Surface:
    """Return the row of one surface.

    Raises:
        UsageError: no such surface; the message lists those that exist.
    """
    try:
        return SURFACES[name]
    except KeyError:
        raise UsageError(f"no surface {name!r}; there is: {', '.join(SURFACES)}") from None
