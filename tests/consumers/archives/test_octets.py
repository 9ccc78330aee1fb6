"""Reading never goes past what is there, and says where it would have."""

import pytest

from consumers.archives.octets import Cursor, FileOctets, MemoryOctets
from schemas.errors import BadInputError

DATA = b"\x01\x02\x03\x04text\0end"


@pytest.fixture(params=["file", "memory"])
def octets(request, tmp_path):
    if request.param == "memory":
        return MemoryOctets(DATA)
    (tmp_path / "x").write_bytes(DATA)
    return FileOctets(tmp_path / "x")


def test_numbers_and_texts_come_one_after_the_other(octets):
    cursor = Cursor(octets, "it")
    assert [cursor.number(2), cursor.number(2), cursor.text(4), cursor.octets_of(3)] == [0x201, 0x403, "text", b"end"]
    assert Cursor(octets, "it", big_endian=True).number(4) == 0x1020304


@pytest.mark.parametrize("count", [13, 1 << 32, 1 << 64])
def test_more_than_there_is_is_refused_before_it_is_read(octets, count):
    for use in (Cursor.skip, Cursor.need, Cursor.octets_of):
        with pytest.raises(BadInputError, match=rf"it has 12 bytes, and {count:,} are stated from byte 0 on"):
            use(Cursor(octets, "it"), count)


@pytest.mark.parametrize("at", [-1, 13, 1 << 64])
def test_a_place_that_is_not_there_is_refused(octets, at):
    with pytest.raises(BadInputError, match="12 bytes"):
        Cursor(octets, "it", at).number(1)
    with pytest.raises(BadInputError, match="12 bytes"):
        Cursor(octets, "it", at).text(9)


def test_a_text_has_an_end_and_a_limit(octets):
    with pytest.raises(BadInputError, match="cut-off"):
        Cursor(octets, "it", 9).text(99)
    with pytest.raises(BadInputError, match="no text of at most 3 bytes at 4"):
        Cursor(octets, "it", 4).text(3)
