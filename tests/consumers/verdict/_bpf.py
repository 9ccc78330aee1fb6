"""Frames of the BPF programs vcpu, block-io and hang on the host, with as much of their records as is judged by."""

import struct

from schemas import bpf
from schemas.frame import Frame, encode
from tests.consumers._records import ring
from tests.consumers.decode import btf_writer
from tests.consumers.decode.btf_writer import Types
from tests.consumers.timeline._story import AHEAD_NS, HOST, S

STATES = {
    "vcpu": ("VCPU_RUNNING", "VCPU_WAITING", "VCPU_THROTTLED", "VCPU_SLEEPING", "VCPU_UNINTERRUPTIBLE", "VCPU_STOPPED",
             "VCPU_TRACED", "VCPU_FROZEN"),
    "block_io": ("BLOCK_IO_DONE", "BLOCK_IO_QUEUED", "BLOCK_IO_ISSUED"),
    "hang": ("HANG_UNKNOWN", "HANG_HUNG_TASK", "HANG_RCU_STALL", "HANG_OOM_VICTIM"),
}  # fmt: skip


def _types(name, *members):
    types = Types()
    kinds = {
        "I": (types.integer("unsigned int", 4), 4),
        "i": (types.integer("int", 4, btf_writer.SIGNED), 4),
        "Q": (types.integer("unsigned long long", 8), 8),
        "?": (types.integer("_Bool", 1, btf_writer.BOOL), 1),
        "16s": (types.array(types.integer("char", 1, btf_writer.SIGNED), 16), 16),
        "state": (types.enum(f"{name}_state", **{state: i for i, state in enumerate(STATES[name])}), 4),
    }
    at, placed = 0, []
    for member, code in members:
        kind, size = kinds[code]
        placed.append((member, kind, 8 * at))
        at += size
    types.struct(name, at, *placed)
    program = name.replace("_", "-")
    return bpf.pack_types(bpf.Types(program, name, "little", 8, types.blob(), bpf.OWN, 1 << 22))


def _frames(program, types, records):
    where = HOST._replace(surface="bpf", instance=program, clock="mono")
    described = where._replace(instance=f"{program}/types")
    yield encode(Frame(described, "run-b", 0, 0, 1, 1, bpf.TYPES_ENCODING, 1, types, []))
    body = bpf.pack(len(records), 0, ring(*records))
    yield encode(
        Frame(where, "run-b", 0, 0, len(records), len(records), "bpf", 1, body, [], descriptor=bpf.descriptor(types))
    )


def vcpu(*stays):
    """Return frames of stays of vCPU 1: (from, to) in seconds of the story, the state, and who ran there."""
    members = (
        ("ts_ns", "Q"),
        ("cpu", "I"),
        ("state", "state"),
        ("cpu_seq", "Q"),
        ("duration_ns", "Q"),
        ("pid", "I"),
        ("tgid", "I"),
    )
    members += ("vcpu", "i"), ("prev_pid", "I"), ("prev_comm", "16s"), ("open", "?"), ("io_wait", "?")
    records = [
        struct.pack(
            "<QIIQQIIiI16s??", AHEAD_NS + int(until * S), 2, STATES["vcpu"].index(state), i, int((until - since) * S), 4104, 4099,
            1, 77, comm, False, False,
        )
        for i, (since, until, state, comm) in enumerate(stays)
    ]  # fmt: skip
    return _frames("vcpu", _types("vcpu", *members), records)


def block_io(*requests):
    """Return frames of requests: (from, to) in seconds of the story, the state, and whose process."""
    members = (
        ("ts_ns", "Q"),
        ("cpu", "I"),
        ("state", "state"),
        ("cpu_seq", "Q"),
        ("queued_ns", "Q"),
        ("service_ns", "Q"),
    )
    members += ("pid", "I"), ("tgid", "I"), ("disk", "16s")
    records = [
        struct.pack(
            "<QIIQQQII16s", AHEAD_NS + int(until * S), 2, STATES["block_io"].index(state), i, 0, int((until - since) * S), tgid, tgid, b"sda"
        )
        for i, (since, until, state, tgid) in enumerate(requests)
    ]  # fmt: skip
    return _frames("block-io", _types("block_io", *members), records)


def killed(*victims):
    """Return frames of who was killed for want of memory: second of the story and number of each."""
    members = ("ts_ns", "Q"), ("cpu", "I"), ("kind", "state"), ("cpu_seq", "Q"), ("pid", "I"), ("tgid", "I")
    kind = STATES["hang"].index("HANG_OOM_VICTIM")
    records = [
        struct.pack("<QIIQII", AHEAD_NS + int(at * S), 2, kind, i, pid, 0) for i, (at, pid) in enumerate(victims)
    ]
    return _frames("hang", _types("hang", *members), records)
