import dataclasses
import hashlib
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ftrace, limits
from schemas.errors import BadInputError
from schemas.ftrace import Formats
from tests.schemas import wire_writer as w

FORMATS = Formats("header", "mono", 4096, "little", 8, {"sched:sched_switch": "name: sched_switch\n", "irq:x": ""})
PAGE = bytes(range(256)) * 16


def refused(call, body):
    with pytest.raises(BadInputError) as caught:
        call(body)
    return caught.value.reason


# Pages


def test_the_bytes_of_a_body():
    assert ftrace.pack([PAGE, PAGE], 4096) == struct.pack("<2I", 2, 4096) + PAGE + PAGE
    assert ftrace.pack([], 65536) == struct.pack("<2I", 0, 65536)


@given(st.integers(0, 5), st.sampled_from([4096, 8192, 65536]))
def test_pages_come_back(count, page_bytes):
    pages = [bytes([number]) * page_bytes for number in range(count)]
    found = ftrace.unpack(ftrace.pack(pages, page_bytes))
    assert (found.count, found.page_bytes, bytes(found.data)) == (count, page_bytes, b"".join(pages))


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 8 + 4095, 8 + 4096, 8 + 8191])
def test_a_shorter_body_is_refused(cut):
    assert refused(ftrace.unpack, ftrace.pack([PAGE, PAGE], 4096)[:cut]) == "body"


@pytest.mark.parametrize(
    ("count", "page_bytes", "size"),
    [
        (1, 4096, 4097),
        (0xFFFFFFFF, 4096, 4096),
        (0xFFFFFFFF, 0xFFFFFFFF, 0),
        (1, 0, 0),
        (0, 0, 0),
        (2, 2048, 4096),
        (1, 4100, 4100),
        (1, 12288, 12288),
        (0, limits.TRACE_PAGE_BYTES_MAX * 2, 0),
        (1 << 20, 4096, 0),
    ],
)
def test_bodies_that_break_a_limit_are_refused(count, page_bytes, size):
    assert refused(ftrace.unpack, struct.pack("<2I", count, page_bytes) + bytes(size)) == "body"


def test_the_largest_sub_buffer_fits_into_a_frame():
    page = bytes(limits.TRACE_PAGE_BYTES_MAX)
    body = ftrace.pack([page], len(page))
    assert len(body) <= limits.BODY_BYTES_MAX
    assert ftrace.unpack(body).page_bytes == len(page)


def test_pages_are_not_copied():
    body = ftrace.pack([PAGE] * 250, 4096)
    tracemalloc.start()
    try:
        ftrace.unpack(body)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


# Descriptions


def test_a_description_comes_back():
    assert ftrace.unpack_formats(ftrace.pack_formats(FORMATS)) == FORMATS


def test_the_order_of_events_does_not_change_the_hash():
    other = dataclasses.replace(FORMATS, events=dict(reversed(FORMATS.events.items())))
    body = ftrace.pack_formats(FORMATS)
    assert ftrace.pack_formats(other) == body
    assert ftrace.descriptor(body) == hashlib.sha256(body).digest()


def fields(**changed):
    values = {
        "header_page": w.text("header"),
        "clock": w.text("mono"),
        "page_bytes": w.integer(4096),
        "byteorder": w.text("little"),
        "word_bytes": w.integer(8),
        "events": w.mapping(
            [(w.text("irq:x"), w.text("")), (w.text("sched:sched_switch"), w.text("name: sched_switch\n"))]
        ),
    }
    return w.mapping([(w.text(name), value) for name, value in (values | changed).items() if value is not None])


def test_the_bytes_of_a_description():
    assert ftrace.pack_formats(FORMATS) == fields()


def test_what_a_later_producer_adds_is_passed_over():
    assert ftrace.unpack_formats(fields(more=w.array([w.NIL, w.mapping([])]))) == FORMATS


def test_the_texts_that_pointers_point_at_may_be_missing():
    texts = '0xffffffff8281aa07 : "thaw_processes"\n'
    with_texts = dataclasses.replace(FORMATS, printk_formats=texts)
    assert ftrace.unpack_formats(fields()) == FORMATS
    assert ftrace.pack_formats(with_texts) == fields(printk_formats=w.text(texts))
    assert ftrace.unpack_formats(ftrace.pack_formats(with_texts)) == with_texts


def test_of_long_texts_a_description_has_whole_lines():
    line = '0xffffffff8281aa07 : "é"\n'
    most = limits.TRACE_FORMAT_BYTES_MAX // len(line.encode())
    assert ftrace.whole_lines(line * 3) == line * 3
    assert ftrace.whole_lines(line * (most + 5)) == line * most
    assert ftrace.whole_lines("x" * (limits.TRACE_FORMAT_BYTES_MAX + 1)) == ""


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Formats)])
def test_every_key_must_be_there_and_of_its_type(name):
    if name != "printk_formats":
        assert refused(ftrace.unpack_formats, fields(**{name: None})) == "body"
    assert refused(ftrace.unpack_formats, fields(**{name: w.NIL})) == "body"


@pytest.mark.parametrize(
    "changed",
    [
        {"byteorder": w.text("middle")},
        {"word_bytes": w.integer(16)},
        {"page_bytes": w.integer(4095)},
        {"page_bytes": w.integer(-4096)},
        {"page_bytes": w.integer(1 << 40)},
        {"clock": w.text("x" * 256)},
        {"header_page": w.text(b"\xff")},
        {"printk_formats": b"\xdb" + struct.pack(">I", (1 << 16) + 1) + bytes((1 << 16) + 1)},
        {"header_page": b"\xda" + struct.pack(">H", 4097) + bytes(4097)},
        {"events": b"\xdf\xff\xff\xff\xff"},
        {"events": w.mapping([(w.text("a:b"), w.text("")), (w.text("a:b"), w.text(""))])},
        {"events": w.mapping([(w.text("x" * 256), w.text(""))])},
        {"events": w.mapping([(w.text("a:b"), b"\xdb" + struct.pack(">I", (1 << 16) + 1) + bytes((1 << 16) + 1))])},
        {"events": w.mapping([(w.text("a:b"), b"\xdb\xff\xff\xff\xff")])},
        {"events": w.mapping([(w.text("a:b"), w.integer(1))])},
    ],
    ids=repr,
)
def test_a_description_that_breaks_a_limit_is_refused(changed):
    assert refused(ftrace.unpack_formats, fields(**changed)) == "body"


def test_more_events_than_allowed_are_refused():
    many = [(w.text(f"a:{number}"), w.text("")) for number in range(limits.TRACE_EVENTS_MAX + 1)]
    events = b"\xde" + struct.pack(">H", len(many)) + b"".join(key + value for key, value in many)
    assert refused(ftrace.unpack_formats, fields(events=events)) == "body"


def test_every_shorter_description_is_refused():
    body = ftrace.pack_formats(FORMATS)
    assert {refused(ftrace.unpack_formats, body[:cut]) for cut in range(len(body))} == {"body"}
    assert refused(ftrace.unpack_formats, body + b"\0") == "body"


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data):
    assert refused(ftrace.unpack_formats, data) == "body"
