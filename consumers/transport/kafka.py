"""The log reader over Kafka: static partitions, or a consumer group that only says who reads what.

Positions are ours (the lake's chains hold them); the group's committed offsets are advice for lag monitors.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError, OffsetOutOfRangeError

from consumers.transport.base import Message, Partition, RetentionOvertookError
from schemas.errors import UnavailableError
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import TOPICS

_FETCH_BYTES: Final = 16 << 20
_PARTITION_FETCH_BYTES: Final = 8 << 20
_POLL_RECORDS: Final = 1000
_BOOTSTRAP_MS: Final = 10_000


class Listener(Protocol):
    """Who is told about a group's partitions; called from inside `poll`."""

    def assigned(self, partitions: list[Partition]) -> None:
        """Take these over."""
        ...

    def revoked(self, partitions: list[Partition]) -> None:
        """Give these up in good order."""
        ...

    def lost(self, partitions: list[Partition]) -> None:
        """Somebody else owns these by now."""
        ...


class KafkaReader:
    """Reads `config`'s cluster; with `group`, only what the group assigns once `listen` was called."""

    def __init__(
        self,
        config: KafkaConfig,
        *,
        group: str | None = None,
        instance: str | None = None,
        session_timeout_ms: int = 30_000,
    ) -> None:
        self._where = config.bootstrap
        self._group = group
        self._owned: set[Partition] = set()
        kwargs = config.client_kwargs()
        if group is not None:
            kwargs |= {
                "group_instance_id": instance or f"{group}-{socket.gethostname()}",
                "session_timeout_ms": session_timeout_ms,
                "partition_assignment_strategy": (CooperativeStickyAssignor,),
            }
        with self._reached():
            self._consumer = KafkaConsumer(
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                fetch_max_bytes=_FETCH_BYTES,
                max_partition_fetch_bytes=_PARTITION_FETCH_BYTES,
                max_poll_records=_POLL_RECORDS,
                bootstrap_timeout_ms=_BOOTSTRAP_MS,
                **kwargs,
            )
            self._consumer.topics()

    def listen(self, listener: Listener, topics: tuple[str, ...] = TOPICS) -> None:
        """Join the group for `topics`; `listener` seeks what it is assigned."""
        self._consumer.subscribe(topics=list(topics), listener=_Bridge(self, listener))

    def log_id(self) -> str:
        """Return the cluster's id."""
        with self._reached():
            return str(self._cluster().cluster_id)

    def partitions(self, topics: list[str]) -> list[Partition]:
        """Return the partitions of those `topics` that exist."""
        with self._reached():
            existing = self._consumer.topics()
            numbers = {topic: self._consumer.partitions_for_topic(topic) or () for topic in topics if topic in existing}
        return [Partition(topic, number) for topic, found in numbers.items() for number in sorted(found)]

    def topic_id(self, topic: str) -> str:
        """Return the topic's UUID; from brokers too old to have one, cluster id and name."""
        with self._reached():
            self._consumer.partitions_for_topic(topic)
            found = self._cluster().topic_id(topic)
        return str(found) if found is not None else f"{self.log_id()}/{topic}"

    def start_offset(self, partition: Partition) -> int:
        """Return the oldest offset still held."""
        with self._reached():
            return int(self._consumer.beginning_offsets([TopicPartition(*partition)])[TopicPartition(*partition)])

    def end_offset(self, partition: Partition) -> int:
        """Return the offset that the next message will get."""
        with self._reached():
            return int(self._consumer.end_offsets([TopicPartition(*partition)])[TopicPartition(*partition)])

    def seek(self, partition: Partition, offset: int) -> None:
        """Read `partition` from `offset` on."""
        with self._reached():
            if self._group is None and partition not in self._owned:
                self._owned.add(partition)
                self._consumer.assign([TopicPartition(*each) for each in self._owned])
            self._consumer.seek(TopicPartition(*partition), offset)
            self._consumer.resume(TopicPartition(*partition))

    def forget(self, partition: Partition) -> None:
        """Stop reading `partition`; in a group, until it is assigned again."""
        with self._reached():
            if self._group is None:
                self._owned.discard(partition)
                self._consumer.assign([TopicPartition(*each) for each in self._owned])
            elif TopicPartition(*partition) in self._consumer.assignment():
                self._consumer.pause(TopicPartition(*partition))

    def poll(self, timeout_ms: int) -> dict[Partition, list[Message]]:
        """Return the next messages of each sought partition.

        Raises:
            RetentionOvertookError: a position is below the log's start.
            UnavailableError: the cluster cannot be reached.
        """
        try:
            with self._reached():
                polled = self._consumer.poll(timeout_ms)
        except OffsetOutOfRangeError as e:
            at, position = next(iter(e.args[0].items()))
            partition = Partition(at.topic, at.partition)
            raise RetentionOvertookError(partition, _offset(position), self.start_offset(partition)) from None
        return {
            Partition(at.topic, at.partition): [
                Message(each.offset, each.timestamp * 1_000_000, each.value) for each in found
            ]
            for at, found in polled.items()
        }

    def commit_advisory(self, partition: Partition, offset: int) -> None:
        """Tell the group's lag monitors how far `partition` is stored; nothing depends on it."""
        if self._group is not None:
            with self._reached():
                self._consumer.commit({TopicPartition(*partition): OffsetAndMetadata(offset, "", -1)})

    def close(self) -> None:
        """Leave the cluster."""
        self._consumer.close(autocommit=False)

    def _cluster(self) -> Any:
        return self._consumer._client.cluster  # noqa: SLF001

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OffsetOutOfRangeError:
            raise
        except (KafkaError, OSError) as e:
            raise UnavailableError(f"Kafka at {self._where} does not answer: {e!r:.200}") from None


def _offset(position: Any) -> int:
    return int(getattr(position, "offset", position))


class _Bridge(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, reader: KafkaReader, listener: Listener) -> None:
        self._reader, self._listener = reader, listener

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._listener.assigned(_partitions(assigned))

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._listener.revoked(_partitions(revoked))

    def on_partitions_lost(self, lost: Any) -> None:
        self._listener.lost(_partitions(lost))


def _partitions(found: Any) -> list[Partition]:
    return sorted(Partition(at.topic, at.partition) for at in found)
