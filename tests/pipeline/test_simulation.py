"""Producers, log, collectors, compaction and crashes in one process and at random, with the seed printed.

Everything that a real pipeline meets happens here in another order each time: frames cut anywhere, sent again, damaged,
deleted unread; collectors that race, die inside any write, or find the disk refusing. At the end each position that a
producer ever counted is a row, a dead letter or a counted loss: exactly one of them.
"""

import contextlib
import random
import secrets
from collections import defaultdict

import pyarrow.parquet as pq
import pytest

from consumers import follow
from consumers.follow import Follower
from consumers.lake import chain
from consumers.lake.audit import audit
from consumers.lake.compact import compact, expire
from consumers.lake.layout import HOUR_NS
from consumers.lake.snapshot import snapshot
from consumers.lake.storage import MemoryStorage
from consumers.transport.base import Partition
from consumers.transport.memory import MemoryLog, MemoryReader
from consumers.views import run_query
from schemas.config import CollectConfig
from schemas.errors import BadInputError, StorageError
from schemas.frame import decode, encode
from schemas.heartbeat import Heartbeat, pack
from schemas.loss import Loss
from schemas.surfaces import TOPIC_LOG
from tests.consumers._frames import STREAM, frame, heartbeat, record

STEPS = 250
COLLECTORS = 3
PARTITIONS = 2
STREAMS = [STREAM._replace(machine=f"m{number}") for number in range(4)]


class DiedError(BaseException):
    """The process that was writing is gone."""


class WornStorage(MemoryStorage):
    """A storage whose every write can be the writer's last, be refused, or be done and reported as refused."""

    def __init__(self, rng):
        super().__init__()
        self.rng, self.worn = rng, True

    def _do(self, action):
        dice = self.rng.random() if self.worn else 1.0
        if dice < 0.01:
            raise DiedError
        if dice < 0.02:
            raise StorageError("refused")
        result = action()
        if dice < 0.03:
            raise DiedError
        if dice < 0.04:
            raise StorageError("done, but who knows")
        return result

    def put_file(self, local, key):
        self._do(lambda: super(WornStorage, self).put_file(local, key))

    def put_exclusive(self, key, data):
        return self._do(lambda: super(WornStorage, self).put_exclusive(key, data))

    def replace(self, key, data):
        self._do(lambda: super(WornStorage, self).replace(key, data))

    def delete(self, key):
        self._do(lambda: super(WornStorage, self).delete(key))


class Producer:
    """One stream: what it emitted, and what became of it on the way that it knows of."""

    def __init__(self, stream, log, rng):
        self.stream, self.log, self.rng = stream, log, rng
        self.partition = Partition(TOPIC_LOG, STREAMS.index(stream) % PARTITIONS)
        self.texts = {}  # by position
        self.dead = set()  # positions whose records nobody can read
        self.skipped = set()  # positions that never were
        self.next, self.number, self.run = 0, 0, "run 0"

    def emit(self, now_ns):
        """Append a frame, or a heartbeat; now and then behind positions that are missing."""
        losses = []
        if self.rng.random() < 0.2:
            missing = self.rng.randint(1, 5)
            if self.rng.random() < 0.7:
                losses.append(Loss("overwrite", self.next, missing, "ring-overwritten", "agent"))
            self.skipped.update(range(self.next, self.next + missing))
            self.next += missing
        if self.rng.random() < 0.2:
            made = self._heartbeat(losses)
        else:
            first, self.next = self.next, self.next + self.rng.randint(1, 6)
            for position in range(first, self.next):
                self.texts[position] = f"{self.stream.machine} {position} {self.rng.getrandbits(64):x}"
                if self.rng.random() < 0.02:
                    self.dead.add(position)
            made = self._frame(first, self.next, losses)
        self._append(encode(made), now_ns)

    def restart(self, now_ns):
        """Go on as a new run which reads again, in other frames, what the last ones held."""
        self.run = f"run {self.number}"
        again = list(range(max(0, self.next - self.rng.randint(0, 9)), self.next))
        while again and not self.skipped.intersection(again):
            cut = self.rng.randint(1, len(again))
            self._append(encode(self._frame(again[0], again[cut - 1] + 1, [])), now_ns)
            again = again[cut:]

    def end(self, now_ns):
        """Say how far it came, so that what is missing at the tail is known too."""
        self._append(encode(self._heartbeat([])), now_ns)

    def _heartbeat(self, losses):
        made = heartbeat(self.next, self.number, losses=losses, run=self.run, stream=self.stream)
        made.body = pack(Heartbeat(0, self.number, 0, 0, 0, 0, 0))
        return made

    def _frame(self, first, next_, losses):
        records = [b"torn" if at in self.dead else record(at, self.texts[at]) for at in range(first, next_)]
        return frame(first, next_, self.number, losses=losses, run=self.run, stream=self.stream, records=records)

    def _append(self, data, now_ns):
        self.number += 1
        self.log.append(self.partition, data, now_ns)


class World:
    """The whole of it, one random step after the other."""

    def __init__(self, rng):
        self.rng, self.now_ns = rng, 500_000 * HOUR_NS
        self.log = MemoryLog([TOPIC_LOG], PARTITIONS)
        self.storage = WornStorage(rng)
        self.storage.now_ns = self.now_ns
        self.producers = [Producer(stream, self.log, rng) for stream in STREAMS]
        # Where each position lay that retention or damage took: {stream: {position: {(partition, offset)}}}.
        self.deleted = {stream: defaultdict(set) for stream in STREAMS}
        self.collectors = [None] * COLLECTORS
        self.died = self.refused = 0

    def step(self):
        self.now_ns += self.rng.randrange(HOUR_NS // 8)
        self.storage.now_ns = self.now_ns
        rare = (self.resend, self.restart, self.damage, self.retain, self.compact, self.expire, self.kill)
        (do,) = self.rng.choices((self.emit, self.collect, *rare), (30, 20, 4, 2, 2, 3, 1, 1, 2))
        do()

    def emit(self):
        self.rng.choice(self.producers).emit(self.now_ns)

    def restart(self):
        self.rng.choice(self.producers).restart(self.now_ns)

    def resend(self):
        """Do what a shipper does that forgot its last acknowledgements."""
        partition, held = self._pick()
        for message in held[max(0, len(held) - self.rng.randint(1, 12)) :]:
            self.log.append(partition, message.value, self.now_ns)

    def damage(self):
        """Let bytes arrive that are no frame, in place of one or from nowhere."""
        partition, held = self._pick()
        if self.rng.random() < 0.5 or not held:
            self.log.append(partition, self.rng.randbytes(self.rng.randint(0, 300)), self.now_ns)
            return
        last = held[-1]
        if any(each is not None and self._position(each, partition) > last.offset for each in self.collectors):
            return  # somebody has read it as it was
        self._give_up(partition, last)
        spoilt = bytearray(last.value)
        spoilt[self.rng.randrange(len(spoilt))] ^= 1 << self.rng.randrange(8)
        held[-1] = last._replace(value=bytes(spoilt))

    def retain(self):
        partition, held = self._pick()
        count = self.rng.randint(0, len(held))
        for message in held[:count]:
            self._give_up(partition, message)
        self.log.delete_before(partition, self.log.starts[partition] + count)

    def collect(self):
        """Let one collector take a few steps, until it dies or the disk refuses."""
        number = self.rng.randrange(COLLECTORS)
        with self._mortal(number):
            collector = self._collector(number)
            for _ in range(self.rng.randint(1, 6)):
                collector._step()

    def kill(self):
        self.collectors[self.rng.randrange(COLLECTORS)] = None

    def compact(self):
        with self._mortal():
            compact(self.storage, self.now_ns, lateness_ms=0)

    def expire(self):
        with self._mortal():
            expire(self.storage, self.now_ns)

    def finish(self):
        """Let everybody say the last word, and collect it on a disk that holds."""
        self.storage.worn = False
        for producer in self.producers:
            producer.end(self.now_ns)
        for number in range(COLLECTORS):
            collector = self._collector(number)
            while any(
                self._position(collector, partition) < self.log.starts[partition] + len(held)
                for partition, held in self.log.messages.items()
            ):
                collector._step()
            for partition in list(collector._collectors):
                collector._commit(partition)

    def _pick(self):
        partition = Partition(TOPIC_LOG, self.rng.randrange(PARTITIONS))
        return partition, self.log.messages[partition]

    def _give_up(self, partition, message):
        with contextlib.suppress(BadInputError):
            lost = decode(message.value)
            for position in range(lost.first, lost.next):
                self.deleted[lost.stream][position].add((partition.number, message.offset))

    def _collector(self, number):
        if self.collectors[number] is None:
            reader = MemoryReader(self.log, batch_max=self.rng.randint(1, 5))
            rows = self.rng.choice((1, 5, 30, 100))
            self.collectors[number] = Follower(reader, self.storage, CollectConfig(cut_rows=rows, cut_age_s=3600))
        collector = self.collectors[number]
        collector._find_partitions()
        return collector

    @staticmethod
    def _position(collector, partition):
        each = collector._collectors.get(partition)
        return each.position if each else 0

    @contextlib.contextmanager
    def _mortal(self, number=None):
        try:
            yield
        except DiedError:
            self.died += 1
            if number is not None:
                self.collectors[number] = None
        except StorageError:
            self.refused += 1


@pytest.mark.parametrize("fixed", [*range(4), None])
def test_every_position_is_a_row_or_a_dead_letter_or_a_counted_loss(fixed, monkeypatch):
    seed = secrets.randbits(32) if fixed is None else fixed
    print("seed", seed)
    monkeypatch.setattr(follow, "_POLL_MS", 0)
    monkeypatch.setattr(chain, "CHECKPOINT_COMMITS", 4)
    world = World(random.Random(seed))
    try:
        # The chains begin where the log does.
        world.storage.worn = False
        world._collector(0)
        world.storage.worn = True
        for _ in range(STEPS):
            world.step()
        world.finish()
        prove(world)
        assert fixed is None or (world.died and world.refused), "nothing happened"
    finally:
        world.storage.close()


def prove(world):
    report = audit(world.storage, deep=True)
    assert report.closes, report.problems
    gone = messages_gone(world)
    for producer in world.producers:
        stored, dead, lost = found(world, producer.stream.machine)
        assert stored == {at: text for at, text in producer.texts.items() if at in stored}
        # A book opens with the first frame that came; nobody who comes later can know of one before.
        (book,) = [book for book in report.books if book.name.startswith(f"{producer.stream.machine}/")]
        assert sorted([*stored, *dead, *lost]) == list(range(book.first, producer.next))  # each once, none missing
        assert set(range(book.first)) <= producer.skipped | world.deleted[producer.stream].keys()
        assert dead <= producer.dead
        assert {position for position in producer.skipped if position >= book.first} <= lost
        # Whatever else is lost lay in a message that is known to be gone.
        for position in lost - producer.skipped:
            assert world.deleted[producer.stream][position] & gone, position
    twice = "select machine, run, number from coverage group by all having count(*) > 1"
    assert run_query(world.storage, twice)[1] == []
    # In order: every file by stream and position.
    for entry in snapshot(world.storage).files["kmsg"]:
        rows = pq.read_table(world.storage.local_path(entry.key), columns=["machine", "seq"], partitioning=None)
        keys = list(zip(rows["machine"].to_pylist(), rows["seq"].to_pylist(), strict=True))
        assert keys == sorted(keys)


def found(world, machine):
    """Return what the lake says of a stream: texts by position, dead positions, lost positions."""
    where = f"where machine = '{machine}'"
    rows = run_query(world.storage, f"select seq, message from kmsg {where}")[1]
    losses = run_query(world.storage, f"select first_position, count from losses {where} and count > 0")[1]
    dead = run_query(world.storage, f"select position from dead_letters {where}")[1]
    assert len(dict(rows)) == len(rows)
    lost = [position for first, count in losses for position in range(first, first + count)]
    assert len(set(lost)) == len(lost)
    # The text of a record is followed by its number.
    texts = {seq: message.removesuffix(f" {seq}") for seq, message in rows}
    return texts, {position for (position,) in dead}, set(lost)


def messages_gone(world):
    """Return (partition, offset) of every message that the lake calls lost or unreadable; none may be lost twice."""
    sql = "select partition, first_position, count from losses where machine = '' and count > 0"
    lost = [
        (partition, offset)
        for partition, first, count in run_query(world.storage, sql)[1]
        for offset in range(first, first + count)
    ]
    assert len(set(lost)) == len(lost)
    unreadable = run_query(world.storage, 'select partition, "offset" from dead_letters where machine is null')[1]
    return {*lost, *unreadable}
