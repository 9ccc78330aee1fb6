"""A ring that outlives its reader, on the real kernel: what stays in it until when, and what a second reader does."""

import threading

import pytest

from producers.bpf import held
from producers.registry import Known
from schemas import bpf
from schemas.errors import BadInputError
from schemas.loss import Loss
from tests.producers.bpf._pinned import SLOT_BYTES, Pinned, items_of, read_by, reading

pytestmark = pytest.mark.kernel
UNCOUNTED = Loss("drop", 0, None, "refused-uncounted", "agent", "event")


@pytest.fixture
def pinned(bpf_fs, tmp_path):
    made = Pinned(bpf_fs, tmp_path / "state")
    yield made
    made.close()


def losses_of(batches):
    return [loss for batch in batches for loss in batch.losses]


def test_room_is_given_back_when_the_log_has_the_records_and_not_before(pinned):
    owner, source = pinned.owner(), pinned.open()
    assert source.fileno() >= 0
    owner.write(100)
    assert not source.drain()
    (batch,) = source.cut()
    assert [each.number for each in items_of([batch])] == list(range(100))
    assert (batch.first, batch.next, batch.ts_first_ns, batch.losses) == (0, 100, 0, [UNCOUNTED])
    assert (owner.waiting_bytes(), source.fileno()) == (100 * SLOT_BYTES, -1)
    owner.write(50)
    source.drain()
    (second,) = source.cut()
    source.durable(100)
    assert (owner.waiting_bytes(), source.fileno(), source.counters()["held_bytes"]) == (2400, -1, 2400)
    source.durable(150)
    assert (owner.waiting_bytes(), source.counters()["held_bytes"]) == (0, 0)
    assert source.fileno() >= 0
    assert bpf.unpack(second.body).ring_position == 100 * SLOT_BYTES


def test_a_ring_that_is_half_full_is_let_go_at_once(pinned):
    owner, source = pinned.owner(ring_bytes=4096), pinned.open()
    owner.write(20)
    source.drain()
    assert owner.waiting_bytes() == 20 * SLOT_BYTES
    owner.write(30)
    source.drain()
    assert owner.waiting_bytes() == 0
    # What is durable later moves nothing back.
    source.cut()
    source.durable(20)
    source.durable(50)
    assert owner.waiting_bytes() == 0
    assert source.counters()["fill_bytes_max"] == 50 * SLOT_BYTES


def test_records_that_were_taken_back_leave_room_and_no_hole(pinned):
    owner, source = pinned.owner(), pinned.open()
    owner.write(1, discard_each=1)
    source.drain()
    (told,) = source.cut()
    assert (told.count, told.next) == (0, 0)
    assert owner.waiting_bytes() == 0
    owner.write(30, discard_each=3)
    source.drain()
    (batch,) = source.cut()
    assert [each.number for each in items_of([batch])] == [i for i in range(1, 31) if (i - 1) % 3]
    source.durable(20)
    assert owner.waiting_bytes() == 0
    assert source.counters()["discarded"] == owner.discarded == 11


def test_how_full_the_ring_was_tells_whether_records_can_have_found_no_room(pinned):
    owner, source = pinned.owner(ring_bytes=4096), pinned.open()
    assert owner.write(60) == 0
    counters = source.counters()
    assert counters["ring_bytes"] - counters["fill_bytes_max"] > SLOT_BYTES
    assert owner.write(60) == 35
    source.drain()
    counters = source.counters()
    assert counters["ring_bytes"] - counters["fill_bytes_max"] < SLOT_BYTES
    assert counters["refused_unknown"] == 1
    # Nobody told how many: unknown, and never zero.
    assert losses_of(source.cut()) == [UNCOUNTED]


def test_a_ring_read_while_it_is_written_gives_every_record_once_in_order(pinned):
    owner, source = pinned.owner(ring_bytes=1 << 14), pinned.open()
    done = threading.Event()

    def write():
        for _ in range(400):
            owner.write(50, discard_each=7)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    batches = []
    while not done.is_set() or owner.waiting_bytes():
        source.drain()
        batches += source.cut()
        source.durable(source.next_position())
    thread.join()
    numbers = [each.number for each in items_of(batches)]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == owner.written == source.next_position()
    assert owner.written + owner.refused + owner.discarded == owner.attempts == 20_000
    assert [batch.first for batch in batches[1:]] == [batch.next for batch in batches[:-1]]


def test_a_stop_reads_what_is_there_and_leaves_what_comes_later(pinned):
    owner, source = pinned.owner(), pinned.open()
    owner.write(10)
    source.stop()
    owner.write(10)
    assert not source.drain()
    source.give_up()
    assert len(items_of(source.cut())) == 20  # one stretch, begun before the end
    owner.write(10)
    assert not source.drain()
    assert source.cut() == []
    assert source.counters()["final"] == 1
    source.durable(20)
    source.close()
    assert owner.waiting_bytes() == 10 * SLOT_BYTES
    again = pinned.open(known=Known(20, 1))
    again.drain()
    (batch,) = again.cut()
    assert (batch.first, [each.number for each in items_of([batch])]) == (20, list(range(20, 30)))


def test_a_reader_that_comes_later_ends_it_with_an_unknown_loss(pinned, caplog):
    owner, source = pinned.owner(), pinned.open()
    owner.write(10)
    with reading(owner.pin) as process:
        read_by(process, 3 * SLOT_BYTES)
        assert not source.drain()
        assert (
            f"another process reads it too: its reader's position was left at 0 and is {3 * SLOT_BYTES}" in caplog.text
        )
        assert f"; process {process.pid} (python" in caplog.text
        assert (source.alive(), source.fileno()) == (False, -1)
        assert losses_of(source.cut()) == [UNCOUNTED, Loss("gap", 0, None, "read-by-another", "agent", "event")]
        source.durable(0)
        source.counters()
        assert owner.waiting_bytes() == 7 * SLOT_BYTES


def test_a_reader_that_comes_between_copy_and_release_is_seen_too(pinned):
    owner, source = pinned.owner(), pinned.open()
    owner.write(10)
    source.drain()
    (batch,) = source.cut()
    assert batch.count == 10
    with reading(owner.pin) as process:
        read_by(process, SLOT_BYTES)
        source.durable(10)
        assert not source.alive()
        assert losses_of(source.cut()) == [Loss("gap", 10, None, "read-by-another", "agent", "event")]
        assert owner.waiting_bytes() == 9 * SLOT_BYTES


def test_a_ring_that_lies_is_left_where_it_is(pinned, monkeypatch, caplog):
    owner, source = pinned.owner(), pinned.open()
    owner.write(10)

    def refuse(*args):
        raise BadInputError("ring", "the record at byte 8 claims too much")

    monkeypatch.setattr(source._stretches, "take", refuse)
    assert not source.drain()
    assert losses_of(source.cut()) == [UNCOUNTED, Loss("drop", 0, None, "ring-broken", "agent", "event")]
    assert "its ring is read no more: the record at byte 8 claims too much" in caplog.text
    assert owner.waiting_bytes() == 10 * SLOT_BYTES


def test_a_record_that_is_not_committed_is_waited_for_by_the_tick_alone(pinned, monkeypatch):
    _, source = pinned.owner(), pinned.open()
    monkeypatch.setattr(source._stretches, "take", lambda: held.Status.STILL_BUSY)
    assert not source.drain()
    assert source.fileno() == -1
    monkeypatch.undo()
    source.drain()
    assert source.fileno() >= 0
