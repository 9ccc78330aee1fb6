import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import kmsg, limits
from schemas.errors import BadInputError


def test_the_bytes_of_a_body():
    assert kmsg.pack([b"6,1,2,-;x\n", b"", b"ab"]) == struct.pack("<4I", 3, 10, 0, 2) + b"6,1,2,-;x\nab"
    assert kmsg.pack([]) == bytes(4)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_records_come_back(records):
    lengths, data = kmsg.unpack(kmsg.pack(records))
    assert list(lengths) == [len(record) for record in records]
    assert bytes(data) == b"".join(records)


@pytest.mark.parametrize("cut", range(22))
def test_every_shorter_body_is_refused(cut):
    body = kmsg.pack([b"abcd", b"", b"efghij"])
    assert len(body) == 26
    with pytest.raises(BadInputError) as caught:
        kmsg.unpack(body[:cut])
    assert caught.value.reason == "body"


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<I", limits.FRAME_RECORDS_MAX + 1),
        struct.pack("<I", 0xFFFFFFFF),
        struct.pack("<2I", 1, limits.RECORD_BYTES_MAX + 1) + bytes(limits.RECORD_BYTES_MAX + 1),
        struct.pack("<2I", 1, 3) + b"abcd",
        struct.pack("<3I", 2, 0xFFFFFFFF, 5) + b"abcd",
    ],
)
def test_bodies_that_break_a_limit_are_refused(body):
    with pytest.raises(BadInputError) as caught:
        kmsg.unpack(body)
    assert caught.value.reason == "body"


def test_the_longest_record_is_taken():
    record = bytes(limits.RECORD_BYTES_MAX)
    assert list(kmsg.unpack(kmsg.pack([record]))[0]) == [len(record)]


@pytest.mark.parametrize(("record", "seq"), [(b"6,0,1,-;x\n", 0), (b"30,9223372036854775807,1,-;", limits.INT64_MAX)])
def test_the_sequence_number_of_a_record(record, seq):
    assert kmsg.header_seq(record) == seq


@pytest.mark.parametrize(
    "record", [b"", b"6", b"6,", b"6,7", b",7,1,-;", b"6,-7,1,-;", b"6,9223372036854775808,1,-;", b" A=b"]
)
def test_a_record_without_a_sequence_number(record):
    with pytest.raises(BadInputError) as caught:
        kmsg.header_seq(record)
    assert caught.value.reason == "record"
