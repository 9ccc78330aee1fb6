"""Frames that nobody should send, each with its right checksum, so that the checksum does not hide what is behind it.

Run as a program it decodes them all and prints by how many KiB the process grew: memory that Python does not see.
"""

import struct
import sys
from pathlib import Path

import zstandard

from schemas import limits
from schemas.errors import BadInputError
from schemas.frame import decode
from tests.schemas import wire_writer as w
from tests.schemas.golden.vectors import KMSG

FOUR_GIB = b"\xff\xff\xff\xff"
VALUES = w.fields(KMSG)
PAIRS = [(w.integer(w.KEYS[name]), value) for name, value in VALUES.items()]
MIB = 1 << 20


def changed(**values):
    return w.seal(VALUES | values)


def without(name):
    return w.seal({key: value for key, value in VALUES.items() if key != name})


def added(*pairs):
    return w.seal(VALUES, *pairs)


def body(data, *, size_bytes, codec=1):
    return changed(body=w.binary(data), body_bytes=w.integer(size_bytes), codec=w.integer(codec))


# One zstd frame with a stated content size and window, and one block whose single byte is said to repeat.
def zstd_run(content_bytes, block_bytes, *, window_log=20):
    descriptor = b"\x80"  # content size in four bytes, no single segment: a window byte follows
    window = bytes([(window_log - 10) << 3])
    block = struct.pack("<I", block_bytes << 3 | 1 << 1 | 1)[:3]
    return b"\x28\xb5\x2f\xfd" + descriptor + window + struct.pack("<I", content_bytes) + block + b"\x00"


ZSTD = zstandard.ZstdCompressor().compress(KMSG.body)
ZSTD_UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(KMSG.body)
ZSTD_SKIPPABLE = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"junk"
WIDE = b"\xdc\x04\x00" + (b"\xdc\x04\x00" + b"\x90" * 1024) * 1024

#: name: (frame, the reason with which it must be refused)
HOSTILE = {
    "nothing": (b"", "truncated"),
    "a checksum alone": (w.with_crc(b""), "truncated"),
    "longer than any frame": (w.with_crc(bytes(limits.FRAME_BYTES_MAX)), "oversize"),
    "checksum in another form": (w.mapping([(w.integer(0), w.integer(1))]) + bytes(5), "checksum"),
    # structure
    "an array": (w.with_crc(b"\x92\x01"), "malformed"),
    "an integer": (w.with_crc(b"\x01"), "malformed"),
    "an extension": (w.with_crc(b"\xc7\x08\x01" + bytes(8)), "malformed"),
    "the unused first byte": (w.with_crc(b"\xc1"), "malformed"),
    "an empty map": (w.with_crc(b"\x80"), "malformed"),
    "a map of 4 GiB": (w.with_crc(b"\xdf" + FOUR_GIB + b"\x00\x01"), "malformed"),
    "a map cut short": (w.with_crc(b"\xde\x00"), "malformed"),
    "more fields than allowed": (added(*((w.integer(n), w.NIL) for n in range(18, 18 + 64))), "malformed"),
    "trailing bytes": (w.with_crc(changed()[:-5] + w.integer(0)), "malformed"),
    "the version not first": (w.seal({"number": VALUES["number"], **VALUES}), "malformed"),
    "no checksum field": (w.with_crc(w.mapping([*PAIRS, (w.integer(18), b"")])), "malformed"),
    "the checksum not last": (w.with_crc(w.mapping([*PAIRS, (w.CRC_KEY, w.integer(0)), (w.integer(18), b"")])), "malformed"),
    "the checksum inside another integer": (w.with_crc(w.mapping([*PAIRS, (w.CRC_KEY, b"\xcf" + bytes(3))])), "malformed"),
    "the checksum inside a body": (w.with_crc(w.mapping([*PAIRS[:-2], (w.integer(16), w.integer(5)), (w.integer(17), b"\xc4\x05")])), "malformed"),
    "a field twice": (added((w.integer(5), VALUES["next"])), "malformed"),
    "an unknown field twice": (added((w.integer(90), w.NIL), (w.integer(90), w.NIL)), "malformed"),
    "true as the key 1": (added((w.TRUE, w.NIL)), "malformed"),
    "a float as a key": (added((b"\xcb" + struct.pack(">d", 18.0), w.NIL)), "malformed"),
    "NaN as a key": (added((b"\xcb" + struct.pack(">d", float("nan")), w.NIL)), "malformed"),
    "a text as a key": (added((w.text("body"), w.NIL)), "malformed"),
    "an array as a key": (added((w.array([]), w.NIL)), "malformed"),
    # nesting and declared lengths, also in fields that no reader knows
    "arrays 2000 deep": (changed(losses=b"\x91" * 2000), "malformed"),
    "arrays 2000 deep in an unknown field": (added((w.integer(18), b"\x91" * 2000)), "malformed"),
    "maps a MiB deep in an unknown field": (added((w.integer(18), b"\x81" * MIB)), "malformed"),
    "wide arrays 900 deep": (changed(losses=b"\xdc\x04\x00" * 900), "malformed"),
    "wide arrays 900 deep in an unknown field": (added((w.integer(18), b"\xdc\xff\xff" * 900)), "malformed"),
    "a million arrays": (changed(losses=WIDE), "malformed"),
    "a million arrays as a stream": (changed(stream=WIDE), "malformed"),
    "losses of 4 GiB": (changed(losses=b"\xdd" + FOUR_GIB), "malformed"),
    "one loss too many": (changed(losses=w.array([w.loss("gap", 0, 0, "", "")] * (limits.FRAME_LOSSES_MAX + 1))), "malformed"),
    "a loss of six": (changed(losses=w.array([w.array([w.text("gap")] * 6)])), "malformed"),
    "a loss of seven": (changed(losses=w.array([w.array([w.text("gap"), w.integer(0), w.integer(0), *[w.text("")] * 4])])), "malformed"),
    "a loss whose unit is a number": (changed(losses=w.array([w.array([w.text("gap"), w.integer(0), w.integer(0), w.text(""), w.text(""), w.integer(1)])])), "malformed"),
    "a loss of four": (changed(losses=w.array([w.array([w.text("gap"), w.integer(0), w.integer(0), w.text("")])])), "malformed"),
    "a loss that is a map": (changed(losses=w.array([w.mapping([])])), "malformed"),
    "a stream of five": (changed(stream=w.array([w.text("m")] * 5)), "malformed"),
    "a stream of seven": (changed(stream=w.array([w.text("m")] * 7)), "malformed"),
    "a stream that is a map": (changed(stream=w.mapping([])), "malformed"),
    "a body of 4 GiB": (changed(body=b"\xc6" + FOUR_GIB), "malformed"),
    "a text of 4 GiB": (changed(run=b"\xdb" + FOUR_GIB), "malformed"),
    "an extension of 4 GiB in an unknown field": (added((w.integer(18), b"\xc9" + FOUR_GIB + b"\x01")), "malformed"),
    "a map of 4 GiB in an unknown field": (added((w.integer(18), b"\xdf" + FOUR_GIB)), "malformed"),
    "a text of a MiB": (changed(run=b"\xdb" + struct.pack(">I", MIB) + b"x" * MIB), "malformed"),
    "a bin of a MiB as an integer": (changed(number=w.binary(bytes(MIB))), "malformed"),
    "a text of 256 bytes": (changed(run=w.text("x" * 256)), "malformed"),
    "a text of 256 bytes in 128 characters": (changed(run=w.text("é" * 128)), "malformed"),
    "a descriptor hash of 256 bytes": (changed(descriptor=w.binary(bytes(256))), "malformed"),
    # types
    "a text for the version": (changed(version=w.text("1")), "malformed"),
    "true for the version": (changed(version=w.TRUE), "malformed"),
    "1.0 for the version": (changed(version=b"\xcb" + struct.pack(">d", 1.0)), "malformed"),
    "false for the codec": (changed(codec=w.FALSE), "malformed"),
    "true for a number": (changed(number=w.TRUE), "malformed"),
    "NaN for a time": (changed(ts_first_ns=b"\xcb" + struct.pack(">d", float("nan"))), "malformed"),
    "a float for a position": (changed(first=b"\xca" + struct.pack(">f", 339.0)), "malformed"),
    "nil for a position": (changed(first=w.NIL), "malformed"),
    "a timestamp extension for a time": (changed(realtime_ns=b"\xd6\xff" + bytes(4)), "malformed"),
    "2**63 for a position": (changed(next=w.integer(1 << 63)), "malformed"),
    "2**64 - 1 for a time": (changed(ts_last_ns=w.integer((1 << 64) - 1)), "malformed"),
    "true for a loss's count": (changed(losses=w.array([w.array([w.text(""), w.integer(0), w.TRUE, w.text(""), w.text("")])])), "malformed"),
    "a bin for a text": (changed(run=w.binary(b"r")), "malformed"),
    "a text for the body": (changed(body=w.text("body")), "malformed"),
    "a text for the descriptor hash": (changed(descriptor=w.text("d")), "malformed"),
    "an integer for the snapshot": (changed(snapshot=w.integer(1)), "malformed"),
    "text that is no UTF-8": (changed(run=w.text(b"\xff\xfe")), "malformed"),
    "text with half a surrogate pair": (changed(run=w.text(b"\xed\xa0\x80")), "malformed"),
    "text with an overlong form": (changed(run=w.text(b"\xc0\x80")), "malformed"),
    # versions
    "a newer version": (changed(version=w.integer(2)), "version"),
    "a version below zero": (changed(version=w.integer(-1)), "version"),
    # values
    "positions backwards": (changed(first=w.integer(342)), "limit"),
    "a position below zero": (changed(first=w.integer(-1)), "limit"),
    "a number below zero": (changed(number=w.integer(-1)), "limit"),
    "a count below zero": (changed(count=w.integer(-1)), "limit"),
    "an encoding version below zero": (changed(encoding_version=w.integer(-1)), "limit"),
    "more records than allowed": (changed(count=w.integer(limits.FRAME_RECORDS_MAX + 1)), "limit"),
    "no machine": (changed(stream=w.array([w.text(tag) for tag in ("", "b", "", "s", "", "")])), "limit"),
    "no boot": (changed(stream=w.array([w.text(tag) for tag in ("m", "", "", "s", "", "")])), "limit"),
    "no surface": (changed(stream=w.array([w.text(tag) for tag in ("m", "b", "", "", "", "")])), "limit"),
    "NUL in a tag": (changed(stream=w.array([w.text(tag) for tag in ("m", "b", "", "s", "\0", "")])), "limit"),
    "NUL in a loss": (changed(losses=w.array([w.loss("gap", 0, 0, "\0", "")])), "limit"),
    "NUL in the snapshot": (changed(snapshot=w.text("\0")), "limit"),
    "a loss below zero": (changed(losses=w.array([w.loss("gap", -1, 1, "", "")])), "limit"),
    "a negative loss of events": (changed(losses=w.array([w.loss("gap", 5, -1, "", "", "event")])), "limit"),
    "NUL in a loss's unit": (changed(losses=w.array([w.loss("gap", 0, 0, "", "", "\0")])), "limit"),
    "a negative loss": (changed(losses=w.array([w.loss("gap", 5, -1, "", "")])), "limit"),
    "a loss beyond the last position": (changed(losses=w.array([w.loss("gap", 5, limits.INT64_MAX - 4, "", "")])), "limit"),
    "a body size below zero": (body(ZSTD_UNSIZED, size_bytes=-1), "limit"),
    "a body size over the limit": (body(zstd_run(MIB + 1, 1), size_bytes=MIB + 1), "limit"),
    "a plain body over the limit": (body(bytes(MIB + 1), size_bytes=MIB + 1, codec=0), "limit"),
    # bodies
    "an unknown codec": (changed(codec=w.integer(2)), "codec"),
    "a plain body of another size": (body(KMSG.body, size_bytes=len(KMSG.body) - 1, codec=0), "codec"),
    "a body that is no zstd": (body(KMSG.body, size_bytes=len(KMSG.body)), "codec"),
    "an empty zstd body": (body(b"", size_bytes=0), "codec"),
    "zstd of another size": (body(ZSTD, size_bytes=len(KMSG.body) + 1), "codec"),
    "zstd without its size": (body(ZSTD_UNSIZED, size_bytes=len(KMSG.body)), "codec"),
    "zstd cut short": (body(ZSTD[:-1], size_bytes=len(KMSG.body)), "codec"),
    "zstd with bytes behind": (body(ZSTD + b"junk", size_bytes=len(KMSG.body)), "codec"),
    "zstd twice": (body(ZSTD * 2, size_bytes=len(KMSG.body)), "codec"),
    "zstd of nothing, with bytes behind": (body(zstandard.ZstdCompressor().compress(b"") + b"junk", size_bytes=0), "codec"),
    "a skippable zstd frame": (body(ZSTD_SKIPPABLE, size_bytes=0), "codec"),
    "zstd that gives more than it says": (body(zstd_run(8, 1 << 17), size_bytes=8), "codec"),
    "zstd that gives less than it says": (body(zstd_run(MIB, 8), size_bytes=MIB), "codec"),
    "zstd that says 4 GiB": (body(zstd_run(0xFFFFFFFF, 1 << 17), size_bytes=MIB), "codec"),
    "zstd with a window of 2 GiB": (body(zstd_run(MIB, 1 << 17, window_log=31), size_bytes=MIB), "codec"),
    "zstd with a window of 64 MiB": (body(zstd_run(MIB, 1 << 17, window_log=26), size_bytes=MIB), "codec"),
}  # fmt: skip
HOSTILE |= {
    f"without {name}": (without(name), "malformed") for name in VALUES if name not in ("snapshot", "descriptor")
}


def peak_kib():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


def main():
    decode(changed())
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew: proc_pid_clear_refs(5)
    before_kib = peak_kib()
    for data, _ in HOSTILE.values():
        try:
            decode(data)
        except BadInputError:
            continue
        sys.exit("a hostile frame was taken")
    print(peak_kib() - before_kib)


if __name__ == "__main__":
    main()
