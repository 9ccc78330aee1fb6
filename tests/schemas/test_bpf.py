import dataclasses
import hashlib
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import bpf, limits
from schemas.bpf import Types
from schemas.errors import BadInputError
from tests.schemas import wire_writer as w

TYPES = Types("sched-delay", "sched_delay", "little", 8, b"\x9f\xeb\x01", "own", 1 << 20)
#: A record of 5 bytes and a discarded one of none.
DATA = struct.pack("<2I5s3x2I", 5, 0, b"hello", 1 << 30, 0)


def refused(call, body):
    with pytest.raises(BadInputError) as caught:
        call(body)
    return caught.value.reason


# Records


def test_the_bytes_of_a_body():
    assert bpf.pack(1, 4096, DATA) == struct.pack("<2IQ", 1, 24, 4096) + DATA


@given(st.binary(max_size=100), st.integers(0, 12), st.integers(0, 1 << 59))
def test_records_come_back(data, count, eighth):
    data = data + bytes(-len(data) % 8) + bytes(8 * count)
    found = bpf.unpack(bpf.pack(count, 8 * eighth, data))
    assert (found.count, found.ring_position, bytes(found.data)) == (count, 8 * eighth, data)


@pytest.mark.parametrize("cut", range(16 + len(DATA)))
def test_a_shorter_body_is_refused(cut):
    assert refused(bpf.unpack, bpf.pack(1, 0, DATA)[:cut]) == "body"


@pytest.mark.parametrize(
    ("count", "stated", "at", "size"),
    [
        (1, 16, 0, 17),
        (1, 16, 0, 24),
        (1, 12, 0, 12),
        (1, 16, 4, 16),
        (3, 16, 0, 16),
        (1, 0, 0, 0),
        (0xFFFFFFFF, 16, 0, 16),
        (0, 0xFFFFFFF8, 0, 0),
        (1, 16, limits.INT64_MAX - 15 + 8, 16),
        (1, 16, (1 << 64) - 8, 16),
        (limits.FRAME_RECORDS_MAX + 1, 1 << 20, 0, 1 << 20),
        (1, bpf.DATA_BYTES_MAX + 8, 0, bpf.DATA_BYTES_MAX + 8),
    ],
)
def test_bodies_that_break_a_limit_are_refused(count, stated, at, size):
    assert refused(bpf.unpack, struct.pack("<2IQ", count, stated, at) + bytes(size)) == "body"


def test_the_most_that_a_body_holds():
    body = bpf.pack(limits.FRAME_RECORDS_MAX, 0, bytes(bpf.DATA_BYTES_MAX))
    assert len(body) == limits.BODY_BYTES_MAX
    tracemalloc.start()
    try:
        assert bpf.unpack(body).count == limits.FRAME_RECORDS_MAX
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


# Descriptions


def test_a_description_comes_back():
    body = bpf.pack_types(TYPES)
    assert bpf.unpack_types(body) == TYPES
    assert bpf.descriptor(body) == hashlib.sha256(body).digest()


def fields(**changed):
    values = {
        "program": w.text("sched-delay"),
        "type": w.text("sched_delay"),
        "byteorder": w.text("little"),
        "word_bytes": w.integer(8),
        "btf": w.binary(b"\x9f\xeb\x01"),
        "source": w.text("own"),
        "ring_bytes": w.integer(1 << 20),
    }
    return w.mapping([(w.text(name), value) for name, value in (values | changed).items() if value is not None])


def test_the_bytes_of_a_description():
    assert bpf.pack_types(TYPES) == fields()


def test_what_a_later_producer_adds_is_passed_over():
    assert bpf.unpack_types(fields(more=w.array([w.NIL, w.mapping([])]))) == TYPES


def test_a_ring_without_types_is_described():
    raw = dataclasses.replace(TYPES, program="pinned/x", type="", btf=b"", source="pinned")
    assert bpf.unpack_types(bpf.pack_types(raw)) == raw


def test_the_largest_btf_fits_into_a_body():
    most = dataclasses.replace(TYPES, program="p" * 255, type="t" * 255, btf=bytes(limits.BPF_BTF_BYTES_MAX))
    body = bpf.pack_types(most)
    assert len(body) <= limits.BODY_BYTES_MAX
    assert bpf.unpack_types(body) == most


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Types)])
def test_every_key_must_be_there_and_of_its_type(name):
    assert refused(bpf.unpack_types, fields(**{name: None})) == "body"
    assert refused(bpf.unpack_types, fields(**{name: w.NIL})) == "body"


@pytest.mark.parametrize(
    "changed",
    [
        {"byteorder": w.text("middle")},
        {"word_bytes": w.integer(16)},
        {"source": w.text("stolen")},
        {"ring_bytes": w.integer(2048)},
        {"ring_bytes": w.integer(12288)},
        {"ring_bytes": w.integer(-4096)},
        {"ring_bytes": w.integer(1 << 31)},
        {"program": w.text("x" * 256)},
        {"type": w.text(b"\xff")},
        {"btf": w.text("text")},
        {"btf": b"\xc6\xff\xff\xff\xff"},
        {"btf": w.binary(bytes(limits.BPF_BTF_BYTES_MAX + 1))},
    ],
    ids=lambda changed: f"{changed!r:.60}",
)
def test_a_description_that_breaks_a_limit_is_refused(changed):
    assert refused(bpf.unpack_types, fields(**changed)) == "body"


def test_a_key_that_is_there_twice_is_refused():
    pair = (w.text("program"), w.text("x"))
    assert refused(bpf.unpack_types, w.mapping([pair, pair])) == "body"


def test_every_shorter_description_is_refused():
    body = bpf.pack_types(TYPES)
    assert {refused(bpf.unpack_types, body[:cut]) for cut in range(len(body))} == {"body"}
    assert refused(bpf.unpack_types, body + b"\0") == "body"


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data):
    assert refused(bpf.unpack_types, data) == "body"
