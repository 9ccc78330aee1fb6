"""What every log reader must do, whatever lies behind it: one suite over memory, the directory and a real Kafka.

A test file makes a class of `ReaderSuite` with a fixture `log`, whose methods do to the log what time and others do.
"""

import threading
import time
from typing import Protocol

import pytest

from consumers.transport.base import LogReader, LogReplacedError, Partition, RetentionOvertookError
from schemas.frame import encode
from tests._logs import frame


class Log(Protocol):
    """A log that tests can write to."""

    def create(self, topic: str) -> None: ...

    def append(self, topic: str, numbers: range) -> None:
        """Append the frames `numbers` to partition 0."""

    def delete_before(self, topic: str, offset: int) -> None:
        """Do what retention does; `offset` is one that an `append` began with."""

    def recreate(self, topic: str) -> None:
        """Delete the log, or its topic, and make it anew."""

    def reader(self) -> LogReader:
        """Return a reader, which the fixture closes."""


def read(reader, partition, count, timeout_s=20):
    """Return at least `count` messages of `partition`; nothing else may come."""
    found, deadline_s = [], time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < deadline_s:
        polled = reader.poll(200)
        assert set(polled) <= {partition}
        found += polled.get(partition, [])
    return found


def expected(numbers):
    return [(n, encode(frame(n))) for n in numbers]


def pairs(messages):
    return [(message.offset, message.value) for message in messages]


class ReaderSuite:
    @pytest.fixture
    def topic(self, log, topics):
        name = topics()
        log.create(name)
        return name

    @pytest.fixture
    def partition(self, topic):
        return Partition(topic, 0)

    def test_the_end_is_known_from_what_was_read(self, log, topic, partition):
        log.append(topic, range(7))
        reader = log.reader()
        reader.seek(partition, 0)
        read(reader, partition, 7)
        assert reader.known_end(partition) == reader.end_offset(partition) == 7
        log.append(topic, range(7, 9))
        read(reader, partition, 2)
        assert reader.known_end(partition) == 9

    def test_every_message_comes_once_in_order_with_its_offset(self, log, topic, partition):
        log.append(topic, range(100))
        reader = log.reader()
        reader.seek(partition, 0)
        found = read(reader, partition, 100)
        assert pairs(found) == expected(range(100))
        stamps = [message.ts_ns for message in found]
        assert stamps == sorted(stamps)
        assert abs(stamps[-1] - time.time_ns()) < 60e9
        assert reader.poll(100) == {}
        log.append(topic, range(100, 103))
        assert pairs(read(reader, partition, 3)) == expected(range(100, 103))

    def test_a_log_is_found_by_its_topics_in_their_order(self, log, topic, topics):
        second = topics()
        log.create(second)
        reader = log.reader()
        assert reader.partitions([second, "absent", topic]) == [Partition(second, 0), Partition(topic, 0)]
        assert reader.partitions([]) == []

    def test_a_partition_may_appear_while_a_reader_is_open(self, log, topic, topics):
        reader, later = log.reader(), topics()
        assert reader.partitions([later]) == []
        log.create(later)
        log.append(later, range(2))
        deadline_s = time.monotonic() + 20
        while reader.partitions([topic, later]) != [Partition(topic, 0), Partition(later, 0)]:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        reader.seek(Partition(later, 0), 0)
        assert pairs(read(reader, Partition(later, 0), 2)) == expected(range(2))

    def test_start_and_end_move_with_what_is_held(self, log, topic, partition):
        reader = log.reader()
        assert (reader.start_offset(partition), reader.end_offset(partition)) == (0, 0)
        log.append(topic, range(4))
        assert (reader.start_offset(partition), reader.end_offset(partition)) == (0, 4)
        log.append(topic, range(4, 10))
        assert (reader.start_offset(partition), reader.end_offset(partition)) == (0, 10)
        log.delete_before(topic, 4)
        assert (reader.start_offset(partition), reader.end_offset(partition)) == (4, 10)

    def test_a_partition_never_sought_is_not_read(self, log, topic):
        log.append(topic, range(5))
        assert log.reader().poll(300) == {}

    def test_seek_goes_anywhere_back_and_forth_and_to_the_end(self, log, topic, partition):
        log.append(topic, range(50))
        reader = log.reader()
        for offset in (30, 0, 49, 17):
            reader.seek(partition, offset)
            assert pairs(read(reader, partition, 50 - offset)) == expected(range(offset, 50))
        reader.seek(partition, 50)
        assert reader.poll(100) == {}
        log.append(topic, range(50, 52))
        assert pairs(read(reader, partition, 2)) == expected(range(50, 52))

    def test_seek_in_the_middle_of_a_batch_forgets_the_rest_of_it(self, log, topic, partition):
        log.append(topic, range(3000))
        reader = log.reader()
        reader.seek(partition, 0)
        assert read(reader, partition, 1)[0].offset == 0
        reader.seek(partition, 2990)
        assert pairs(read(reader, partition, 10)) == expected(range(2990, 3000))

    def test_forget_stops_one_partition_and_not_the_other(self, log, topic, partition, topics):
        second = topics()
        log.create(second)
        reader = log.reader()
        reader.seek(partition, 0)
        reader.seek(Partition(second, 0), 0)
        reader.forget(partition)
        log.append(topic, range(5))
        log.append(second, range(5))
        assert pairs(read(reader, Partition(second, 0), 5)) == expected(range(5))
        assert reader.poll(100) == {}
        reader.seek(partition, 3)
        assert pairs(read(reader, partition, 2)) == expected(range(3, 5))
        reader.forget(partition)
        reader.forget(partition)

    def test_several_partitions_are_read_together(self, log, topic, topics):
        names = [topic, topics(), topics()]
        for name in names[1:]:
            log.create(name)
        for name in names:
            log.append(name, range(20))
        reader, found = log.reader(), {}
        for name in names:
            reader.seek(Partition(name, 0), 0)
        deadline_s = time.monotonic() + 20
        while sum(map(len, found.values())) < 60 and time.monotonic() < deadline_s:
            for partition, messages in reader.poll(200).items():
                found.setdefault(partition, []).extend(messages)
        assert {each: pairs(messages) for each, messages in found.items()} == {
            Partition(name, 0): expected(range(20)) for name in names
        }

    def test_several_readers_do_not_know_of_each_other(self, log, topic, partition):
        log.append(topic, range(20))
        first, second = log.reader(), log.reader()
        first.seek(partition, 0)
        second.seek(partition, 10)
        assert pairs(read(first, partition, 20)) == expected(range(20))
        assert pairs(read(second, partition, 10)) == expected(range(10, 20))
        log.append(topic, range(20, 25))
        assert pairs(read(first, partition, 5)) == pairs(read(second, partition, 5)) == expected(range(20, 25))

    def test_retention_that_overtook_is_an_error_with_the_new_start(self, log, topic, partition):
        log.append(topic, range(30))
        log.append(topic, range(30, 40))
        log.delete_before(topic, 30)
        reader = log.reader()
        reader.seek(partition, 7)
        for _ in range(2):  # it stays so until the reader is told to go on
            with pytest.raises(RetentionOvertookError) as caught:
                read(reader, partition, 1)
            assert (caught.value.partition, caught.value.position, caught.value.start) == (partition, 7, 30)
        reader.seek(partition, caught.value.start)
        assert pairs(read(reader, partition, 10)) == expected(range(30, 40))

    def test_poll_waits_as_long_as_asked_and_no_longer_than_needed(self, log, topic, partition):
        reader = log.reader()
        reader.seek(partition, 0)
        reader.poll(10)
        start_s = time.monotonic()
        assert reader.poll(300) == {}
        assert 0.28 < time.monotonic() - start_s < 2
        later = threading.Timer(0.2, log.append, (topic, range(1)))
        later.start()
        start_s = time.monotonic()
        assert pairs(reader.poll(20_000)[partition]) == expected(range(1))
        assert time.monotonic() - start_s < 10
        later.join()

    def test_a_waiting_poll_costs_next_to_no_cpu(self, log, partition):
        reader = log.reader()
        reader.seek(partition, 0)
        reader.poll(10)
        cpu_s = time.thread_time()
        reader.poll(1000)
        assert time.thread_time() - cpu_s < 0.2

    def test_the_identity_stays_until_the_log_is_made_anew(self, log, topic):
        reader = log.reader()
        identity = reader.log_id(), reader.topic_id(topic)
        assert all(identity)
        log.append(topic, range(5))
        again = log.reader()
        assert (again.log_id(), again.topic_id(topic)) == identity
        log.recreate(topic)
        anew = log.reader()
        assert anew.topic_id(topic) != identity[1]
        assert anew.end_offset(Partition(topic, 0)) == 0

    def test_who_has_polled_hears_at_once_that_the_log_was_made_anew(self, log, topic, partition):
        log.append(topic, range(5))
        reader = log.reader()
        identity = reader.topic_id(topic)
        reader.seek(partition, 0)
        read(reader, partition, 5)
        assert reader.topic_id(topic) == identity
        log.recreate(topic)
        log.append(topic, range(9))
        try:
            reader.poll(2000)
            assert reader.topic_id(topic) != identity
        except LogReplacedError:
            pass  # a reader of one log alone says so itself
