"""A log that another one takes the place of, or that went back, under a collector and between two runs of one."""

import contextlib
import shutil
import threading
import time

import pytest
from kafka import KafkaProducer

from consumers.follow import Follower
from consumers.lake.audit import audit
from consumers.lake.layout import open_lake
from consumers.topics import admin, create_topics
from consumers.transport.base import LogReplacedError, LogWentBackError, Partition
from consumers.transport.kafka import KafkaReader
from consumers.transport.log import DirectoryReader
from consumers.transport.memory import MemoryLog, MemoryReader
from consumers.views import run_query
from schemas.config import CollectConfig
from schemas.errors import UnavailableError
from schemas.frame import decode
from schemas.kafka_config import KafkaConfig
from tests._logs import writer
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


def test_a_log_replaced_while_following_ends_it_so_that_the_next_start_reads_the_new_one(log, storage):
    each = follower(log, storage)
    log.append(LOG, message_bytes(0, 1, 0))
    ended = []

    def run():
        try:
            each.run(threading.Event(), until_end=False)
        except LogReplacedError as e:
            ended.append(e.exit_code)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: each.records == 1)
    log.recreate()
    thread.join(10)
    assert ended == [69]


ANEW = STREAM._replace(boot_id="another boot")


def boots(storage):
    return run_query(storage, "select boot_id, count(*), count(distinct seq) from kmsg group by all order by all")[1]


# Frames of one record each; of `anew` another machine's boot.
def fill(log, count, *, anew=False):
    for i in range(count):
        log.append(LOG, message_bytes(i, i + 1, i, stream=ANEW if anew else STREAM, run="s" if anew else "r"))


@pytest.mark.parametrize("count", [30, 100, 250])
def test_a_topic_made_anew_under_a_running_collector_is_read_from_its_start(log, storage, monkeypatch, caplog, count):
    monkeypatch.setattr("consumers.follow._RELIST_S", 0.05)
    fill(log, 100)
    with Running(follower(log, storage)):
        until(lambda: len(seqs(storage)) == 100)
        log.create(LOG.topic)
        fill(log, count, anew=True)
        until(lambda: len(seqs(storage)) >= 100 + count)
    expected = [(ANEW.boot_id, count, count), (STREAM.boot_id, 100, 100)]
    assert boots(storage) == expected
    told = [each.getMessage() for each in caplog.records if "made again" in each.getMessage()]
    assert len(told) == 1
    assert told[0].endswith("and is read from its start; of the old one all before offset 100 is stored")
    to_the_end(log, storage)
    assert boots(storage) == expected
    assert audit(storage, deep=True).closes


def test_what_is_buffered_of_a_topic_made_anew_is_not_committed_to_the_old_chain(log, storage):
    fill(log, 3)
    each = Follower(MemoryReader(log), storage, CollectConfig(cut_age_s=60))
    each._find_partitions()
    each._step()
    log.create(LOG.topic)
    fill(log, 7, anew=True)
    each._step()
    each._step()
    assert each._collectors[LOG].position == 7
    assert not each._commit(LOG)
    assert starts(storage) == []
    each._find_partitions()
    each._step()
    assert each._commit(LOG)
    assert boots(storage) == [(ANEW.boot_id, 7, 7)]


def test_a_run_to_the_end_says_that_its_topic_was_made_anew(log, storage):
    fill(log, 9)
    each = follower(log, storage, cut_bytes=CUT_BYTES)
    real = each._reader.poll

    def poll(timeout_ms):
        found = real(timeout_ms)
        log.create(LOG.topic)
        return found

    each._reader.poll = poll
    with pytest.raises(LogReplacedError, match=r"^hypocenter\.log-0 is another log now: start again") as caught:
        each.run(threading.Event(), until_end=True)
    assert caught.value.exit_code == 69
    assert seqs(storage) == []


def test_a_commit_waits_while_nobody_can_say_whether_the_topic_is_the_same(log, storage, monkeypatch, caplog):
    monkeypatch.setattr("consumers.follow._RETRY_S", 0.02)
    away, reader = threading.Event(), MemoryReader(log)
    real = reader.topic_id

    def topic_id(topic):
        if away.is_set():
            raise UnavailableError("nobody answers")
        return real(topic)

    reader.topic_id = topic_id
    each = Follower(reader, storage, CollectConfig(cut_age_s=0.05, cut_bytes=CUT_BYTES))
    with Running(each):
        until(lambda: LOG in each._collectors)
        away.set()
        fill(log, 9)
        time.sleep(0.5)
        assert seqs(storage) == []
        away.clear()
        until(lambda: seqs(storage) == list(range(9)))
        away.set()
        log.append(LOG, message_bytes(9, 10, 9))
        until(lambda: each.records == 10)
    assert sum("nobody answers; trying again" in each.getMessage() for each in caplog.records) == 1
    assert "hypocenter.log-0: not committed, the next start reads it again: nobody answers" in caplog.text
    assert seqs(storage) == list(range(9))
    to_the_end(log, storage)
    assert seqs(storage) == list(range(10))
    assert run_query(storage, "select * from losses")[1] == []


class KafkaLog:
    """What `fill` needs, over a broker, in a topic that only this test has."""

    def __init__(self, broker, topic):
        self.config, self.partition = KafkaConfig(broker.bootstrap), Partition(topic, 0)
        create_topics(self.config, partitions=1, replication=1, names=[topic])

    def append(self, _partition, value):
        self._producer.send(self.partition.topic, value, partition=0)

    def recreate(self):
        with admin(self.config) as client:
            client.delete_topics([self.partition.topic])
            until(lambda: self.partition.topic not in client.list_topics(), 20)
        create_topics(self.config, partitions=1, replication=1, names=[self.partition.topic])

    def fill(self, count, *, anew=False):
        self._producer = KafkaProducer(bootstrap_servers=self.config.bootstrap)
        fill(self, count, anew=anew)
        self._producer.close()

    def send(self, first, end):
        self._producer = KafkaProducer(bootstrap_servers=self.config.bootstrap)
        send(self, first, end)
        self._producer.close()


@pytest.mark.broker
@pytest.mark.parametrize(("group", "count"), [(None, 30), (None, 250), ("g", 30), ("g", 250)])
def test_a_topic_of_kafka_made_anew_is_read_from_its_start(broker, topics, storage, monkeypatch, group, count):
    log = KafkaLog(broker, topics())
    monkeypatch.setattr("consumers.follow.FRAME_TOPICS", (log.partition.topic,))
    monkeypatch.setattr("consumers.follow._RELIST_S", 0.5)
    log.fill(100)
    reader = KafkaReader(log.config, group=group and f"{group}.{log.partition.topic}")
    each = Follower(reader, storage, CollectConfig(cut_age_s=0.2, group=group))
    if group:
        reader.listen(each, (log.partition.topic,))
    with contextlib.closing(reader):
        with Running(each):
            until(lambda: len(seqs(storage)) == 100, 30)
            log.recreate()
            log.fill(count, anew=True)
            until(lambda: len(seqs(storage)) >= 100 + count, 60)
        assert boots(storage) == [(ANEW.boot_id, count, count), (STREAM.boot_id, 100, 100)]
    assert audit(storage, deep=True).closes


# On a disk: who re-reads a log looks at what is stored while a test asks for it.
@pytest.fixture
def lake(tmp_path):
    return open_lake(tmp_path / "lake", create=True)


# The records `first` to `end`, as one run of the agent sends them.
def send(log, first, end):
    for i in range(first, end):
        log.append(LOG, message_bytes(i, i + 1, i))


def whole(storage, count):
    report = audit(storage, deep=True)
    assert report.closes, report.problems
    assert run_query(storage, "select * from losses")[1] == []
    return seqs(storage) == list(range(count))


def gone_back(caplog):
    return sum("the log went back to offset" in each.getMessage() for each in caplog.records)


@pytest.mark.parametrize("more", [0, 40, 60])
def test_a_log_that_ends_below_what_is_stored_is_read_again_and_no_row_comes_twice(log, storage, caplog, more):
    send(log, 0, 100)
    to_the_end(log, storage)
    log.cut(LOG, 30)
    send(log, 100, 100 + more)
    for _ in range(2):
        to_the_end(log, storage)
        assert whole(storage, 100 + more)
    send(log, 100 + more, 250)
    to_the_end(log, storage)
    assert whole(storage, 250)
    assert gone_back(caplog) == 1
    assert [key for key in storage.list("commits/hypocenter.log/") if key.endswith("genesis.json")] == [
        "commits/hypocenter.log/0.1/genesis.json",
        "commits/hypocenter.log/0/genesis.json",
    ]


def test_a_log_goes_back_twice(log, storage):
    for first, end in ((0, 100), (100, 150), (150, 180)):
        log.cut(LOG, 20)
        send(log, first, end)
        to_the_end(log, storage)
        assert whole(storage, end)


def test_a_log_that_goes_back_under_a_running_collector(log, lake, caplog):
    send(log, 0, 100)
    with Running(follower(log, lake)):
        until(lambda: len(seqs(lake)) == 100)
        log.cut(LOG, 30)
        send(log, 100, 140)
        until(lambda: len(seqs(lake)) == 140)
        send(log, 140, 300)
        until(lambda: len(seqs(lake)) == 300)
    assert whole(lake, 300)
    assert gone_back(caplog) == 1


def test_what_was_read_of_a_log_before_it_went_back_is_stored(log, storage):
    send(log, 0, 100)
    each = Follower(MemoryReader(log), storage, CollectConfig(cut_age_s=60))
    each._find_partitions()
    each._step()
    log.cut(LOG, 30)
    each._step()
    assert whole(storage, 100)
    send(log, 100, 110)
    each._step()
    each._commit(LOG)
    assert whole(storage, 110)


def test_a_run_to_the_end_of_a_log_that_goes_back_ends_with_a_sentence_and_the_next_one_has_all(log, storage):
    send(log, 0, 100)
    each = follower(log, storage)
    real = each._reader.poll

    def poll(timeout_ms):
        found = real(timeout_ms)
        if found:
            log.cut(LOG, 30)
        return found

    each._reader.poll = poll
    each._reader._batch_max = 60
    with pytest.raises(LogWentBackError, match=r"^hypocenter\.log-0: the log went back to offset 30") as caught:
        each.run(threading.Event(), until_end=True)
    assert caught.value.exit_code == 69
    send(log, 60, 100)
    to_the_end(log, storage)
    assert whole(storage, 100)


def test_a_collector_killed_before_the_first_commit_of_a_log_that_went_back(log, storage):
    send(log, 0, 100)
    to_the_end(log, storage)
    log.cut(LOG, 30)
    send(log, 100, 140)
    follower(log, storage)._find_partitions()
    to_the_end(log, storage)
    assert whole(storage, 140)


def test_who_is_late_at_the_end_of_a_log_that_went_back_follows_into_the_next_generation(log, storage):
    send(log, 0, 60)
    to_the_end(log, storage)
    late = Follower(MemoryReader(log), storage, CollectConfig(cut_age_s=60))
    late._find_partitions()
    send(log, 60, 100)
    late._step()
    log.cut(LOG, 30)
    send(log, 100, 110)
    to_the_end(log, storage)
    assert not late._commit(LOG)
    late._step()
    late._commit(LOG)
    report = audit(storage, deep=True)
    assert report.closes, report.problems
    assert seqs(storage) == [*range(60), *range(100, 110)]
    assert run_query(storage, "select kind, first_position, count from losses")[1] == [("gap", 60, 40)]


def test_a_directory_restored_from_a_copy_is_read_again_and_no_row_comes_twice(tmp_path, lake):
    path, saved = tmp_path / "log", tmp_path / "saved"

    def write(first, end):
        with contextlib.closing(writer(path)) as found:
            for i in range(first, end):
                found.append(LOG.topic, decode(message_bytes(i, i + 1, i)))

    def collect():
        reader = DirectoryReader(path)
        with contextlib.closing(reader):
            Follower(reader, lake, CollectConfig(cut_age_s=0.05)).run(threading.Event(), until_end=True)

    write(0, 50)
    shutil.copytree(path, saved)
    write(50, 100)
    collect()
    shutil.rmtree(path)
    shutil.copytree(saved, path)
    write(100, 140)
    collect()
    assert whole(lake, 140)
    reader = DirectoryReader(path)
    with contextlib.closing(reader), Running(Follower(reader, lake, CollectConfig(cut_age_s=0.05))):
        write(140, 160)
        until(lambda: len(seqs(lake)) == 160)
        shutil.rmtree(path)
        shutil.copytree(saved, path)
        write(160, 170)
        until(lambda: len(seqs(lake)) == 170)
    assert whole(lake, 170)


@pytest.mark.broker
def test_a_broker_restored_from_a_copy_is_read_again_and_no_row_comes_twice(
    broker_factory, topics, lake, monkeypatch, tmp_path
):
    broker = broker_factory()
    log = KafkaLog(broker, topics())
    monkeypatch.setattr("consumers.follow.FRAME_TOPICS", (log.partition.topic,))
    monkeypatch.setattr("consumers.follow._RELIST_S", 0.5)

    def restore():
        broker.stop()
        shutil.rmtree(broker.base)
        shutil.copytree(tmp_path / "saved", broker.base)
        broker.start()

    def collect():
        with contextlib.closing(KafkaReader(log.config)) as reader:
            Follower(reader, lake, CollectConfig(cut_age_s=0.2)).run(threading.Event(), until_end=True)

    log.send(0, 50)
    broker.stop()
    shutil.copytree(broker.base, tmp_path / "saved")
    broker.start()
    log.send(50, 100)
    collect()
    restore()
    log.send(100, 140)
    collect()
    assert whole(lake, 140)
    with contextlib.closing(KafkaReader(log.config)) as reader:
        with Running(Follower(reader, lake, CollectConfig(cut_age_s=0.2))):
            log.send(140, 160)
            until(lambda: len(seqs(lake)) == 160, 60)
            restore()
            log.send(160, 170)
            until(lambda: len(seqs(lake)) == 170, 60)
        assert whole(lake, 170)
