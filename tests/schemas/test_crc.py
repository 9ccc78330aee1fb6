import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.crc import crc32, shifted


@given(st.binary(max_size=40), st.binary(max_size=1000))
def test_parts_give_the_checksum_of_the_whole(a, b):
    assert shifted(zlib.crc32(a), len(b)) ^ zlib.crc32(b) == zlib.crc32(a + b)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65535, 65536, 1 << 20, 1_179_648])
def test_any_length_that_a_frame_has(size):
    b = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert shifted(zlib.crc32(b"head"), len(b)) ^ zlib.crc32(b) == zlib.crc32(b"head" + b)


# Of which library it is depends on the machine; the bytes on the wire do not.
@given(st.binary(max_size=1000), st.integers(0, (1 << 32) - 1))
def test_whoever_computes_it_the_number_is_zlibs(data, start):
    assert crc32(data) == zlib.crc32(data)
    assert crc32(memoryview(data)[3:], start) == zlib.crc32(data[3:], start)
