"""Frames of BPF records, and of the types that they need, made as the agent makes them."""

import struct

from schemas import bpf
from schemas.frame import Frame
from schemas.stream import Stream
from tests.consumers.decode import btf_writer
from tests.consumers.decode.btf_writer import Types

RING = Stream("m", "b", "guest-kernel", "bpf", "sched-delay", "mono")
T = 5_000_000_000


def sched_delay(big=False, **more):
    """Return the BTF of a record with the beginning that all own programs' have; `more` are further u32."""
    types = Types(big)
    u32, u64 = types.integer("unsigned int", 4), types.integer("unsigned long long", 8)
    comm = types.array(types.integer("char", 1, btf_writer.SIGNED), 16)
    state = types.enum("state", RUNNING=0, SLEEPS=1)
    members = [("ts_ns", u64, 0), ("cpu", u32, 64), ("flags", u32, 96), ("cpu_seq", u64, 128), ("comm", comm, 192)]
    members += [("state", state, 320), ("wait_us", u32, 352)]
    members += [(name, u32, 384 + 32 * i) for i, name in enumerate(more)]
    types.struct("sched_delay", 48 + 4 * len(more), *members)
    return types.blob()


def types(btf=None, program="sched-delay", type_="sched_delay", byteorder="little", **changes):
    """Return the body of a description."""
    values = {"source": "own", "ring_bytes": 1 << 20, "word_bytes": 8, **changes}
    blob = sched_delay(byteorder == "big") if btf is None else btf
    return bpf.pack_types(bpf.Types(program, type_, byteorder, btf=blob, **values))


TYPES = types()


def delay(i, comm=b"task", state=1, wait_us=9, order="<"):
    """Return the bytes of one record."""
    return struct.pack(f"{order}QIIQ16sII", T + i, i % 2, 0, i // 2, comm, state, wait_us)


class Gone(bytes):
    """The bytes of a record that its program took back."""


def ring(*records, order="<"):
    """Return the bytes of a ring with `records`, those that are `Gone` as discarded."""
    parts = []
    for i, data in enumerate(records):
        word = len(data) | (bpf.DISCARDED if isinstance(data, Gone) else 0)
        parts.append(struct.pack(f"{order}2I", word, i) + data + bytes(-len(data) % 8))
    return b"".join(parts)


def recorded(first, records, number=0, *, run="r", stream=RING, body=TYPES, losses=(), at=4096, order="<"):
    """Return the frame of `records`, described by `body`; the ring's byte counter is `at` at the first."""
    count = sum(not isinstance(each, Gone) for each in records)
    where = (stream, run, number, first, first + count, count)
    data = bpf.pack(count, at, ring(*records, order=order))
    return Frame(*where, "bpf", 1, data, list(losses), descriptor=bpf.descriptor(body))


def described(position=0, number=0, body=TYPES, *, run="r", stream=RING):
    """Return the frame of a description."""
    stream = stream._replace(instance=f"{stream.instance}/types")
    return Frame(stream, run, number, position, position + 1, 1, bpf.TYPES_ENCODING, 1, body, [])
