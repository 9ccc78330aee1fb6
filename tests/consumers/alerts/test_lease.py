"""One owner at a time: terms are created once, silence is measured by the observer's clock alone, a dead process is seen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from consumers.alerts.lease import Lease, Owner, this_process
from consumers.lake.storage import MemoryStorage
from consumers.transport.base import Partition

S = 10**9
P = Partition("hypocenter.log", 0)
ELSEWHERE = Owner("another boot", 1, 1)


@pytest.fixture
def storage():
    made = MemoryStorage()
    yield made
    made.close()


def lease(storage, owner=None):
    return Lease(storage, P, owner or this_process(), 15 * S)


def test_the_first_owns_it_and_the_second_stands_by_while_it_lives(storage):
    first, second = lease(storage), lease(storage)
    assert first.acquire(0)
    for at_s in range(0, 100, 10):
        assert not second.acquire(at_s * S)
        assert first.renew()


def test_an_owner_elsewhere_that_is_silent_for_the_lease_is_replaced_and_steps_back(storage):
    first, second = lease(storage, ELSEWHERE), lease(storage)
    first.acquire(0)
    assert not second.acquire(1000 * S)
    assert not second.acquire(1014 * S)
    assert second.acquire(1015 * S)
    assert not first.held()
    assert not first.renew()
    assert second.held()


def test_of_two_that_stand_by_one_wins(storage):
    lease(storage, ELSEWHERE).acquire(0)
    second, third = lease(storage, Owner("b", 2, 2)), lease(storage, Owner("c", 3, 3))
    for each in (second, third):
        each.acquire(0)
    assert second.acquire(15 * S)
    assert not third.acquire(15 * S)
    assert not third.acquire(16 * S)


def test_what_is_released_is_taken_at_once(storage):
    first, second = lease(storage), lease(storage)
    first.acquire(0)
    first.release()
    assert not first.held()
    assert second.acquire(0)


def test_that_one_released_it_says_nothing_of_the_next_who_has_no_beat_yet(storage, monkeypatch):
    first, second, third = lease(storage, ELSEWHERE), lease(storage, ELSEWHERE), lease(storage)
    first.acquire(0)
    first.release()
    monkeypatch.setattr(second, "renew", lambda: False)
    assert second.acquire(0)
    assert not third.acquire(0)
    assert third.acquire(15 * S)


def test_a_group_takes_it_from_whoever_has_it(storage):
    first, second = lease(storage), lease(storage)
    first.acquire(0)
    assert second.acquire(0, at_once=True)
    assert not first.held()


def test_of_a_process_of_this_machine_that_is_gone_nobody_waits_for_the_silence(storage):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()[19])
    first = lease(storage, Owner(this_process().kernel, process.pid, start))
    second = lease(storage)
    first.acquire(0)
    assert not second.acquire(0)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert second.acquire(0), "a zombie owns nothing"
    process.communicate()


def test_a_number_that_another_process_has_by_now_is_not_the_owner(storage):
    us = this_process()
    lease(storage, us._replace(start=us.start + 1)).acquire(0)
    assert lease(storage).acquire(0)


def test_old_terms_are_cleared_away_but_the_last(storage):
    for _ in range(5):
        assert lease(storage).acquire(0, at_once=True)
    assert [key.rpartition("/")[2] for key in storage.objects].count("beat.json") == 1
    assert sorted(key for key in storage.objects if "term-" in key) == [
        f"alerts/hypocenter.log/0/term-{n:012d}.json" for n in (4, 5)
    ]


def test_a_torn_beat_is_no_beat(storage):
    lease(storage, ELSEWHERE).acquire(0)
    storage.replace("alerts/hypocenter.log/0/beat.json", b"{")
    second = lease(storage)
    assert not second.acquire(0)
    assert second.acquire(15 * S)


def test_the_same_partition_of_another_log_has_a_lease_of_its_own(storage):
    one, two = (Lease(storage, P, this_process(), 15 * S, log_id) for log_id in ("log-1", "log-2"))
    assert one.acquire(0)
    assert two.acquire(0)
    assert one.held()
    assert two.held()
