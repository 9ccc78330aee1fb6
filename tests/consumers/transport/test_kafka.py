"""The Kafka reader: the shared suite over a real broker."""

import time
from types import SimpleNamespace

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import NodeNotReadyError
from kafka.future import Future

from consumers.topics import admin, create_topics
from consumers.transport import kafka
from consumers.transport.base import Partition
from consumers.transport.kafka import KafkaReader
from schemas import kafka_start
from schemas.errors import UnavailableError
from schemas.frame import encode
from schemas.kafka_config import KafkaConfig
from tests._logs import frame
from tests.consumers.transport.suite import ReaderSuite, read


class Kafka:
    def __init__(self, config):
        self.config = config
        self.readers = []
        self.producer = KafkaProducer(bootstrap_servers=config.bootstrap, enable_idempotence=True, acks="all")

    def create(self, topic):
        create_topics(self.config, partitions=1, replication=1, names=[topic])

    def append(self, topic, numbers):
        sent = [self.producer.send(topic, encode(frame(n)), partition=0) for n in numbers]
        assert [future.get(20).offset for future in sent] == list(numbers)

    def delete_before(self, topic, offset):
        with admin(self.config) as client:
            client.delete_records({TopicPartition(topic, 0): offset})

    def recreate(self, topic):
        with admin(self.config) as client:
            client.delete_topics([topic])
            deadline_s = time.monotonic() + 20
            while topic in client.list_topics():
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        self.create(topic)

    def reader(self):
        self.readers.append(KafkaReader(self.config))
        return self.readers[-1]


@pytest.mark.broker
class TestKafkaReader(ReaderSuite):
    @pytest.fixture
    def log(self, broker):
        log = Kafka(KafkaConfig(broker.bootstrap))
        yield log
        for reader in log.readers:
            reader.close()
        log.producer.close()

    def test_a_message_without_a_value_is_one_of_no_bytes(self, log):
        log.create("hypocenter.kmsg.null")
        assert log.producer.send("hypocenter.kmsg.null", None, key=b"k", partition=0).get(20).offset == 0
        reader, partition = log.reader(), Partition("hypocenter.kmsg.null", 0)
        reader.seek(partition, 0)
        assert [(each.offset, each.value) for each in read(reader, partition, 1)] == [(0, b"")]


class _Told:
    def __init__(self):
        self.have = set()

    def assigned(self, partitions):
        self.have.update(partitions)

    def revoked(self, partitions):
        self.have.difference_update(partitions)

    lost = revoked


@pytest.mark.broker
def test_a_member_that_asked_to_join_hears_the_answer_though_the_topics_are_again_as_they_were(broker, topics):
    config, topic = KafkaConfig(broker.bootstrap), topics()
    create_topics(config, partitions=2, replication=1, names=[topic])
    reader, told = KafkaReader(config, group=topic, session_timeout_ms=6_000), _Told()
    reader.listen(told, (topic,))
    try:
        _until(lambda: len(told.have) == 2, reader)
        coordinator = reader._consumer._coordinator
        before = coordinator._metadata_snapshot
        coordinator._metadata_snapshot = {topic: set()}  # as if it were gone
        _until(coordinator.rebalance_in_progress, reader, timeout_ms=0)
        coordinator._metadata_snapshot = before
        _until(lambda: not coordinator.rebalance_in_progress(), reader)
        assert coordinator._heartbeat_enabled
    finally:
        reader.close()


def _until(done, reader, timeout_ms=50):
    deadline_s = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline_s
        reader.poll(timeout_ms)


def test_no_broker_is_one_sentence(monkeypatch):
    monkeypatch.setattr(kafka_start, "_TRIES_MS", (500,))
    with pytest.raises(UnavailableError, match=r"^no broker answers at 127\.0\.0\.1:1: "):
        KafkaReader(KafkaConfig("127.0.0.1:1"))


class Cluster:
    """What a client knows of the topics, whose questions are answered by hand."""

    def __init__(self):
        self.known, self.futures = {"t": {0}}, []

    def request_update(self):
        self.futures.append(Future())
        return self.futures[-1]

    def partitions_for_topic(self, topic):
        return self.known.get(topic)


def test_who_asks_what_there_is_waits_for_no_broker_and_is_told_when_none_answers(monkeypatch):
    cluster, now_s = Cluster(), [100.0]
    consumer = SimpleNamespace(_client=SimpleNamespace(cluster=cluster), topics=lambda: {"t"})
    monkeypatch.setattr(kafka, "_connect", lambda *_: consumer)
    monkeypatch.setattr(kafka.time, "monotonic", lambda: now_s[0])
    reader = KafkaReader(KafkaConfig("127.0.0.1:1"))

    def ask(later_s):
        now_s[0] += later_s
        return [str(each) for each in reader.partitions(["t", "later"])]

    assert ask(0) == ["t-0"]
    cluster.known["later"] = {0}
    assert ask(0.5) == ask(1.0) == ["t-0", "later-0"]
    assert len(cluster.futures) == 1
    cluster.futures[0].success(cluster)
    assert ask(0.1) == ["t-0", "later-0"]
    assert len(cluster.futures) == 2
    # One that failed is asked again at once; but until when, decides the first.
    cluster.futures[1].failure(NodeNotReadyError("metadata"))
    assert ask(9.0) == ["t-0", "later-0"]
    assert len(cluster.futures) == 3
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 does not answer: nothing for 10 s"):
        ask(1.0)
    assert ask(9.0) == ["t-0", "later-0"]
    cluster.futures[2].success(cluster)
    assert ask(5.0) == ["t-0", "later-0"]
    assert len(cluster.futures) == 4
