import struct
import sys

import pytest

from producers.ftrace.pages import Geometry, geometry, read_heads

HEADER = """\
	field: u64 timestamp;	offset:0;	size:8;	signed:0;
	field: local_t commit;	offset:8;	size:{0};	signed:1;
	field: int overwrite;	offset:8;	size:1;	signed:1;
	field: char data;	offset:{1};	size:{2};	signed:0;
"""
WIDE, NARROW = Geometry(4096, 8, 8, 16), Geometry(8192, 8, 4, 12)
MISSED, STORED = 1 << 31, 1 << 30


def page(layout, ts, commit, *, lost=None):
    word = "=Q" if layout.commit_bytes == 8 else "=I"
    made = bytearray(layout.page_bytes)
    struct.pack_into("=Q", made, 0, ts)
    struct.pack_into(word, made, layout.commit_offset, commit)
    if lost is not None:
        struct.pack_into(word, made, layout.data_offset + (commit & (1 << 27) - 1), lost)
    return bytes(made)


def heads(layout, *pages):
    return read_heads(memoryview(b"".join(pages)), layout)


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        (HEADER.format(8, 16, 4080), WIDE),
        (HEADER.format(4, 12, 8180), NARROW),
        (HEADER.format(8, 16, 65520), WIDE._replace(page_bytes=65536)),
    ],
)
def test_the_layout_is_what_the_kernel_says(text, layout):
    assert geometry(text) == layout


@pytest.mark.parametrize(
    "text", ["", HEADER.format(2, 16, 4080), HEADER.format(8, 16, 4081), HEADER.format(8, 16, 4080)[60:]]
)
def test_another_layout_is_refused(text):
    with pytest.raises(ValueError, match="events/header_page"):
        geometry(text)


@pytest.mark.parametrize("layout", [WIDE, NARROW])
def test_times_and_losses_of_some_pages(layout):
    ones = (1 << 8 * layout.commit_bytes) - (1 << 32)  # RB_MISSED_EVENTS is a negative int
    size = layout.page_bytes - layout.data_offset
    found = heads(
        layout,
        page(layout, 100, 4000),
        page(layout, 200, 400 | MISSED | STORED | ones, lost=1_906_895),
        page(layout, 300, size | MISSED | ones),  # full: no room for the number
        page(layout, 400, 400),
        page(layout, 500, 0 | MISSED | STORED, lost=0),
        page(layout, (1 << 64) - 1, 40),
    )
    assert found == (100, (1 << 64) - 1, [(1, 1_906_895), (2, None), (4, 0)])


def test_one_page():
    assert heads(WIDE, page(WIDE, 7, 4080)) == (7, 7, [])


def test_a_number_that_would_lie_behind_the_page_is_not_read():
    assert heads(WIDE, page(WIDE, 7, 4076 | MISSED | STORED), page(WIDE, 8, 4)).lost == [(0, None)]


def test_the_number_is_a_word_of_this_machine():
    assert sys.byteorder in ("little", "big")
    assert heads(WIDE, page(WIDE, 7, 4072 | MISSED | STORED, lost=1 << 40)).lost == [(0, 1 << 40)]
