"""The Kafka reader against a real broker."""

import pytest
from kafka import KafkaProducer, TopicPartition

from consumers.topics import admin, create_topics
from consumers.transport.base import Partition, RetentionOvertookError
from consumers.transport.kafka import KafkaReader
from schemas.kafka_config import KafkaConfig

pytestmark = pytest.mark.broker


@pytest.fixture
def filled(broker, topics):
    config, name = KafkaConfig(broker.bootstrap), topics()
    create_topics(config, partitions=1, replication=1, names=[name])
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=True, acks="all")
    for number in range(100):
        producer.send(name, b"%d" % number)
    producer.close()
    reader = KafkaReader(config)
    yield config, Partition(name, 0), reader
    reader.close()


def read(reader, partition, count):
    found = []
    for _ in range(100):
        found += reader.poll(200).get(partition, [])
        if len(found) >= count:
            break
    return found


def test_every_message_comes_in_order_with_its_offset(filled):
    _, partition, reader = filled
    assert reader.partitions([partition.topic, "absent"]) == [partition]
    assert (reader.start_offset(partition), reader.end_offset(partition)) == (0, 100)
    reader.seek(partition, 40)
    found = read(reader, partition, 60)
    assert [(each.offset, each.value) for each in found] == [(n, b"%d" % n) for n in range(40, 100)]


def test_retention_that_overtakes_is_an_error_with_the_new_start(filled):
    config, partition, reader = filled
    with admin(config) as client:
        client.delete_records({TopicPartition(*partition): 30})
    reader.seek(partition, 7)
    with pytest.raises(RetentionOvertookError) as caught:
        read(reader, partition, 1)
    assert (caught.value.partition, caught.value.position, caught.value.start) == (partition, 7, 30)
    reader.seek(partition, 30)
    assert read(reader, partition, 70)[0].offset == 30
