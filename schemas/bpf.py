"""The body encoding "bpf", version 1: records of a BPF ring buffer exactly as the kernel keeps them, none decoded.

    u32   n        number of records that were not discarded, little endian
    u32   size     bytes of ring that follow, little endian
    u64   at       the kernel's byte counter of the ring at the first of them, little endian
    bytes          the ring from there on, in ring order; nothing follows

In the ring a record is a header of 8 bytes, `u32 len` and `u32 pg_off` in the byte order of its machine, then `len`
bytes of data, padded to 8. Bit 31 of `len` (busy) is never set here; bit 30 marks a record that its program discarded:
its bytes stay, so that `at` counts on, and it is no record and has no position. The position of a record is its number
in the stream, counted from 0: record i is `frame.first + i`. `at` begins at 0 again with each new ring.

The body encoding "bpf-types", version 1, says what a record is: a msgpack map from text with the keys of `Types`. Its
SHA-256 is what the frames of records name as their descriptor.
Source: kernel/bpf/ringbuf.c (struct bpf_ringbuf_hdr), Documentation/bpf/ringbuf.rst, Documentation/bpf/btf.rst.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import msgpack

from schemas import limits
from schemas.errors import BadInputError
from schemas.msgpack_reader import Reader

RECORDS_ENCODING: Final = "bpf"
RECORDS_VERSION: Final = 1
TYPES_ENCODING: Final = "bpf-types"
TYPES_VERSION: Final = 1
#: Bytes in front of the first record's header.
HEAD_BYTES: Final = 16
#: Bytes of a record's header, and what every record's size is rounded up to.
RECORD_HEAD_BYTES: Final = 8
#: Most bytes of ring in one body.
DATA_BYTES_MAX: Final = limits.BODY_BYTES_MAX - HEAD_BYTES
#: In the first word of a record's header.
BUSY: Final = 1 << 31
DISCARDED: Final = 1 << 30
#: Whose program fills the ring: one of the agent's, or one that others loaded and pinned.
OWN: Final = "own"
PINNED: Final = "pinned"
_KEYS_MAX: Final = 64


class Records(NamedTuple):
    """What a body holds: `count` records in the `data` of a ring, which begins at the ring's byte `ring_position`.

    `data` holds the records' headers and those that were discarded.
    """

    count: int  # type: ignore[assignment]  # shadows tuple.count
    ring_position: int
    data: memoryview


@dataclass(slots=True)
class Types:
    """All that decoding the records of one ring takes.

    `program` is the stream's instance; `type` the name of the C struct of a record, empty where nobody knows it;
    `byteorder` (`little` or `big`) and `word_bytes` (4 or 8: a kernel `long`) are the machine's; `btf` is the BTF in
    which the struct is found, may be empty; `source` is `own` or `pinned`; `ring_bytes` the size of the ring.
    """

    program: str
    type: str
    byteorder: str
    word_bytes: int
    btf: bytes
    source: str
    ring_bytes: int


def head(count: int, data_bytes: int, ring_position: int) -> bytes:
    """Return what stands in front of `data_bytes` of ring with `count` records, from `ring_position` on."""
    return count.to_bytes(4, "little") + data_bytes.to_bytes(4, "little") + ring_position.to_bytes(8, "little")


def pack(count: int, ring_position: int, data: bytes) -> bytes:
    """Return the body that holds `data` with `count` records; the caller keeps to the limits of a frame."""
    return head(count, len(data), ring_position) + data


def unpack(body: bytes) -> Records:
    """Return the records in `body`, a view without a copy; their headers are not looked at.

    Raises:
        BadInputError: `reason` is `body`: the body is cut short, too long, or breaks a limit.
    """
    if len(body) < HEAD_BYTES:
        raise BadInputError("body", f"{len(body)} bytes hold no record count, size and ring position")
    count, data_bytes = (int.from_bytes(body[at : at + 4], "little") for at in (0, 4))
    ring_position = int.from_bytes(body[8:HEAD_BYTES], "little")
    if data_bytes != len(body) - HEAD_BYTES:
        raise BadInputError("body", f"{len(body) - HEAD_BYTES} bytes of ring, {data_bytes} stated")
    if data_bytes % RECORD_HEAD_BYTES or ring_position % RECORD_HEAD_BYTES:
        raise BadInputError("body", f"{data_bytes} bytes of ring from {ring_position} on: both are multiples of 8")
    if data_bytes > DATA_BYTES_MAX or ring_position > limits.INT64_MAX - data_bytes:
        raise BadInputError("body", f"{data_bytes} bytes of ring from {ring_position} on are out of bounds")
    if count > min(data_bytes // RECORD_HEAD_BYTES, limits.FRAME_RECORDS_MAX):
        raise BadInputError("body", f"{count} records stated in {data_bytes} bytes of ring")
    return Records(count, ring_position, memoryview(body)[HEAD_BYTES:])


def pack_types(types: Types) -> bytes:
    """Return the body that says `types`: the same bytes for the same content."""
    body: bytes = msgpack.packb(asdict(types))
    return body


def descriptor(types_body: bytes) -> bytes:
    """Return the 32 bytes by which frames of records name the description in `types_body`."""
    return hashlib.sha256(types_body).digest()


def unpack_types(body: bytes) -> Types:
    """Return what `body` says; its BTF is not looked into.

    Raises:
        BadInputError: `reason` is `body`: no such map, a key is missing or there twice, or a limit is broken.
    """
    reader = Reader(body, "body")
    fields = {name: _READ.get(name, Reader.skip)(reader) for name in reader.keys(_KEYS_MAX)}
    reader.end()
    try:
        types = Types(**{name: fields[name] for name in _READ})
    except KeyError as e:
        raise BadInputError("body", f"the description of records lacks {e}") from None
    if types.byteorder not in ("little", "big") or types.word_bytes not in (4, 8):
        raise BadInputError("body", f"no machine: {types.byteorder!r:.20} endian, words of {types.word_bytes} bytes")
    if types.source not in (OWN, PINNED):
        raise BadInputError("body", f"a ring of {types.source!r:.20}: it is {OWN} or {PINNED}")
    if not ring_size_ok(types.ring_bytes):
        raise BadInputError("body", f"{types.ring_bytes} bytes: no size of a ring")
    return types


def ring_size_ok(ring_bytes: int) -> bool:
    """Return whether a ring can have this size."""
    in_bounds = limits.BPF_RING_BYTES_LEAST <= ring_bytes <= limits.BPF_RING_BYTES_MAX
    return in_bounds and ring_bytes & (ring_bytes - 1) == 0


def _read_btf(reader: Reader) -> bytes:
    return reader.binary(limits.BPF_BTF_BYTES_MAX)


#: How the value of each key is taken; any other is one that a later producer added.
_READ: Final[dict[str, Callable[[Reader], Any]]] = {
    "program": Reader.text,
    "type": Reader.text,
    "byteorder": Reader.text,
    "word_bytes": Reader.integer,
    "btf": _read_btf,
    "source": Reader.text,
    "ring_bytes": Reader.integer,
}
