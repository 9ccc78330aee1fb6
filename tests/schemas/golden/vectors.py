"""What each golden vector says, and how its bytes are made: `python -m tests.schemas.golden.vectors` writes missing ones.

The bytes come from the writer in tests/schemas/wire_writer.py, which knows WIRE.md and none of the code under test.
"""

import argparse
import hashlib
import struct
from pathlib import Path

import zstandard

from schemas.frame import Frame
from schemas.loss import Loss
from schemas.stream import Stream
from tests.consumers.decode.btf_writer import Types
from tests.schemas import wire_writer as w

HERE = Path(__file__).parent
INT64_MAX = (1 << 63) - 1
STREAM = Stream("vm-7", "0b7a3c52-6c1e-4a35-9f0e-2d4b8a6c7e11", "guest-kernel", "kmsg", "", "printk")
RUN = "3f1c2b4a-9d8e-4f7a-b6c5-d4e3f2a1b0c9"
RECORDS = (
    b"6,339,5140900,-;NET: Registered PF_INET6\n",
    b"4,340,5690716,-,caller=T1;acpi: \\x0atwo lines\n SUBSYSTEM=acpi\n",
)
HEARTBEAT = {
    "since_realtime_ns": 1_753_000_000_000_000_000,
    "until_realtime_ns": 1_753_000_010_000_000_000,
    "first_position": 339,
    "realtime_ns": 1_753_000_010_000_000_000,
    "monotonic_ns": 86_400_000_000_000,
    "boottime_ns": 90_000_000_000_000,
    "bracket_ns": 640,
}
COUNTERS = {"records": 2, "epipe": 0}


def kmsg_body(records):
    return struct.pack(f"<{1 + len(records)}I", len(records), *map(len, records)) + b"".join(records)


def heartbeat_body():
    counters = w.mapping([(w.text(name), w.integer(count)) for name, count in COUNTERS.items()])
    pairs = [(w.text(name), w.integer(value)) for name, value in HEARTBEAT.items()]
    return w.mapping([*pairs, (w.text("counters"), counters)])


def bpf_types_body():
    types = Types()
    u32, u64, s16 = types.integer("u32", 4), types.integer("u64", 8), types.integer("s16", 2, 1)
    comm, state = types.array(types.integer("char", 1, 1), 8), types.enum("state", SLEEPS=1)
    members = [("ts_ns", u64, 0), ("cpu", u32, 64), ("state", state, 96), ("cpu_seq", u64, 128), ("comm", comm, 192)]
    types.struct("delay", 36, *members, ("pair", types.array(s16, 2), 256))
    pairs = {
        "program": w.text("sched-delay"),
        "type": w.text("delay"),
        "byteorder": w.text("little"),
        "word_bytes": w.integer(8),
        "btf": w.binary(types.blob()),
        "source": w.text("own"),
        "ring_bytes": w.integer(4096),
    }
    return w.mapping([(w.text(name), value) for name, value in pairs.items()])


# Two records of 36 and 41 bytes, and between them one of 5 that its program took back.
def bpf_body():
    one = struct.pack("<QIIQ8s2h", 7_000_000_000, 3, 1, 41, b"sh", -1, 2)
    two = struct.pack("<QIIQ8s2h", 6_999_999_000, 1, 9, 0, b"b\xffd\0rest", 0, 0) + b"extra"
    ring = struct.pack("<2I36s4x2I5s3x2I41s7x", 36, 0, one, 1 << 30 | 5, 0, b"gone!", 41, 1, two)
    return struct.pack("<2IQ", 2, len(ring), 1 << 33) + ring


KMSG = Frame(
    STREAM,
    RUN,
    7,
    339,
    341,
    2,
    "kmsg",
    1,
    kmsg_body(RECORDS),
    ts_first_ns=5_140_900_000,
    ts_last_ns=5_690_716_000,
    realtime_ns=1_753_000_000_000_000_000,
    snapshot=f"{RUN}/4",
)
LONG = Frame(STREAM, RUN, 8, 341, 405, 64, "kmsg", 1, kmsg_body([b"6,%d,1,-;the same\n" % n for n in range(341, 405)]))
#: What `decode` must make of each vector; None where it must refuse.
FRAMES = {
    "minimal": Frame(Stream("m", "b", "", "s", "", ""), "", 0, 0, 0, 0, "", 0, b""),
    "full": Frame(
        Stream("máchine", STREAM.boot_id, "host", "ftrace", "cpu3", "boot"),
        RUN,
        INT64_MAX,
        1 << 32,
        INT64_MAX,
        1 << 16,
        "pages",
        255,
        bytes(range(256)),
        losses=[
            Loss("overwrite", 0, 17, "ring-overwritten", "kmsg"),
            Loss("drop", 17, None, "spool-full", "shipper"),
            Loss("gap", INT64_MAX, 0, "", ""),
            Loss("truncation", 1 << 16, 1, "longer-than-buffer", "kmsg"),
            Loss("reset", 0, 0, "new-boot", "kmsg"),
            Loss("retention", 1 << 31, 1 << 31, "", "reader"),
            Loss("dead-letter", 5, 1 << 40, "", "collector"),
        ],
        ts_first_ns=-1,
        ts_last_ns=-INT64_MAX - 1,
        realtime_ns=INT64_MAX,
        snapshot="r/0",
        descriptor=bytes(range(32)),
    ),
    "kmsg": KMSG,
    "kmsg-zstd": LONG,
    "heartbeat": Frame(
        STREAM, RUN, 9, 341, 341, 0, "heartbeat", 1, heartbeat_body(), realtime_ns=1_753_000_010_000_000_000
    ),
    "losses-only": Frame(
        STREAM, "ship-1", 4, 500, 500, 0, "heartbeat", 1, b"", [Loss("drop", 405, 95, "spool-full", "shipper")]
    ),
    "event-losses": Frame(
        STREAM._replace(surface="ftrace", instance="default/cpu3", clock="mono"),
        *(RUN, 5, 70, 70, 0, "heartbeat", 1, b""),
        [
            Loss("overwrite", 70, 1_906_895, "ring-overrun", "agent", "event"),
            Loss("overwrite", INT64_MAX, INT64_MAX, "ring-overrun", "agent", "event"),
            Loss("overwrite", 70, None, "ring-overrun", "agent", "event"),
            Loss("drop", 64, 6, "agent-died", "agent"),
        ],
    ),
    "bpf-types": Frame(
        STREAM._replace(surface="bpf", instance="sched-delay/types", clock="mono"),
        *(RUN, 0, 2, 3, 1, "bpf-types", 1, bpf_types_body()),
        realtime_ns=1_753_000_000_000_000_000,
    ),
    "bpf": Frame(
        STREAM._replace(surface="bpf", instance="sched-delay", clock="mono"),
        *(RUN, 3, 17, 19, 2, "bpf", 1, bpf_body()),
        [Loss("drop", 17, 4, "ring-full-cpu1", "agent", "event")],
        *(7_000_000_000, 6_999_999_000, 1_753_000_000_000_000_000),
        descriptor=hashlib.sha256(bpf_types_body()).digest(),
    ),
    "another-loss-writer": Frame(
        *(STREAM, "ship-1", 4, 500, 500, 0, "heartbeat", 1, b""), [Loss("drop", 405, 95, "spool-full", "shipper")]
    ),
    "another-writer": KMSG,
    "future-fields": KMSG,
    "version-2": None,
}


def _plain(frame):
    return w.seal(w.fields(frame))


def _zstd(frame):
    return w.seal(w.fields(frame, body=zstandard.ZstdCompressor(level=19).compress(frame.body), codec=1))


# The other legal forms of the same values: order between the first and the last field, longer integers and lengths.
def _another_writer():
    values = w.fields(KMSG)
    del values["descriptor"]
    values = {"version": values.pop("version"), **dict(reversed(values.items()))}
    values |= {name: b"\xcf" + struct.pack(">Q", getattr(KMSG, name)) for name in ("number", "first", "next", "count")}
    values["encoding"] = b"\xdb" + struct.pack(">I", 4) + b"kmsg"
    values["losses"] = b"\xdd" + bytes(4)
    values["body"] = b"\xc6" + struct.pack(">I", len(KMSG.body)) + KMSG.body
    pairs = [(w.integer(w.KEYS[name]), value) for name, value in values.items()]
    return w.with_crc(b"\xdf" + struct.pack(">I", len(pairs) + 1) + b"".join(k + v for k, v in pairs) + w.CRC_KEY)


def _future_fields():
    nested = w.mapping([(w.text("a"), w.array([w.integer(1), w.mapping([]), b"\xcb" + struct.pack(">d", 0.5)]))])
    more = [w.text("x" * 300), w.array([w.integer(n) for n in range(2000)]), nested, b"\xd6\xff" + bytes(4), w.NIL]
    return w.seal(w.fields(KMSG), *((w.integer(18 + n), value) for n, value in enumerate(more)))


# A loss of positions may name its unit, though writers usually leave it out.
def _another_loss_writer():
    values = w.fields(FRAMES["another-loss-writer"])
    words = [w.text("drop"), w.integer(405), w.integer(95), w.text("spool-full"), w.text("shipper"), w.text("position")]
    return w.seal(values | {"losses": w.array([w.array(words)])})


# All that a reader of version 1 may rely on is the envelope: the version first, the checksum last.
def _version_2():
    return w.sealed([(w.integer(0), w.integer(2)), (w.integer(1), w.text("not as it was"))])


MAKE = {
    "minimal": lambda: _plain(FRAMES["minimal"]),
    "full": lambda: _plain(FRAMES["full"]),
    "kmsg": lambda: _plain(KMSG),
    "kmsg-zstd": lambda: _zstd(LONG),
    "heartbeat": lambda: _plain(FRAMES["heartbeat"]),
    "losses-only": lambda: _plain(FRAMES["losses-only"]),
    "event-losses": lambda: _plain(FRAMES["event-losses"]),
    "bpf-types": lambda: _plain(FRAMES["bpf-types"]),
    "bpf": lambda: _plain(FRAMES["bpf"]),
    "another-loss-writer": _another_loss_writer,
    "another-writer": _another_writer,
    "future-fields": _future_fields,
    "version-2": _version_2,
}
#: Those whose bytes `encode` must give again; the others say the same in another legal form, or are compressed.
ENCODED = ("minimal", "full", "kmsg", "heartbeat", "losses-only", "event-losses", "bpf-types", "bpf")


def stored(name):
    return (HERE / f"{name}.bin").read_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--overwrite", action="append", default=[], choices=MAKE, help="write this one though it exists"
    )
    args = parser.parse_args()
    for name, make in MAKE.items():
        path = HERE / f"{name}.bin"
        if name in args.overwrite or not path.exists():
            path.write_bytes(make())
            print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
