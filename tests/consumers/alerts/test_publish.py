import json
import threading

import pytest
from kafka import KafkaConsumer

from consumers.alerts import publish
from consumers.topics import create_topics
from schemas.errors import UnavailableError
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import TOPIC_INCIDENT


def row(version):
    return {"machine": "m1", "version": version, "incident_json": "{}", "verdict_json": None}


@pytest.mark.broker
def test_what_no_broker_took_is_sent_by_nobody_else_later(broker_factory, monkeypatch):
    monkeypatch.setattr(publish, "_ACK_S", 1.0)
    broker = broker_factory()
    config = KafkaConfig(broker.bootstrap)
    create_topics(config, partitions=1, replication=1, names=[TOPIC_INCIDENT])
    topic, before = publish.IncidentTopic(config), threading.enumerate()
    topic.send([row(1)])
    broker.kill()
    with pytest.raises(UnavailableError):
        topic.send([row(2)])
    left = [each.name for each in threading.enumerate() if each not in before]
    broker.start()
    topic.send([row(2)])
    topic.close()
    consumer = KafkaConsumer(
        TOPIC_INCIDENT, bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=5000
    )
    found = [json.loads(each.value)["version"] for each in consumer]
    consumer.close()
    assert (found, left) == ([1, 2], [])
