"""The settings that our topics must have: offsets without holes, room for a frame, the broker's own append time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from schemas import kafka_start, topic_settings
from schemas.errors import UnavailableError
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import TOPICS

#: Settings that `create_topics` gives beside them; the operator may choose others.
DEFAULTS: Final = {"retention.ms": str(7 * 24 * 3600 * 1000), "retention.bytes": str(64 << 30)}


def create_topics(
    config: KafkaConfig, *, partitions: int, replication: int, names: Sequence[str] = TOPICS
) -> list[str]:
    """Create those of `names` that are missing and return them.

    Raises:
        UnavailableError: the broker does not answer or refuses.
    """
    settings = {**DEFAULTS, **topic_settings.REQUIRED}
    settings["max.message.bytes"] = str(topic_settings.MESSAGE_BYTES_MIN)
    settings["min.insync.replicas"] = str(min(2, replication))
    created = []
    with admin(config) as client:
        for name in names:
            topic = NewTopic(name, partitions, replication, topic_configs=settings)
            try:
                client.create_topics([topic])
            except TopicAlreadyExistsError:
                continue
            created.append(name)
        if created:
            client.wait_for_topics(created)
    return created


def verify_topics(config: KafkaConfig, names: Sequence[str] = TOPICS) -> None:
    """Compare the topics' settings with what exactness needs.

    Raises:
        UsageError: a topic is missing or has another setting; the text names topic, setting, found and wanted value.
        UnavailableError: the broker does not answer.
    """
    with admin(config) as client:
        existing = set(client.list_topics())
        for name in names:
            if name not in existing:
                raise topic_settings.absent(name)
            topic_settings.check(name, _settings(client, name))


class Shape(NamedTuple):
    """How many partitions a topic has, and the fewest replicas that one of them has."""

    partitions: int
    replicas: int


def shapes(config: KafkaConfig, names: Sequence[str] = TOPICS) -> dict[str, Shape]:
    """Return the shape of each of these topics, all of which must be there.

    Raises:
        UnavailableError: the broker does not answer or refuses.
    """
    with admin(config) as client:
        return {
            each["name"]: Shape(
                len(each["partitions"]), min((len(one["replica_nodes"]) for one in each["partitions"]), default=0)
            )
            for each in client.describe_topics(list(names))
        }


def _settings(client: KafkaAdminClient, name: str) -> dict[str, str]:
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    answer = client.describe_configs([resource], config_filter="all")
    entries: dict[str, Any] = answer[ConfigResourceType.TOPIC.name.lower()][name]
    return {key: str(entry["value"]) for key, entry in entries.items()}


@contextmanager
def admin(config: KafkaConfig) -> Iterator[KafkaAdminClient]:
    """Open an admin client for the block; Kafka's errors leave it as UnavailableError."""
    kwargs = config.client_kwargs()
    client = kafka_start.start(
        lambda ms: KafkaAdminClient(bootstrap_timeout_ms=ms, **kwargs), config, (KafkaError, OSError)
    )
    try:
        yield client
    except KafkaError as e:
        raise UnavailableError(f"the broker at {config.bootstrap} refused: {e}") from None
    finally:
        client.close()
