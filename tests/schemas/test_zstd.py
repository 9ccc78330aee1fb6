import pytest

from schemas import frame, zstd
from schemas.errors import AccessError, BadInputError
from schemas.frame import Frame
from schemas.stream import Stream

BODY = b"the same again and again " * 1000
FRAME = Frame(Stream("m", "b", "host", "kmsg", "", "printk"), "run", 0, 0, 1, 1, "kmsg", 1, BODY)


def test_what_is_compressed_comes_back_and_must_have_the_size_that_is_known():
    packed = zstd.compress(BODY)
    assert len(packed) < len(BODY) / 10
    assert zstd.decompress(packed, len(BODY)) == BODY
    for size_bytes in (0, len(BODY) - 1, len(BODY) + 1):
        with pytest.raises(BadInputError, match="codec: the stated body size"):
            zstd.decompress(packed, size_bytes)
    with pytest.raises(BadInputError, match="codec: "):
        zstd.decompress(packed[:-1], len(BODY))


def test_without_the_library_bodies_go_as_they_are_and_compressed_ones_are_no_damage(monkeypatch):
    compressed = frame.encode(FRAME)
    tags = frame.decode_tags(compressed)
    monkeypatch.setattr(zstd, "zstandard", None)
    plain = frame.encode(FRAME)
    assert plain == frame.encode(FRAME, compress=False)
    assert frame.decode(plain).body == BODY
    assert len(compressed) < len(plain) / 10
    with pytest.raises(AccessError, match="the Python package zstandard is not installed"):
        frame.decode(compressed)
    assert frame.decode_tags(compressed) == tags
    assert frame.decode_reach(compressed) == (FRAME.stream, 1)
