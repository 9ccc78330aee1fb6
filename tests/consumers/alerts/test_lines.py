"""Records to lines: the kernel's own, escapes undone, all of them or only candidates."""

import pytest

from consumers.alerts.lines import FrameLines
from consumers.reports.report import Line
from schemas.errors import BadInputError
from tests.consumers._frames import frame

STALL = b"watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [x:1]"


def made(*records, first=10):
    return frame(first, first + len(records), 0, records=list(records))


def texts(found):
    return [each.text for each in found]


def test_a_record_is_a_line_with_place_time_and_caller():
    found = made(b"4,10,77,-,caller=C3;hello\n SUBSYSTEM=pci\n")
    assert list(FrameLines(found, 0, lambda: True)) == [Line(10, 77_000, "C3", "hello", structured=True)]


def test_a_record_with_a_line_break_in_its_message_is_one_line():
    found = made(b"4,10,77,-;one\\x0atwo \\xff\n")
    assert [(each.place, each.text) for each in FrameLines(found, 0, lambda: True)] == [(10, "one\ntwo \ufffd")]


def test_what_others_than_the_kernel_wrote_is_left_out():
    found = made(b"12,10,77,-;" + STALL + b"\n", b"4,11,78,-;kernel\n")
    assert texts(FrameLines(found, 0, lambda: True)) == ["kernel"]


def test_who_cannot_be_read_or_says_another_number_is_left_out():
    found = made(b"no header\n", b"4,99,78,-;liar\n", b"4,12,79,-;good\n")
    assert texts(FrameLines(found, 0, lambda: True)) == ["good"]


def test_what_came_before_is_passed_over():
    found = made(*(b"4,%d,7,-;%d\n" % (seq, seq) for seq in range(10, 20)))
    assert texts(FrameLines(found, 17, lambda: True)) == ["17", "18", "19"]


def test_without_a_report_only_candidates_come_and_behind_one_everything():
    records = [b"4,%d,7,-;quiet %d\n" % (seq, seq) for seq in range(10, 20)]
    records[4] = b"0,14,7,-;" + STALL + b"\n"
    found = made(*records)
    assert texts(FrameLines(found, 0, lambda: False)) == [STALL.decode()]
    taken = []
    taken.extend(FrameLines(found, 0, lambda: bool(taken)))
    assert texts(taken) == [STALL.decode(), *(f"quiet {seq}" for seq in range(15, 20))]


def test_a_candidate_in_front_of_the_start_is_none():
    found = made(b"0,10,7,-;" + STALL + b"\n", b"4,11,7,-;quiet\n")
    assert texts(FrameLines(found, 11, lambda: False)) == []


def test_a_body_that_is_none_is_said_before_anything_is_taken():
    found = made(b"4,10,7,-;x\n")
    found.body += b"more"
    with pytest.raises(BadInputError):
        FrameLines(found, 0, lambda: True)


def test_what_is_left_out_is_counted_and_passed_over():
    stalls = [b"0,%d,7,-;" % seq + STALL + b"\n" for seq in range(10, 14)]
    forged = b"12,14,7,-;" + STALL + b"\n"
    found = FrameLines(made(*stalls, forged, b"4,15,7,-;quiet\n"), 0, lambda: False)
    assert next(iter(found)).place == 10
    assert found.left_out() == 4
    assert found.left_out() == 0
    assert list(found) == []


def test_while_a_report_is_open_all_of_it_is_left_out():
    found = FrameLines(made(*(b"4,%d,7,-;quiet\n" % seq for seq in range(10, 20))), 15, lambda: True)
    assert next(iter(found)).place == 15
    assert found.left_out() == 5


def test_records_without_a_byte_are_nobodys():
    found = FrameLines(made(b"", b"0,11,7,-;" + STALL + b"\n", b"1,", b""), 0, lambda: True)
    assert texts(found) == [STALL.decode()]
