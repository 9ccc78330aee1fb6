"""The log reader over Kafka: static partitions, or a consumer group that only says who reads what.

Positions are ours (the lake's chains hold them); the group's committed offsets are advice for lag monitors.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError
from kafka.net.compat import KafkaNetClient

from consumers.transport.assignor import PerTopicAssignor
from consumers.transport.base import LogWentBackError, Message, Partition, RetentionOvertookError
from schemas import kafka_start
from schemas.errors import UnavailableError
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import FRAME_TOPICS

log = logging.getLogger(__name__)
_FETCH_BYTES: Final = 16 << 20
_PARTITION_FETCH_BYTES: Final = 8 << 20
_POLL_RECORDS: Final = 1000
_ADVICE_MS: Final = 1_000
# A group shares out anew when its members see other topics or partitions: where nothing is assigned nobody else asks.
_METADATA_MS: Final = 10_000
# Which topics there are is asked this often, and is to be answered within the other.
_ASK_AGAIN_S: Final = 1.0
_ANSWER_S: Final = 10.0


class Listener(Protocol):
    """Who is told about a group's partitions, from inside `poll` and `close`."""

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
    """Reads `config`'s cluster; with `group`, only what the group assigns once `listen` was called.

    `instance` is a lasting name of this member of the group, different from every other's; without one each start is a
    new member.
    """

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
        self._listener: Listener | None = None
        self._assigned: set[Partition] = set()  # by the group, and the listener does not know it yet
        self._in_callback = False
        self._answer: Any = None  # to the question which topics there are, asked at `_asked_s`
        self._asked_s = 0.0
        self._polled = False  # since the brokers last said which topics there are
        self._topic_ids: dict[str, str] = {}
        kwargs = config.client_kwargs()
        if group is not None:
            kwargs |= {
                "group_instance_id": instance,
                "session_timeout_ms": session_timeout_ms,
                "partition_assignment_strategy": (PerTopicAssignor,),
                "metadata_max_age_ms": _METADATA_MS,
            }
        kwargs |= {
            "group_id": group,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "allow_auto_create_topics": False,
            "fetch_max_bytes": _FETCH_BYTES,
            "max_partition_fetch_bytes": _PARTITION_FETCH_BYTES,
            "max_poll_records": _POLL_RECORDS,
        }
        self._consumer = kafka_start.start(lambda ms: _connect(ms, kwargs), config, (KafkaError, OSError))

    def listen(self, listener: Listener, topics: tuple[str, ...] = FRAME_TOPICS) -> None:
        """Join the group for `topics`; `listener` seeks what it is assigned."""
        self._listener = listener
        self._consumer.subscribe(topics=list(topics), listener=_Bridge(self))

    def log_id(self) -> str:
        """Return the cluster's id."""
        with self._reached():
            return str(self._cluster().cluster_id)

    def partitions(self, topics: list[str]) -> list[Partition]:
        """Return the partitions of those `topics` that exist, as the brokers last said.

        Only the first call waits for their answer, which takes tenths of a second; later ones ask for a newer one.

        Raises:
            UnavailableError: no broker has answered for long.
        """
        cluster = self._cluster()
        self._ask(cluster)
        found = {topic: cluster.partitions_for_topic(topic) or () for topic in topics}
        return [Partition(topic, number) for topic, numbers in found.items() for number in sorted(numbers)]

    # Of all topics, also those that are not read or do not exist yet.
    def _ask(self, cluster: Any) -> None:
        now_s = time.monotonic()
        if self._answer is None:
            with self._reached():
                self._consumer.topics()
            cluster.need_all_topic_metadata = True
        elif not self._answer.is_done or self._answer.failed():
            why = self._answer.exception or f"nothing for {_ANSWER_S:g} s"
            if self._answer.failed():
                self._answer = cluster.request_update()
            if now_s - self._asked_s >= _ANSWER_S:
                self._asked_s = now_s
                raise UnavailableError(f"Kafka at {self._where} does not answer: {why!s:.200}")
            return
        elif now_s - self._asked_s < _ASK_AGAIN_S:
            return
        self._answer, self._asked_s = cluster.request_update(), now_s

    def topic_id(self, topic: str) -> str:
        """Return the topic's UUID; from brokers too old to have one, cluster id and name. A deleted one keeps its last.

        A fetch asks by name, so its answer may be of another topic by then. Brokers are asked once after a poll, not at
        all where there was none.

        Raises:
            UnavailableError: no broker answers, or a group is just sharing out partitions, when none can be asked.
        """
        if self._polled and self._in_callback:
            raise UnavailableError(f"{topic}: whether it is still the same cannot be asked now")
        cluster = self._cluster()
        with self._reached():
            self._consumer.partitions_for_topic(topic)
            if self._polled:
                manager = self._consumer._manager  # noqa: SLF001
                self._consumer._net.run(manager.wait_for, manager.call_soon(_renewed, cluster), _ANSWER_S * 1000)  # noqa: SLF001
                self._polled = False
        found, there = cluster.topic_id(topic), cluster.partitions_for_topic(topic)
        if found is not None and found.int:
            self._topic_ids[topic] = str(found)
        elif topic not in self._topic_ids or there:
            self._topic_ids[topic] = f"{self.log_id()}/{topic}"
        return self._topic_ids[topic]

    def start_offset(self, partition: Partition) -> int:
        """Return the oldest offset still held."""
        with self._reached():
            return int(self._consumer.beginning_offsets([TopicPartition(*partition)])[TopicPartition(*partition)])

    def end_offset(self, partition: Partition) -> int:
        """Return the offset that the next message will get."""
        with self._reached():
            return int(self._consumer.end_offsets([TopicPartition(*partition)])[TopicPartition(*partition)])

    def known_end(self, partition: Partition) -> int | None:
        """Return the end offset that the last answer to a fetch named; None before one came."""
        at = TopicPartition(*partition)
        end = self._consumer.highwater(at) if at in self._consumer.assignment() else None
        return None if end is None else int(end)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read `partition` from `offset` on."""
        with self._reached():
            if self._group is None and partition not in self._owned:
                self._owned.add(partition)
                self._consumer.assign([TopicPartition(*each) for each in self._owned])
            if TopicPartition(*partition) not in self._consumer.assignment():
                return  # the group has taken it away
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
            LogWentBackError: a position is behind the log's end, or a leader knows of other messages before it.
        """
        try:
            with self._reached():
                self._keep_joining()
                polled = self._consumer.poll(timeout_ms)
        except OffsetOutOfRangeError as e:
            at, position = next(iter(e.args[0].items()))
            self._out_of_range(Partition(at.topic, at.partition), _offset(position))
            return {}
        except LogTruncationError as e:
            at, known = next(iter(e.divergent_offsets.items()))
            partition = Partition(at.topic, at.partition)
            raise LogWentBackError(partition, self.end_offset(partition) if known is None else _offset(known)) from None
        finally:
            self._polled = True
        told = self._tell_assigned()
        # A message without a value, which no agent sends, is a frame of no bytes: a dead letter.
        return {
            Partition(at.topic, at.partition): [
                Message(each.offset, each.timestamp * 1_000_000, each.value or b"") for each in found
            ]
            for at, found in polled.items()
            if Partition(at.topic, at.partition) not in told
        }

    def commit_advisory(self, partition: Partition, offset: int) -> None:
        """Tell the group's lag monitors how far `partition` is stored; nothing depends on it."""
        if self._group is None or self._in_callback:
            return
        try:
            advice = {TopicPartition(*partition): OffsetAndMetadata(offset, "", -1)}
            self._consumer.commit(advice, timeout_ms=_ADVICE_MS)
        except (KafkaError, OSError) as e:
            log.warning("%s: the group was not told offset %d: %r", partition, offset, e)

    def close(self) -> None:
        """Leave the cluster."""
        self._consumer.close(autocommit=False)

    # The client joins anew where topics are not as they were shared out. If they are so again while its question is
    # under way, it never looks at the answer, and the group at it no more: its heartbeats stopped when it asked.
    def _keep_joining(self) -> None:
        coordinator = self._consumer._coordinator  # noqa: SLF001
        if coordinator is not None and coordinator.rebalance_in_progress():
            coordinator.request_rejoin()

    def _out_of_range(self, partition: Partition, position: int) -> None:
        start = self.start_offset(partition)
        if position < start:
            raise RetentionOvertookError(partition, position, start)
        if position > (end := self.end_offset(partition)):
            raise LogWentBackError(partition, end)
        self.seek(partition, position)

    # What was polled of a partition before it came to us says nothing of where its chain ends.
    def _tell_assigned(self) -> set[Partition]:
        told, self._assigned = self._assigned, set()
        if told and self._listener is not None:
            self._listener.assigned(sorted(told))
        return told

    def _cluster(self) -> Any:
        return self._consumer._client.cluster  # noqa: SLF001

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (OffsetOutOfRangeError, LogTruncationError):
            raise
        except (KafkaError, OSError) as e:
            raise UnavailableError(f"Kafka at {self._where} does not answer: {e!r:.200}") from None


# A consumer that cannot start leaves its thread running and its sockets open.
def _connect(timeout_ms: int, kwargs: dict[str, Any]) -> Any:
    nets: list[KafkaNetClient] = []

    def net(**settings: Any) -> KafkaNetClient:
        nets.append(KafkaNetClient(**settings))
        return nets[-1]

    try:
        consumer = KafkaConsumer(bootstrap_timeout_ms=timeout_ms, kafka_client=net, **kwargs)
        consumer.topics()
    except (KafkaError, OSError):
        for each in nets:
            each.close()
        raise
    return consumer


# Without the rest of a tenth of a second that the client takes between two questions of its own.
async def _renewed(cluster: Any) -> None:
    if cluster.metadata_refresh_in_progress:
        await cluster.refresh_metadata()  # was asked before
    await cluster.refresh_metadata()


def _offset(position: Any) -> int:
    return int(getattr(position, "offset", position))


# Called in the client's own thread while ours waits in `poll` or `close`, and so without any question to the broker.
class _Bridge(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, reader: KafkaReader) -> None:
        self._reader = reader

    # Held still until the listener knows where to go on: a position is wanted at once, and never the group's.
    def on_partitions_assigned(self, assigned: Any) -> None:
        for at in assigned:
            self._reader._consumer.pause(at)  # noqa: SLF001
            self._reader._consumer.seek(at, 0)  # noqa: SLF001
        self._reader._assigned.update(_partitions(assigned))  # noqa: SLF001

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._take(revoked, "revoked")

    def on_partitions_lost(self, lost: Any) -> None:
        self._take(lost, "lost")

    def _take(self, taken: Any, how: str) -> None:
        reader, partitions = self._reader, _partitions(taken)
        reader._assigned.difference_update(partitions)  # noqa: SLF001
        reader._in_callback = True  # noqa: SLF001
        try:
            getattr(reader._listener, how)(partitions)  # noqa: SLF001
        finally:
            reader._in_callback = False  # noqa: SLF001


def _partitions(found: Any) -> list[Partition]:
    return sorted(Partition(at.topic, at.partition) for at in found)
