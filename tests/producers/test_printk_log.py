"""printk's clock by the kernel log itself: on the real log, against what a perf event says of the same moment."""

import contextlib
import os
import select
import time

import pytest

from producers import printk_log
from producers.printk_clock import PrintkClock
from producers.printk_log import MARKER, READ_TIME, PrintkLog
from schemas.errors import AccessError

pytestmark = pytest.mark.kernel
NEVER = select.epoll()  # something to wait on that does not come


@pytest.fixture
def opened(kernel_log):
    with contextlib.ExitStack() as all_of_them:

        def make(**kwargs):
            found = PrintkLog(NEVER.fileno(), **({"interval_s": 60.0, "marker": False} | kwargs))
            all_of_them.callback(found.close)
            return found

        yield make


@pytest.fixture
def truth():
    try:
        clock = PrintkClock()
    except AccessError as e:
        pytest.skip(str(e))
    yield lambda: next(each for each in (clock.read() for _ in range(50)) if each is not None)
    clock.close()


def apart_ns(found, true):
    """Return by how much the true reading lies outside of the one found."""
    ahead, true_ahead = found.printk_ns - found.monotonic_ns, true.printk_ns - true.monotonic_ns
    return abs(ahead - true_ahead) - found.bracket_ns // 2 - true.bracket_ns // 2


def test_a_marker_is_stamped_while_it_is_written(opened, truth):
    clock = opened(marker=True)
    assert clock.refused == ""
    for _ in range(20):
        found, how = clock.read()
        assert how == MARKER
        assert found.cpu == -1
        assert found.bracket_ns < 10**9
        # Whatever the two clocks drifted by since.
        assert apart_ns(found, truth()) <= 1000


def test_a_record_was_stamped_between_two_looks_at_the_log(opened, truth, kernel_log):
    clock = opened()
    for _ in range(10):
        clock.read()
        time.sleep(0.02)
        kernel_log.write_one(b"<14>%s\n" % kernel_log.tag.encode())
        found, how = clock.read()
        assert how == READ_TIME
        assert found.bracket_ns > 20_000_000
        assert apart_ns(found, truth()) <= 1000


def test_a_line_that_waited_for_its_end_does_not_count(opened, truth, kernel_log):
    clock = opened()
    fd = os.open("/dev/kmsg", os.O_WRONLY)
    os.write(fd, b"<14>%s begins" % kernel_log.tag.encode())
    time.sleep(0.3)
    clock.read()
    os.write(fd, b"<14>%s\n" % kernel_log.tag.encode())
    os.close(fd)
    assert apart_ns(clock.read()[0], truth()) <= 1000


def test_it_wakes_for_a_few_records_and_then_no_more_until_the_next_interval(opened, kernel_log):
    clock = opened()
    clock.read()
    woken = 0
    for _ in range(3 * printk_log._WAKES_MAX):
        kernel_log.write_one(b"<14>%s\n" % kernel_log.tag.encode())
        with select.epoll() as outer:
            outer.register(clock.fileno(), select.EPOLLIN)
            if outer.poll(0.02):
                woken += 1
                clock.read()
    assert woken == printk_log._WAKES_MAX
    clock._period_ns = 0
    clock.read()
    kernel_log.write_one(b"<14>%s\n" % kernel_log.tag.encode())
    with select.epoll() as outer:
        outer.register(clock.fileno(), select.EPOLLIN)
        assert outer.poll(1)


def test_a_log_that_takes_no_markers_is_said_and_read_as_it_is(opened, kernel_log, monkeypatch):
    clock = opened(marker=True)
    os.close(clock._out)
    clock._out = os.open("/dev/kmsg", os.O_RDONLY)
    kernel_log.write_one(b"<14>%s\n" % kernel_log.tag.encode())
    assert clock.read()[1] == READ_TIME
    assert clock._out == -1
    clock.close()
    clock.close()
    assert clock.fileno() == -1
