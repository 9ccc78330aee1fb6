"""Leases are renewed by themselves, given back in the end, and found lost."""

import pytest

from consumers.alerts.keeper import LeaseKeeper
from consumers.alerts.lease import Lease, this_process
from consumers.lake.storage import MemoryStorage
from consumers.transport.base import Partition
from schemas.errors import StorageError
from tests.consumers.alerts._cases import until

P = Partition("hypocenter.log", 0)


class Storage(MemoryStorage):
    full = False

    def replace(self, key, data):
        if self.full:
            raise StorageError("disk full")
        super().replace(key, data)


@pytest.fixture
def storage():
    made = Storage()
    yield made
    made.close()


@pytest.fixture
def keeper():
    made = LeaseKeeper(0.02)
    yield made
    made.close()


def lease(storage):
    return Lease(storage, P, this_process(), 10**9)


def beat(storage):
    return storage.objects["alerts/hypocenter.log/0/beat.json"][0]


def kept(keeper, storage):
    mine = lease(storage)
    assert mine.acquire(0)
    keeper.keep(P, mine)
    return mine


def test_it_beats_until_it_is_let_go_and_then_the_next_need_not_wait(keeper, storage):
    kept(keeper, storage)
    first = beat(storage)
    until(lambda: beat(storage) != first)
    assert not lease(storage).acquire(0)
    keeper.let_go(P)
    assert lease(storage).acquire(0)


def test_who_was_replaced_is_told_once(keeper, storage):
    kept(keeper, storage)
    assert lease(storage).acquire(0, at_once=True)
    found = set()
    until(lambda: found.update(keeper.lost()) or found)
    assert found == {P}
    assert keeper.lost() == set()


def test_a_look_finds_it_at_once(storage):
    keeper = LeaseKeeper(3600)
    kept(keeper, storage)
    assert list(keeper.confirm()) == []
    assert lease(storage).acquire(0, at_once=True)
    assert list(keeper.confirm()) == [P]
    assert keeper.lost() == {P}
    keeper.close()


def test_a_disk_that_refuses_takes_nothing_away(keeper, storage, caplog):
    mine = kept(keeper, storage)
    storage.full = True
    until(lambda: "disk full" in caplog.text)
    assert list(keeper.confirm()) == []
    assert keeper.lost() == set()
    storage.full = False
    assert mine.held()


def test_at_the_end_all_are_released(storage):
    keeper = LeaseKeeper(3600)
    kept(keeper, storage)
    keeper.close()
    assert lease(storage).acquire(0)
