"""Frames of pages to tables: the form of a frame, cuts at every position, and what stands in for a decode that fails."""

import dataclasses

import pytest

from consumers.decode import ftrace
from consumers.decode.base import FrameIn
from consumers.held import Held
from consumers.transport.base import Partition
from schemas import ftrace as wire
from schemas.errors import BadInputError
from tests.consumers import _pages
from tests.consumers._pages import CPU, FORMATS, page, paged, tick, tock

NAME = wire.descriptor(FORMATS)
KNOWN = {NAME: FORMATS}
FAR = wire.pack_formats(
    dataclasses.replace(
        wire.unpack_formats(FORMATS), header_page=_pages.FORM.header_text.replace("offset:16", "offset:4092")
    )
)


@pytest.fixture(autouse=True)
def nothing_parsed(monkeypatch):
    """The tests give one name to several descriptions."""
    monkeypatch.setattr(ftrace, "_known", Held(1 << 20))


def item(frame, offset=3):
    return FrameIn(frame, 900 + offset, Partition("t", 0), offset)


def decode(*frames, known=KNOWN):
    return ftrace.decode_many([item(each, i) for i, each in enumerate(frames)], known)


def test_a_frame_becomes_one_table_for_each_kind_with_its_streams_tags():
    pages = [_pages.FORM.page(_pages.T, tick(4), tock(b"abc")), page(5, 6)]
    found = decode(paged(10, pages))
    assert sorted(found.tables) == ["trace_tick", "trace_tock"]
    rows = found.tables["trace_tick"].select(["instance", "cpu", "page", "position", "value", "arrival_ns"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("set/cpu0", 0, 10, 0, 4, 900),
        ("set/cpu0", 0, 11, 0, 5, 900),
        ("set/cpu0", 0, 11, 1, 6, 900),
    ]
    assert found.tables["trace_tock"]["text"].to_pylist() == ["abc"]
    assert (found.bad, found.rows) == ([], {CPU: 4})


@pytest.mark.parametrize("at", range(10, 14))
def test_a_frame_is_cut_at_any_page(at):
    whole = paged(10, [page(i) for i in range(3)])
    head, tail = ftrace.head(whole, at), ftrace.trim(whole, at)
    assert (head.first, head.next, head.count) == (10, at, at - 10)
    assert (tail.first, tail.next, tail.count) == (at, 13, 13 - at)
    for each in (head, tail):
        ftrace.check(each)
    values = [row["value"] for part in (head, tail) for row in decode(part).tables.get("trace_tick", _NONE).to_pylist()]
    assert values == [0, 1, 2]


_NONE = decode(paged(0, [page(1)])).tables["trace_tick"].slice(0, 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"body": b"abc"}, "hold no page count"),
        ({"count": 3}, "2 pages in the body, 3 stated"),
        ({"next": 5}, r"2 pages in the body, 2 stated, for \[0, 5\)"),
        ({"descriptor": None}, "SET/cpuN and a descriptor"),
        ({"stream": CPU._replace(instance="set")}, "SET/cpuN"),
        ({"stream": CPU._replace(instance="set/cpu" + "1" * 9)}, "SET/cpuN"),
        ({"body": wire.head(1, 5000) + bytes(5000)}, "no size of a sub-buffer"),
    ],
)
def test_a_frame_of_another_form_is_refused_and_by_many_it_is_one_bad_record(changes, said):
    bad = dataclasses.replace(paged(0, [page(1), page(2)]), **changes)
    with pytest.raises(BadInputError, match=said):
        ftrace.check(bad)
    found = decode(bad, paged(0, [page(3)], stream=CPU._replace(instance="set/cpu1")))
    assert [(each.reason, each.position, each.positions) for each in found.bad] == [("body", 0, bad.next)]
    assert found.tables["trace_tick"]["value"].to_pylist() == [3]


def test_events_of_an_id_that_two_formats_claim_are_kept_raw():
    two = {"a:x": _pages.TICK, "b:y": _pages.TICK.replace("name: tick", "name: tock")}
    found = decode(paged(7, [page(1), page(2)]), known={NAME: _pages.formats(two)})
    assert found.tables.keys() == {"trace_unknown"}
    assert found.bad == []


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "nobody has sent the formats"),
        ({NAME: b"\xc0"}, "no map|body"),
        ({NAME: _pages.formats(page_bytes=8192)}, "are of pages of 8192 bytes"),
        ({NAME: FAR}, "records begin at byte 4092 of 4096"),
    ],
    ids=["absent", "no description", "of other pages", "of no room"],
)
def test_a_frame_that_cannot_be_described_is_one_bad_record_with_all_its_positions(known, said):
    found = decode(paged(7, [page(1), page(2)]), known=known)
    (bad,) = found.bad
    assert (bad.reason, bad.position, bad.positions, bad.offset) == ("descriptor", 7, 2, 0)
    assert __import__("re").search(said, bad.detail)
    assert (found.tables, found.rows) == ({}, {})


def test_a_format_that_cannot_be_read_leaves_its_events_unknown_and_the_others_rows():
    body = _pages.formats({"sys:tick": _pages.TICK, "sys:tock": "no format"})
    frame = paged(0, [_pages.FORM.page(_pages.T, tick(4), tock(b"abc"))], body=body)
    found = decode(frame, known={wire.descriptor(body): body})
    assert {name: table.num_rows for name, table in found.tables.items()} == {"trace_tick": 1, "trace_unknown": 1}
    assert found.tables["trace_unknown"]["event_id"].to_pylist() == [8]


def test_a_page_with_a_fault_keeps_its_rows_and_its_position():
    cut = _pages.FORM.page(_pages.T, tick(1), tick(2), bytes(16))
    (bad,) = decode(paged(5, [page(0), cut, page(3)])).bad
    assert (bad.reason, bad.position, bad.positions) == ("page", 6, 0)
    assert bad.detail.startswith("byte 48: zeroed, 2 events before it")
    assert bad.data == cut[48:]


def test_frames_of_two_kernels_are_decoded_each_as_its_own_says():
    other = _pages.formats(
        {"sys:tick": _pages.event_text("tick", 9, ("unsigned long value", 8, 0), ("int more", 4, 1))}
    )
    newer = _pages.FORM.page(
        _pages.T, _pages.FORM.event(1, _pages.payload(9, (2**63).to_bytes(8, "little") + bytes(4)))
    )
    frames = paged(0, [page(-1)]), paged(0, [newer], stream=CPU._replace(machine="n"), body=other)
    found = decode(*frames, known={NAME: FORMATS, wire.descriptor(other): other})
    table = found.tables["trace_tick"]
    assert {row["machine"]: (row["value"], row["more"]) for row in table.to_pylist()} == {
        "m": (-1, None),
        "n": (2**63, 0),
    }


def test_the_view_shows_the_context_behind_the_common_columns():
    names = decode(paged(0, [page(1)])).tables["trace_tick"].column_names
    shown = ftrace.columns_sql("trace_tick", names)
    assert shown.index('"preempt_count"') < shown.index("as hardirq") < shown.index('"value"')
    assert ftrace.columns_sql("trace_unknown", ["machine", "data"]) == "*"


def test_a_pointer_to_a_constant_text_has_it_beside_its_address():
    event = _pages.event_text("tick", 7, ("const char * s", 8, 0)).replace('""', '"%s", REC->s')
    body = _pages.formats({"sys:tick": event}, printk_formats='0xffffffff8281aa07 : "thaw_processes"\n')
    pages = [
        _pages.FORM.page(_pages.T, *(_pages.tick(value - 2**64, size=8) for value in (0xFFFFFFFF8281AA07, 2**64 - 9)))
    ]
    table = decode(paged(0, pages, body=body), known={wire.descriptor(body): body}).tables["trace_tick"]
    assert table["s"].to_pylist() == [0xFFFFFFFF8281AA07, 2**64 - 9]
    assert table["s_name"].to_pylist() == ["thaw_processes", None]
