"""Events as lines, in the shape of the kernel's own `trace` file."""

import pytest

from consumers.decode import ftrace
from consumers.decode.base import FrameIn
from consumers.transport.base import Partition
from schemas import ftrace as wire
from tests.consumers import _pages
from tests.consumers._pages import CPU, FORM, FORMATS, page, paged, payload, tick, tock


def lines(*frames, body=FORMATS):
    items = [FrameIn(each, 0, Partition("t", 0), i) for i, each in enumerate(frames)]
    return list(ftrace.text_lines(ftrace.decode_many(items, {wire.descriptor(body): body})))


def test_events_of_all_cpus_come_by_time():
    late = FORM.page(_pages.T + 5_000_000, tick(3))
    early = FORM.page(_pages.T, FORM.event(1000, payload(7, bytes(4), pid=42, flags=9)), tock(b"x"))
    assert lines(paged(0, [late]), paged(0, [early], stream=CPU._replace(instance="set/cpu12"))) == [
        "           <...>-42      [012] d.h..     5.000001: tick: value=0",
        "           <...>-1       [012] .....     5.000001: tock: text=x",
        "           <...>-1       [000] .....     5.005000: tick: value=3",
    ]


def test_times_are_rounded_as_the_kernel_does_it():
    (line,) = lines(paged(0, [FORM.page(59_934_218_747_500, tick(1, delta=0))]))
    assert " 59934.218748: tick" in line


@pytest.mark.parametrize("clock", ["counter", "uptime", "x86-tsc"])
def test_what_counts_something_else_than_ns_is_shown_as_it_is(clock):
    body = _pages.formats(clock=clock)
    frame = paged(0, [FORM.page(155_609_884_900_833, tick(1))], body=body, stream=CPU._replace(clock=clock))
    (line,) = lines(frame, body=body)
    assert " 155609884900834: tick" in line


def test_what_would_move_a_cursor_is_shown_as_a_question_mark():
    (line,) = lines(paged(0, [FORM.page(_pages.T, tock(b"a\x1b[2J\n"))]))
    assert line.endswith("tock: text=a?[2J?")


def test_a_name_stands_for_its_number_and_bytes_are_hex():
    event = _pages.event_text("tick", 7, ("int value", 4, 1)).replace(
        '""', '"%s", __print_symbolic(REC->value, { 1, "one" })'
    )
    body = _pages.formats({"sys:tick": event})
    known = lines(paged(0, [page(1, 2)], body=body), body=body)
    assert [line.partition("tick: ")[2] for line in known] == ["value=one", "value=2"]
    unknown = lines(paged(0, [FORM.page(_pages.T, FORM.event(1, b"\x63\0\1\2"))]))
    assert unknown[0].endswith("unknown: event_id=99 reason=unknown id data=63000102")


def test_machines_whose_events_have_no_context():
    event = (
        _pages.event_text("tick", 7, ("int value", 4, 1))
        .replace("common_", "other_")
        .replace("other_type", "common_type")
    )
    body = _pages.formats({"sys:tick": event})
    (line,) = lines(paged(0, [page(1)], body=body), body=body)
    assert line.startswith("           <...>--1      [000] .....     5.")
