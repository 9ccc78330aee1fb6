"""Readings of /proc/stat: which CPUs went on between two of them."""

import contextlib
import threading
from concurrent.futures import wait

import pytest

from consumers.alerts.signs import Readings, SignReader
from consumers.transport.base import Message
from consumers.transport.memory import MemoryLog, MemoryReader
from schemas.errors import BadInputError, UnavailableError
from tests.consumers.alerts._stalls import LOG, STATE, Kernel, awake, reading

WATCHED = {("m1", "guest-kernel")}


def take(readings, frame, watched=WATCHED):
    return readings.take(STATE, Message(0, 99, frame), watched)


def test_one_reading_proves_nothing_and_two_prove_what_grew_since_the_first():
    readings, kernel = Readings(), Kernel()
    assert take(readings, reading(kernel, 0)) is None
    sign = take(readings, reading(kernel, 1, 5, user=(100, 101), idle=(53, 50)))
    assert (sign.busy, sign.idle) == ((1,), (0,))
    assert sign.since_ns == kernel.start_ns + kernel.ts_us * 1000
    assert (sign.machine, sign.layer, sign.boot_id, sign.arrival_ns) == ("m1", "guest-kernel", "b1", 99)


def test_another_boot_begins_anew():
    readings = Readings()
    take(readings, reading(Kernel(), 0))
    assert take(readings, reading(Kernel(boot="b2"), 0, user=(900, 900))) is None


def test_who_is_not_watched_is_not_read():
    readings, kernel = Readings(), Kernel()
    take(readings, reading(kernel, 0))
    readings.keep([])
    assert take(readings, reading(kernel, 1, 5, user=(900, 900))) is None


def test_what_is_no_frame_is_an_error():
    with pytest.raises(BadInputError):
        take(Readings(), b"nothing")


def test_the_topic_is_read_from_its_end_and_only_while_something_is_watched():
    log, kernel, opened = MemoryLog([LOG.topic, STATE.topic]), Kernel(), []

    def open_reader():
        opened.append(MemoryReader(log))
        return opened[-1]

    with contextlib.closing(SignReader(open_reader)) as signs:
        log.append(STATE, reading(kernel, 0))
        look(signs, set())
        assert opened == []
        assert look(signs, WATCHED) == []
        assert look(signs, WATCHED) == []
        log.append(STATE, b"damage")
        log.append(STATE, reading(kernel, 1, 5, user=(101, 101)))
        log.append(STATE, reading(kernel, 2, 10, user=(101, 102)))
        look(signs, WATCHED)
        (sign,) = look(signs, set())
        assert sign.busy == (1,)
        look(signs, WATCHED)
        assert len(opened) == 2


def look(signs, machines):
    """Return what the look before found, and look anew, to the end."""
    found = signs.poll({LOG: machines})
    wait([signs._looking], 10)
    return found


def test_a_log_that_does_not_answer_holds_nobody_up_and_is_asked_again(caplog):
    log, kernel, asked, opened = MemoryLog([LOG.topic, STATE.topic]), Kernel(), threading.Event(), []

    def open_reader():
        opened.append(True)
        if len(opened) > 1:
            return MemoryReader(log)
        asked.wait(10)
        raise UnavailableError("Kafka at nowhere does not answer")

    with contextlib.closing(SignReader(open_reader)) as signs:
        for _ in range(3):
            assert signs.poll({LOG: WATCHED}) == []
        asked.set()
        wait([signs._looking], 10)
        assert look(signs, WATCHED) == []
        assert "Kafka at nowhere does not answer" in caplog.text
        log.append(STATE, reading(kernel, 1, 5, user=(101, 101)))
        log.append(STATE, reading(kernel, 2, 10, user=(101, 102)))
        look(signs, WATCHED)
        (sign,) = look(signs, WATCHED)
        assert (sign.busy, len(opened)) == ((1,), 2)


def test_a_task_that_is_not_blocked_any_more_is_a_sign_by_itself():
    readings, kernel = Readings(), Kernel()
    assert take(readings, awake(kernel, 0, 77, blocked=True)) is None
    sign = take(readings, awake(kernel, 1, 77, 5))
    assert (sign.awake, sign.busy, sign.idle) == (((77, 1),), (), ())
    assert sign.at_ns == kernel.start_ns + kernel.ts_us * 1000 + 5 * 10**9
