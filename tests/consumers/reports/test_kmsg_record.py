import pytest

from consumers.reports.kmsg_record import is_kmsg, kmsg_line
from consumers.reports.report import Line
from schemas.errors import BadInputError


def test_a_record_is_a_line_with_its_number_time_and_caller():
    raw = b"0,357,14554514,-,caller=C1;watchdog: \\x09x\n SUBSYSTEM=virtio\n"
    assert kmsg_line(raw) == Line(357, 14_554_514_000, "C1", "watchdog: \tx", structured=True)
    assert kmsg_line(raw, 9).place == 9


def test_a_record_of_userspace_is_none():
    assert kmsg_line(b"12,355,3193534,-;watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [sh:137]") is None
    # The level alone: facility 0.
    assert kmsg_line(b"7,355,3193534,-;x") is not None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"x",
        b"[    1.000000] x",
        b"4,1,2;x",
        b"4,1,-2,-;x",
        b"4,1,2,-",
        b"4,1," + b"9" * 25 + b",-;x",
        b" SUBSYSTEM=x;",
    ],
)
def test_what_has_no_header_is_refused(raw):
    with pytest.raises(BadInputError):
        kmsg_line(raw)
    assert not is_kmsg(raw)


def test_a_dump_is_told_from_text_by_its_first_line():
    assert is_kmsg(b"5,0,0,-;Linux version 6.1.0\n6,1,0,-;Command line:")
    assert not is_kmsg(b"[    0.000000] Linux version 6.1.0\n")


def test_netconsole_puts_the_release_in_front_and_cuts_long_lines():
    whole = kmsg_line(b"6.12.1-amd64,4,7,1000000,-,caller=T3;short")
    assert whole == Line(7, 10**9, "T3", "short", structured=True)
    assert is_kmsg(b"6.12.1-amd64,4,7,1000000,-,caller=T3;short")
    assert kmsg_line(b"4,8,1000000,-,ncfrag=6/11;world").text == "world"
