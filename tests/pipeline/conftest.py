"""Fixtures for tests of the whole: the real kernel log, and a pipeline over the embedded log and over Kafka."""

import importlib

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


@pytest.fixture(scope="session")
def kafka(broker):
    """The address of a broker that has our topics."""
    topics().create_topics(KafkaConfig(broker.bootstrap), partitions=PARTITIONS, replication=1)
    return broker.bootstrap


def topics():
    """Import what imports kafka-python: not above, where the filter for its warnings is not yet set."""
    return importlib.import_module("consumers.topics")


def delete_before(bootstrap, offsets):
    """Do what retention does in the kernel log's topic: delete what lies before `offsets`, by partition; -1 is all."""
    with topics().admin(KafkaConfig(bootstrap)) as client:
        partition = importlib.import_module("kafka").TopicPartition
        client.delete_records({partition(TOPIC_LOG, number): offset for number, offset in offsets.items()})


@pytest.fixture(params=["log", pytest.param("kafka", marks=pytest.mark.broker)])
def pipeline(request, tmp_path, kernel):
    bootstrap = request.getfixturevalue("kafka") if request.param == "kafka" else None
    if bootstrap:
        delete_before(bootstrap, dict.fromkeys(range(PARTITIONS), -1))  # a lake made now begins here
    made = Pipeline(tmp_path, kernel, bootstrap)
    yield made
    made.kill()
