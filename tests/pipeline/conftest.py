"""Fixtures for tests of the whole: the real kernel log, and a pipeline over the embedded log and over Kafka."""

import pytest

from schemas.kafka_config import KafkaConfig
from schemas.surfaces import TOPIC_LOG
from tests.pipeline._kernel import Kernel
from tests.pipeline._pipeline import Pipeline
from tests.producers.conftest import kernel_log

__all__ = ["kernel_log"]
#: Of every topic, so that a collector always has several to follow.
PARTITIONS = 2


@pytest.fixture
def kernel(kernel_log):
    made = Kernel(kernel_log.tag)
    yield made
    made.close()


def empty_topics(bootstrap):
    """Delete every message of the kernel log's topic: a lake made now begins here."""
    # Here, and not above: a conftest is loaded before the filter for what kafka-python does when it is imported.
    from kafka import TopicPartition

    from consumers.topics import admin

    with admin(KafkaConfig(bootstrap)) as client:
        client.delete_records({TopicPartition(TOPIC_LOG, number): -1 for number in range(PARTITIONS)})


@pytest.fixture(scope="session")
def kafka(broker):
    """The address of a broker that has our topics."""
    from consumers.topics import create_topics

    create_topics(KafkaConfig(broker.bootstrap), partitions=PARTITIONS, replication=1)
    return broker.bootstrap


@pytest.fixture(params=["log", pytest.param("kafka", marks=pytest.mark.broker)])
def pipeline(request, tmp_path, kernel):
    bootstrap = request.getfixturevalue("kafka") if request.param == "kafka" else None
    if bootstrap:
        empty_topics(bootstrap)
    made = Pipeline(tmp_path, kernel, bootstrap)
    yield made
    made.kill()
