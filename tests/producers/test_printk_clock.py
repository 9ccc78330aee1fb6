import os
import re
import time
import uuid
from itertools import pairwise

import pytest

from producers.printk_clock import PrintkClock, PrintkReading, spanning
from schemas.errors import AccessError


@pytest.fixture
def printk():
    try:
        clock = PrintkClock()
    except AccessError as e:
        pytest.skip(str(e))
    yield clock
    clock.close()
    clock.close()


def test_a_reading_of_two_cpus_holds_for_both():
    one, other = PrintkReading(1000, 6000, 20, 0), PrintkReading(2000, 7300, 40, 1)
    found = spanning(one, other)
    assert (found.monotonic_ns, found.cpu) == (1000, 0)
    for each in (one, other):
        for ahead in (-each.bracket_ns // 2, each.bracket_ns // 2):
            apart = each.printk_ns + ahead - each.monotonic_ns - (found.printk_ns - found.monotonic_ns)
            assert abs(apart) <= found.bracket_ns / 2
    assert found.bracket_ns == 332


def test_readings_go_on_with_the_monotonic_clock(printk):
    # More than the ring holds at once.
    found = [reading for _ in range(400) if (reading := printk.read()) is not None]
    assert len(found) > 300
    for one, two in pairwise(found):
        elapsed = two.monotonic_ns - one.monotonic_ns
        assert elapsed > 0
        room = one.bracket_ns + two.bracket_ns + elapsed // 1000
        assert abs(two.printk_ns - one.printk_ns - elapsed) <= room or one.cpu != two.cpu


@pytest.mark.kernel
def test_a_record_written_between_two_readings_has_a_time_between_theirs(printk):
    if not os.access("/dev/kmsg", os.R_OK | os.W_OK):
        pytest.skip("/dev/kmsg is not writable")
    mark = f"hypocenter-clock-{uuid.uuid4().hex}"
    fd = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
    try:
        os.lseek(fd, 0, os.SEEK_END)
        before = printk.read()
        os.write(fd, f"{mark}\n".encode())
        after = printk.read()
        ts_us = _time_of(fd, mark)
    finally:
        os.close(fd)
    assert before.printk_ns // 1000 <= ts_us <= after.printk_ns // 1000
    # So that the reading itself is of printk's clock, not of one that is far from it.
    assert after.printk_ns - before.printk_ns < 10**9


def _time_of(fd, mark):
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            record = os.read(fd, 8192)
        except BlockingIOError:
            continue
        except BrokenPipeError:
            continue
        if mark.encode() in record:
            return int(re.match(rb"\d+,\d+,(\d+)", record)[1])
    raise AssertionError("the record did not come")
