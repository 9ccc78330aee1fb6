"""The Kafka reader: the shared suite over a real broker."""

import time

import pytest
from kafka import KafkaProducer, TopicPartition

from consumers.topics import admin, create_topics
from consumers.transport.kafka import KafkaReader
from schemas import kafka_start
from schemas.errors import UnavailableError
from schemas.frame import encode
from schemas.kafka_config import KafkaConfig
from tests._logs import frame
from tests.consumers.transport.suite import ReaderSuite


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


def test_no_broker_is_one_sentence(monkeypatch):
    monkeypatch.setattr(kafka_start, "_TRIES_MS", (500,))
    with pytest.raises(UnavailableError, match=r"^no broker answers at 127\.0\.0\.1:1: "):
        KafkaReader(KafkaConfig("127.0.0.1:1"))
