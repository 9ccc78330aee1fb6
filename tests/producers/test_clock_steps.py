import select
import time

import pytest

from producers.clock_steps import ClockSteps


def test_nothing_is_told_while_nobody_sets_the_clock():
    steps = ClockSteps()
    assert not steps.stepped()
    steps.close()
    steps.close()
    assert steps.fileno() == -1


@pytest.mark.kernel
def test_setting_the_clock_wakes_whoever_waits_and_is_told_once_each_time():
    steps = ClockSteps()
    try:
        for _ in range(2):
            # To what it shows: some hundred ns are all that it is set back by.
            try:
                time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns())
            except PermissionError:
                pytest.skip("this process may not set the clock")
            assert select.select([steps.fileno()], [], [], 10)[0]
            assert steps.stepped()
            assert not steps.stepped()
    finally:
        steps.close()
