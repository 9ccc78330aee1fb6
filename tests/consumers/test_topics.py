"""Topics on a real broker: made as needed, refused by name when they would put holes into offsets."""

import pytest
from kafka.admin import NewTopic

from consumers.topics import admin, create_topics, verify_topics
from schemas.errors import UnavailableError, UsageError
from schemas.kafka_config import KafkaConfig

pytestmark = pytest.mark.broker


def test_what_is_created_verifies_and_is_not_created_twice(broker, topics):
    config, name = KafkaConfig(broker.bootstrap), topics()
    assert create_topics(config, partitions=2, replication=1, names=[name]) == [name]
    assert create_topics(config, partitions=2, replication=1, names=[name]) == []
    verify_topics(config, [name])


def test_a_compacted_topic_is_refused_by_name(broker, topics):
    config, name = KafkaConfig(broker.bootstrap), topics()
    with admin(config) as client:
        client.create_topics([NewTopic(name, 1, 1, topic_configs={"cleanup.policy": "compact"})])
        client.wait_for_topics([name])
    with pytest.raises(UsageError, match=f"{name}: cleanup.policy is 'compact', wanted 'delete'"):
        verify_topics(config, [name])


def test_a_missing_topic_is_named(broker, topics):
    name = topics()
    with pytest.raises(UsageError, match=name):
        verify_topics(KafkaConfig(broker.bootstrap), [name])


def test_a_broker_that_is_not_there_is_said_to_be_absent():
    with pytest.raises(UnavailableError, match=r"no broker answers at 127\.0\.0\.1:1"):
        verify_topics(KafkaConfig("127.0.0.1:1"), ["t"])
