"""The collector's loop over a log in memory: partitions found, taken over, given up; errors waited out."""

import threading
import time

import pytest

from consumers.follow import Follower
from consumers.lake.audit import audit
from consumers.transport.base import Message, Partition
from consumers.transport.memory import MemoryLog, MemoryReader
from consumers.views import run_query
from schemas.config import CollectConfig
from schemas.errors import StorageError, UsageError
from tests.consumers._follow import (
    CUT_BYTES,
    LOG,
    STATE,
    FailingStorage,
    Running,
    follower,
    seqs,
    starts,
    to_the_end,
    until,
)
from tests.consumers._frames import STREAM, message_bytes


@pytest.fixture
def storage():
    made = FailingStorage()
    yield made
    made.close()


@pytest.fixture
def log():
    return MemoryLog([LOG.topic, STATE.topic])


def test_until_end_stores_what_was_there_at_the_start_and_stops(log, storage):
    for i in range(5):
        log.append(LOG, message_bytes(i, i + 1, i))
    log.append(STATE, message_bytes(0, 2, 0, stream=STREAM._replace(machine="n")))
    seen = []
    each = follower(log, storage)
    each.run(threading.Event(), until_end=True, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 6)
    assert seen[-1] == (6, 6)
    assert each.records == 7
    assert seqs(storage) == [0, 0, 1, 1, 2, 3, 4]
    assert audit(storage, deep=True).closes


def test_a_refused_commit_of_one_partition_takes_nothing_from_the_others_in_the_poll(log, storage):
    other = STREAM._replace(machine="n")
    for i in range(6):
        log.append(LOG, message_bytes(i, i + 1, i))
        log.append(STATE, message_bytes(i, i + 1, i, stream=other))
    each = follower(log, storage, cut_bytes=CUT_BYTES)
    each._find_partitions()
    storage.full = True
    with pytest.raises(StorageError):
        each._step()
    storage.full = False
    for _ in range(4):
        each._find_partitions()
        each._step()
    for partition in (LOG, STATE):
        each._commit(partition)
    assert seqs(storage) == [i for i in range(6) for _ in range(2)]
    assert run_query(storage, "select * from losses")[1] == []


def test_a_poll_of_several_cuts_is_committed_cut_by_cut(log, storage):
    for i in range(9):
        log.append(LOG, message_bytes(i, i + 1, i))
    to_the_end(log, storage, cut_bytes=CUT_BYTES)
    assert starts(storage) == [0, 2, 4, 6, 8]
    assert seqs(storage) == list(range(9))


@pytest.mark.parametrize("ahead", [1, 3, 9])
def test_what_a_poll_has_behind_a_lost_commit_is_neither_lost_nor_doubled(log, storage, ahead):
    values = [message_bytes(i, i + 1, i) for i in range(9)]
    for value in values:
        log.append(LOG, value)
    ours, rival = follower(log, storage, cut_bytes=CUT_BYTES), follower(log, storage)
    real = ours._writer.commit

    def late(chain, batch):
        if not starts(storage):
            rival._take_over(LOG)
            rival._collectors[LOG].add([Message(i, 0, value) for i, value in enumerate(values[:ahead])], 0)
            rival._commit(LOG)
        return real(chain, batch)

    ours._writer.commit = late
    ours.run(threading.Event(), until_end=True)
    assert seqs(storage) == list(range(9))
    assert run_query(storage, "select * from losses")[1] == []
    assert starts(storage)[:2] == [0, ahead][: 1 + (ahead < 9)]
    assert audit(storage, deep=True).closes


def test_only_the_partitions_asked_for_are_read(log, storage):
    log.append(LOG, message_bytes(0, 1, 0))
    log.append(STATE, message_bytes(5, 6, 0))
    to_the_end(log, storage, partitions=("hypocenter.state:0",))
    assert seqs(storage) == [5]


def test_a_partition_that_is_not_there_is_named(log, storage):
    with pytest.raises(UsageError, match=r"no partition 'hypocenter.log:7'.*hypocenter.log:0"):
        to_the_end(log, storage, partitions=("hypocenter.log:7",))


def test_following_commits_by_age_and_stops_with_what_was_read(log, storage):
    with Running(follower(log, storage)):
        log.append(LOG, message_bytes(0, 3, 0))
        until(lambda: seqs(storage) == [0, 1, 2])
        log.append(LOG, message_bytes(3, 4, 1))
    assert seqs(storage) == [0, 1, 2, 3]


def test_a_topic_made_later_is_found(log, storage, monkeypatch):
    monkeypatch.setattr("consumers.follow._RELIST_S", 0.05)
    late = Partition("hypocenter.trace", 0)
    with Running(follower(log, storage)):
        time.sleep(0.1)
        log.create(late.topic)
        log.append(late, message_bytes(0, 1, 0))
        until(lambda: seqs(storage) == [0])


def test_a_full_disk_is_waited_out_and_nothing_is_lost_or_doubled(log, storage, monkeypatch):
    monkeypatch.setattr("consumers.follow._RETRY_S", 0.05)
    storage.full = True
    with Running(follower(log, storage)):
        log.append(LOG, message_bytes(0, 3, 0))
        time.sleep(0.4)
        log.append(LOG, message_bytes(3, 5, 1))
        assert seqs(storage) == []
        storage.full = False
        until(lambda: seqs(storage) == [0, 1, 2, 3, 4])
    assert audit(storage, deep=True).closes


def test_with_until_end_a_full_disk_is_the_callers(log, storage):
    storage.full = True
    log.append(LOG, message_bytes(0, 3, 0))
    with pytest.raises(StorageError, match="disk full"):
        to_the_end(log, storage)


def test_retention_that_overtakes_is_a_loss_and_reading_goes_on(log, storage):
    for i in range(4):
        log.append(LOG, message_bytes(i, i + 1, i))
    to_the_end(log, storage)
    for i in range(4, 9):
        log.append(LOG, message_bytes(i, i + 1, i))
    log.delete_before(LOG, 7)
    to_the_end(log, storage)
    assert seqs(storage) == [0, 1, 2, 3, 7, 8]
    found = run_query(storage, "select kind, machine, first_position, count from losses order by machine")[1]
    assert found == [("retention", "", 4, 3), ("retention", "m", 4, 3)]
    assert audit(storage, deep=True).closes


def test_a_recreated_log_opens_a_new_chain(log, storage):
    log.append(LOG, message_bytes(0, 3, 0))
    to_the_end(log, storage)
    log.recreate()
    log.append(LOG, message_bytes(3, 5, 0, run="s"))
    to_the_end(log, storage)
    assert seqs(storage) == [0, 1, 2, 3, 4]
    assert any(key.startswith("commits/hypocenter.log/0.1/") for key in storage.list("commits/"))


def test_a_revoked_partition_is_committed_and_a_lost_one_is_not(log, storage):
    for revoke, expected in ((False, []), (True, [0, 1, 2])):
        each = Follower(MemoryReader(log), storage, CollectConfig(cut_age_s=60, group="g"))
        each.assigned([LOG])
        if not expected:
            log.append(LOG, message_bytes(0, 3, 0))
        each._step()
        assert each.records == 3
        (each.revoked if revoke else each.lost)([LOG])
        assert seqs(storage) == expected
        each._step()
        assert each.records == 3


def test_a_partition_whose_chain_cannot_be_read_is_not_read_until_it_can(log, storage, monkeypatch):
    log.append(LOG, message_bytes(0, 3, 0))
    each = Follower(MemoryReader(log), storage, CollectConfig(cut_age_s=0, group="g"))
    refuse = pytest.MonkeyPatch()
    refuse.setattr(storage, "read", lambda key: (_ for _ in ()).throw(StorageError(f"{key}: refused")))
    each.assigned([LOG])
    refuse.undo()
    each._step()
    assert seqs(storage) == []
    each._find_partitions()
    each._step()
    assert seqs(storage) == [0, 1, 2]


def test_many_partitions_together_hold_no_more_than_a_few_cuts(storage):
    log = MemoryLog([LOG.topic], partitions=12)
    partitions = [Partition(LOG.topic, number) for number in range(12)]
    for number, partition in enumerate(partitions):
        log.append(partition, message_bytes(0, 40, 0, stream=STREAM._replace(machine=f"m{number}")))
    each = Follower(MemoryReader(log), storage, CollectConfig(cut_age_s=60, cut_bytes=1000))
    each._find_partitions()
    assert sum(collector.due(0) for collector in each._collectors.values()) == 0
    each._cut = each._cut._replace(bytes_max=10**6)
    for collector in each._collectors.values():
        collector._cut = each._cut
    each._step()
    held = sum(collector.buffered_bytes for collector in each._collectors.values())
    assert held > 4000
    each._cut = each._cut._replace(bytes_max=1000)
    each._step()
    assert sum(collector.buffered_bytes for collector in each._collectors.values()) <= 4000
