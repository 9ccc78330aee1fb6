"""The frame producer against a real broker that dies by SIGKILL under load."""

import logging
import time

import pytest
from kafka.admin import NewTopic
from kafka.errors import KafkaTimeoutError
from kafka.future import Future

from consumers.topics import admin, create_topics
from consumers.transport.base import Partition
from consumers.transport.kafka import KafkaReader
from producers.kafka import FrameProducer, verify_topic
from schemas.errors import UnavailableError, UsageError
from schemas.kafka_config import KafkaConfig


@pytest.mark.broker
def test_a_broker_killed_for_ten_seconds_loses_and_reorders_nothing(broker_factory, topics):
    broker = broker_factory()
    config, name = KafkaConfig(broker.bootstrap), topics()
    create_topics(config, partitions=1, replication=1, names=[name])
    producer = FrameProducer(config)
    acked, sent, deadline_s = [], 0, time.monotonic() + 90
    killed_s = None
    while len(acked) < 400 and time.monotonic() < deadline_s:
        if sent < 400 and producer.room():
            producer.send(sent, name, b"m", sent.to_bytes(4, "big") * 4096)
            sent += 1
        acked += producer.acked()
        if sent == 200 and killed_s is None:
            broker.kill()
            killed_s = time.monotonic()
        if killed_s and time.monotonic() - killed_s > 10:
            broker.start()
            killed_s = float("inf")
        time.sleep(0.002)
    producer.close()
    assert acked == list(range(400))
    reader = KafkaReader(config)
    reader.seek(Partition(name, 0), 0)
    found = []
    while len(found) < 400:
        polled = reader.poll(2000)
        assert polled
        found += [int.from_bytes(each.value[:4], "big") for each in polled[Partition(name, 0)]]
    reader.close()
    assert list(dict.fromkeys(found)) == list(range(400))


def test_that_frames_waited_is_said_and_that_it_is_over(monkeypatch, caplog):
    answers = [KafkaTimeoutError(), Future().success(None), Future().success(None)]

    class Client:
        def send(self, *_, **__):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        def close(self, timeout):
            pass

    monkeypatch.setattr(FrameProducer, "_connect", lambda _: Client())
    producer = FrameProducer(KafkaConfig("127.0.0.1:1"))
    with caplog.at_level(logging.INFO):
        producer.send(1, "t", b"k", b"v")
        assert producer.acked() == []
        assert producer.acked() == [1]
        producer.send(2, "t", b"k", b"v")
        assert producer.acked() == [2]
    producer.close()
    assert [record.message for record in caplog.records] == [
        "frames wait: KafkaTimeoutError()",
        "frames are acknowledged again",
    ]


def test_no_broker_at_start_is_one_sentence():
    with pytest.raises(UnavailableError, match=r"no broker answers at 127\.0\.0\.1:1"):
        FrameProducer(KafkaConfig("127.0.0.1:1"))


@pytest.mark.broker
def test_a_topic_that_would_lose_offsets_is_refused_by_name(broker, topics):
    config, good, bad = KafkaConfig(broker.bootstrap), topics("good"), topics("bad")
    create_topics(config, partitions=1, replication=1, names=[good])
    with admin(config) as client:
        client.create_topics([NewTopic(bad, 1, 1, topic_configs={"cleanup.policy": "compact"})])
        client.wait_for_topics([bad])
    verify_topic(config, good)
    with pytest.raises(UsageError, match=f"{bad}: cleanup.policy is 'compact', wanted 'delete'"):
        verify_topic(config, bad)
    with pytest.raises(UsageError, match="does not exist: run `hypocenter topics create"):
        verify_topic(config, topics("none"))
