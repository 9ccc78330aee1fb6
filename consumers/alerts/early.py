"""What hosts say of VMs waits until the kernel logs are read as far: it is asked what the guest had said by then.

In a replay topics are read at different speeds. In the order of the log's append times it meets the same cases as it
did when it came; who is read up to the end of all kernel logs waits for nothing.
"""

from collections.abc import Iterator, Mapping

from consumers.alerts.partition import PartitionAlerter
from consumers.transport.base import LogReader, Message, Partition
from schemas.surfaces import TOPIC_LOG


class Early:
    """Messages of other topics than that of kernel logs; a partition of which some wait is not read on."""

    def __init__(self, reader: LogReader, alerters: Mapping[Partition, PartitionAlerter]) -> None:
        self._reader, self._alerters = reader, alerters
        self._waiting: dict[Partition, list[Message]] = {}
        self._unread: set[Partition] = set()  # of which enough wait

    def put(self, partition: Partition, messages: list[Message]) -> None:
        """Take what was polled of `partition`."""
        self._waiting.setdefault(partition, []).extend(messages)

    def ready(self) -> Iterator[tuple[PartitionAlerter, list[Message]]]:
        """Yield what need not wait any more, by its alerter, who must take it before the next is asked for."""
        for partition in list(self._waiting):
            alerter, messages = self._alerters.get(partition), self._waiting.pop(partition)
            if alerter is None:
                continue
            read_ns = self._read_ns()
            late = (i for i, each in enumerate(messages) if read_ns is not None and each.ts_ns > read_ns)
            count = next(late, len(messages))
            if count:
                yield alerter, messages[:count]
            if count < len(messages):
                self._waiting[partition] = messages[count:]
                if partition not in self._unread:
                    self._unread.add(partition)
                    self._reader.forget(partition)
            elif partition in self._unread:
                self._unread.remove(partition)
                self._reader.seek(partition, alerter.position)

    def forget(self, partition: Partition) -> None:
        """Drop what waits of `partition`: whoever owns it next reads it again."""
        self._waiting.pop(partition, None)
        self._unread.discard(partition)

    # Up to which append time all our kernel logs are read; None: to their ends.
    def _read_ns(self) -> int | None:
        behind = []
        for partition, alerter in self._alerters.items():
            if partition.topic == TOPIC_LOG:
                end = self._reader.known_end(partition)
                if alerter.position < (self._reader.end_offset(partition) if end is None else end):
                    behind.append(alerter.arrival_ns)
        return min(behind, default=None)
