"""Frames of BPF records to typed Parquet: records of 64 bytes as a program that watches waits makes them.

They are made here, in frames of the size that an agent cuts, with the types as BTF; decoded as a commit does it, and
written as one. One process, user and system CPU; the frames are in memory, neither compressed nor in a log. The first
runs do not count: the system clears the memory that they are the first to touch, once in the life of a collector.
"""

import struct
import time
from typing import Final

import numpy as np

from benchmarks.base import Options, Reach, Row, log, scratch
from consumers.decode import bpf as decoder
from consumers.decode.base import FrameIn
from consumers.lake.parquet import write_table
from consumers.transport.base import Partition
from schemas import bpf
from schemas.frame import Frame
from schemas.stream import Stream

_STREAM: Final = Stream("f" * 32, "b" * 32, "host", "bpf", "bench", "mono")
_FRAME_RECORDS: Final = 4096
_FRAMES: Final = 256
_WARM_RUNS: Final = 2
#: Name, type and count of each member, in the order of the struct.
_MEMBERS: Final = (
    ("ts_ns", "u8", 1),
    ("cpu", "u4", 1),
    ("flags", "u4", 1),
    ("cpu_seq", "u8", 1),
    ("pid", "i4", 1),
    ("behind_pid", "i4", 1),
    ("wait_ns", "u8", 1),
    ("comm", "S1", 16),
    ("state", "u4", 1),
    ("prio", "i4", 1),
)
_RECORD: Final = np.dtype([(name, "S16" if kind == "S1" else kind) for name, kind, _ in _MEMBERS])
_INT, _ARRAY, _STRUCT = 1, 3, 4
_SIGNED: Final = 1


def run(options: Options) -> list[Row]:
    """Return records per second and core, and bytes per record at rest."""
    types = bpf.pack_types(bpf.Types(_STREAM.instance, "record", "little", 8, _btf(), bpf.OWN, 1 << 20))
    items = _items(bpf.descriptor(types), 64 if options.quick else _FRAMES)
    records = _FRAME_RECORDS * len(items)
    known = {bpf.descriptor(types): types}
    found = decoder.decode_many(items, known)
    assert not found.bad
    assert found.rows == {_STREAM: records}
    log(f"  {records:,} records of {_RECORD.itemsize} bytes, {found.tables['bpf_bench'].num_columns} columns")
    rates, decoding, sizes = [], [], []
    for number in range(_WARM_RUNS + (5 if options.quick else 9)):
        with scratch() as path:
            start = time.process_time()
            table = decoder.decode_many(items, known).tables["bpf_bench"]
            middle = time.process_time()
            stats = write_table(table, decoder.spec("bpf_bench", table.schema), path / "a.parquet")
            end = time.process_time()
        if number < _WARM_RUNS:
            continue
        rates.append(records / (end - start) / 1e6)
        decoding.append(records / (middle - start) / 1e6)
        sizes.append(stats.size_bytes / records)
    how = "64-byte records of one program, one process, user and system CPU"
    return [
        Row("BPF records to Parquet", rates, "M records/s/core", Reach(5, at_least=True), how),
        Row("BPF records to Arrow columns", decoding, "M records/s/core", None, how),
        Row("bytes per BPF record at rest", sizes, "B", None, "Parquet file of one commit, all columns"),
    ]


# Waits of some microseconds to milliseconds on two CPUs, of a few tasks.
def _items(name: bytes, frames: int) -> list[FrameIn]:
    rng = np.random.default_rng(1)
    count = frames * _FRAME_RECORDS
    values = np.zeros(count, _RECORD)
    values["ts_ns"] = 10**12 + np.cumsum(rng.integers(200, 3000, count))
    values["cpu"] = rng.integers(0, 2, count)
    for cpu in (0, 1):
        mine = values["cpu"] == cpu
        values["cpu_seq"][mine] = np.arange(np.count_nonzero(mine))
    tasks = rng.integers(0, 40, count)
    values["pid"], values["comm"] = 1000 + tasks, np.array([f"task/{i}".encode() for i in range(40)])[tasks]
    values["behind_pid"] = 1000 + rng.integers(0, 40, count)
    values["wait_ns"] = rng.lognormal(11, 1.5, count)
    values["state"], values["prio"] = rng.integers(0, 3, count), 120
    ring = np.zeros((count, bpf.RECORD_HEAD_BYTES + _RECORD.itemsize), np.uint8)
    ring[:, :4] = np.frombuffer(_RECORD.itemsize.to_bytes(4, "little"), np.uint8)
    ring[:, bpf.RECORD_HEAD_BYTES :] = values.view(np.uint8).reshape(count, -1)
    items = []
    for number in range(frames):
        first = number * _FRAME_RECORDS
        part = ring[first : first + _FRAME_RECORDS]
        body = bpf.pack(_FRAME_RECORDS, first * ring.shape[1], part.tobytes())
        where = (_STREAM, "run", number, first, first + _FRAME_RECORDS, _FRAME_RECORDS)
        frame = Frame(*where, bpf.RECORDS_ENCODING, bpf.RECORDS_VERSION, body, descriptor=name)
        items.append(FrameIn(frame, 10**18 + number, Partition("t", 0), number))
    return items


# The struct as a compiler describes it (include/uapi/linux/btf.h).
def _btf() -> bytes:
    texts, types, ids = bytearray(1), [], {}

    def text(name: str) -> int:
        texts.extend(name.encode() + b"\0")
        return len(texts) - len(name) - 1

    def add(name: str, kind: int, size: int, *more: int, entries: int = 0) -> int:
        types.append(struct.pack(f"<{3 + len(more)}I", text(name), kind << 24 | entries, size, *more))
        return len(types)

    for kind in sorted({kind for _, kind, _ in _MEMBERS}):
        size = int(kind[1:])
        ids[kind] = add("char" if kind == "S1" else kind, _INT, size, (kind[0] == "i") * _SIGNED << 24 | 8 * size)
    members: list[int] = []
    for name, kind, count in _MEMBERS:
        type_id = ids[kind] if count == 1 else add("", _ARRAY, 0, ids[kind], ids["u4"], count)
        members += [text(name), type_id, 8 * _RECORD.fields[name][1]]
    add("record", _STRUCT, _RECORD.itemsize, *members, entries=len(_MEMBERS))
    data = b"".join(types)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(data), len(data), len(texts)) + data + bytes(texts)
