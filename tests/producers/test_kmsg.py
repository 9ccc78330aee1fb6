"""The kernel log source, on the real kernel and on a pipe of records where the kernel cannot be made to err."""

import os
import time

import pytest

from producers import kmsg as source_module
from producers.kmsg import KmsgSource, newest_seq, open_sources
from producers.registry import Identity, Known, Opening
from schemas import kmsg
from schemas.config import Config
from schemas.errors import AccessError
from schemas.loss import Loss
from schemas.stream import Stream

pytestmark = pytest.mark.kernel
STREAM = Stream("m", "b", "guest-kernel", "kmsg", "", "printk")


def opened(known):
    return open_sources(Opening(Identity("m", "b", "guest-kernel"), known, Config()))


def drain_all(source):
    time.sleep(0.02)  # the kernel wakes readers from lazy irq work, up to a tick later
    while source.drain():
        pass
    return source.cut()


def records_of(batches):
    found = []
    for batch in batches:
        lengths, data = kmsg.unpack(batch.body)
        at = 0
        for i, length in enumerate(lengths):
            found.append((batch.first + i, bytes(data[at : at + length])))
            at += length
    return found


def test_every_record_from_the_oldest_on_is_there_with_its_own_number(kernel_log):
    source = KmsgSource(STREAM, None, [])
    kernel_log.write(50)
    batches = drain_all(source)
    source.close()
    records = records_of(batches)
    assert all(kmsg.header_seq(record) == seq for seq, record in records)
    assert sum(kernel_log.tag.encode() in record for _, record in records) == 50
    lost = sum(loss.count for batch in batches for loss in batch.losses)
    assert lost + len(records) == records[-1][0] + 1  # from sequence number 0 on


def test_a_restart_neither_repeats_nor_misses(kernel_log):
    first = KmsgSource(STREAM, None, [])
    kernel_log.write(20)
    before = records_of(drain_all(first))
    position = first.next_position()
    first.close()
    kernel_log.write(30, start=20)
    second = KmsgSource(STREAM, position, [])
    batches = drain_all(second)
    second.close()
    assert [batch.losses for batch in batches] == [[]]
    after = records_of(batches)
    assert after[0][0] == before[-1][0] + 1
    mine = [record for _, record in before + after if kernel_log.tag.encode() in record]
    assert [int(record.split(b"record ")[1].split()[0]) for record in mine] == list(range(50))


def test_a_reader_that_sleeps_through_a_flood_counts_what_it_missed_exactly(kernel_log):
    source = KmsgSource(STREAM, None, [])
    drain_all(source)
    start = source.next_position()
    kernel_log.write(6000)
    batches = drain_all(source)
    epipe = source.counters()["epipe"]
    source.close()
    losses = [loss for batch in batches for loss in batch.losses]
    stored = sum(batch.count for batch in batches)
    assert epipe >= 1
    assert {loss.kind for loss in losses} == {"overwrite"}
    assert stored + sum(loss.count for loss in losses) == batches[-1].next - start
    assert batches[0].losses[0].first_position == start
    assert losses[0].count > 1000


def test_a_position_that_the_kernel_overwrote_is_a_counted_overwrite(kernel_log):
    kernel_log.write(6000)
    newest = newest_seq()
    source = KmsgSource(STREAM, newest - 5500, [])
    batches = drain_all(source)
    source.close()
    assert batches[0].losses == [
        Loss("overwrite", newest - 5500, batches[0].first - (newest - 5500), "ring-overwritten", "agent")
    ]


def test_a_new_boot_is_a_reset_and_not_a_gap(kernel_log):
    old = STREAM._replace(boot_id="older boot")
    (source,) = opened({old: Known(10**9, 7)})
    batches = drain_all(source)
    source.close()
    assert batches[0].losses[0] == Loss("reset", 0, 0, "new-boot", "agent")
    assert source.stream == STREAM


def test_a_machine_restored_from_an_older_snapshot_goes_on_as_a_new_instance(kernel_log):
    (source,) = opened({STREAM: Known(10**9, 7)})
    source.close()
    assert source.stream == STREAM._replace(instance="restore-1")
    known = {STREAM: Known(10**9, 7), source.stream: Known(5, 7)}
    (again,) = opened(known)
    again.close()
    assert again.stream == source.stream


def test_a_long_line_with_odd_bytes_is_kept_as_the_kernel_gives_it(kernel_log):
    source = KmsgSource(STREAM, None, [])
    drain_all(source)
    kernel_log.write_one(b"<13>" + kernel_log.tag.encode() + b" \xff\xfe\x01 \\ " + b"x" * 900 + b"\n")
    records = records_of(drain_all(source))
    source.close()
    (mine,) = [record for _, record in records if kernel_log.tag.encode() in record]
    assert b"\\xff\\xfe\\x01 \\x5c " + b"x" * 900 + b"\n" in mine


class FakeDevice:
    """What read(2) gave, in order: bytes are records, integers are errno values."""

    def __init__(self, *reads):
        self.reads = list(reads)

    def __call__(self, _fd, _size):
        if not self.reads:
            raise BlockingIOError
        read = self.reads.pop(0)
        if isinstance(read, int):
            raise OSError(read, os.strerror(read))
        return read


@pytest.fixture
def scripted(monkeypatch):
    def make(position, *reads):
        source = KmsgSource(STREAM, position, [], device=os.devnull)
        monkeypatch.setattr(source_module.os, "read", FakeDevice(*reads))
        return source

    return make


def record(seq):
    return b"6,%d,%d,-;text\n" % (seq, seq * 10)


def test_a_jump_without_epipe_is_found_too(scripted):
    source = scripted(10, record(10), record(11), record(15))
    batches = drain_all(source)
    source.close()
    assert [(batch.first, batch.next) for batch in batches] == [(10, 12), (15, 16)]
    assert batches[1].losses == [Loss("overwrite", 12, 3, "ring-overwritten", "agent")]


def test_one_drain_goes_on_behind_a_failed_read(scripted):
    source = scripted(10, record(10), 32, record(20), 22, record(22), record(23))
    assert source.drain() is False
    assert source.pending_bytes() == sum(len(record(seq)) for seq in (10, 20, 22, 23))
    batches = source.cut()
    source.close()
    assert [(batch.first, batch.next) for batch in batches] == [(10, 11), (20, 21), (22, 24)]
    assert [loss for batch in batches for loss in batch.losses] == [
        Loss("overwrite", 11, 9, "ring-overwritten", "agent"),
        Loss("truncation", 21, 1, "longer-than-buffer", "agent"),
    ]


def test_two_epipes_in_a_row_are_one_loss(scripted):
    source = scripted(10, record(10), 32, 32, record(20))
    batches = drain_all(source)
    source.close()
    assert [loss for batch in batches for loss in batch.losses] == [
        Loss("overwrite", 11, 9, "ring-overwritten", "agent")
    ]


def test_what_was_overwritten_before_the_first_record_came_was_lost_before_us(scripted):
    source = scripted(None, 32, record(20), 32, record(30))
    batches = drain_all(source)
    source.close()
    assert [loss for batch in batches for loss in batch.losses] == [
        Loss("overwrite", 0, 20, "before-first-read", "agent"),
        Loss("overwrite", 21, 9, "ring-overwritten", "agent"),
    ]


def test_only_what_is_new_is_counted_as_read(scripted):
    source = scripted(11, record(10), record(11), record(12))
    batches = drain_all(source)
    source.close()
    assert [(batch.first, batch.next) for batch in batches] == [(11, 13)]
    assert source.counters()["records"] == 2


def test_a_record_longer_than_the_buffer_is_a_truncation_and_the_buffer_grows(scripted):
    source = scripted(10, record(10), 22, record(12))
    batches = drain_all(source)
    source.close()
    assert batches[1].losses == [Loss("truncation", 11, 1, "longer-than-buffer", "agent")]
    assert source._read_bytes == 16384


def test_a_record_whose_header_is_torn_keeps_its_place(scripted):
    source = scripted(10, record(10), b"garbage\n", record(12))
    batches = drain_all(source)
    source.close()
    assert records_of(batches) == [(10, record(10)), (11, b"garbage\n"), (12, record(12))]


def test_records_too_large_for_one_frame_are_split(scripted):
    long = [b"6,%d,0,-;%s\n" % (seq, b"x" * 8000) for seq in range(200)]
    source = scripted(0, *long)
    batches = drain_all(source)
    source.close()
    assert len(batches) > 1
    assert [item for _, item in records_of(batches)] == long


def test_an_absent_device_is_one_sentence_with_a_remedy(tmp_path):
    with pytest.raises(AccessError, match="does not exist"):
        KmsgSource(STREAM, None, [], device=str(tmp_path / "none"))
