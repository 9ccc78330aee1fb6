"""The shipper as the agent starts it, against a real broker: what it remembers, forgets, and says of what was evicted."""

import json
import os
import random
import subprocess
import sys
import threading
import time

import pytest

from consumers.topics import create_topics
from consumers.transport.base import Partition
from consumers.transport.kafka import KafkaReader
from producers import ship, ship_report
from producers.ship import Shipper
from schemas.errors import UnavailableError
from schemas.frame import decode
from schemas.kafka_config import KafkaConfig
from schemas.loss import LossKind
from schemas.surfaces import TOPIC_LOG, TOPIC_TRACE
from tests._logs import STREAM, frame, segments, writer

pytestmark = pytest.mark.broker


class Spool:
    def __init__(self, path, broker, topic, **kwargs):
        self.path, self.topic, self.config, self.kwargs = path, topic, KafkaConfig(broker.bootstrap), kwargs
        create_topics(self.config, partitions=1, replication=1, names=[topic])

    def write(self, numbers, body=b"", **kwargs):
        log = writer(self.path, **{**self.kwargs, **kwargs})
        for n in numbers:
            log.append(self.topic, frame(n, body))
        log.close()

    def ship(self):
        """Start a shipper whose agent is gone already: it sends what there is and ends."""
        config = json.dumps({"bootstrap": self.config.bootstrap})
        command = [sys.executable, "-m", "producers.ship", "--log", self.path, "--config-json", config]
        fd = ship_report.create()
        done = subprocess.run(
            [*command, "--report-fd", str(fd)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            pass_fds=(fd,),
        )
        self.told = ship_report.read(fd)
        os.close(fd)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def arrived(self):
        reader = KafkaReader(self.config)
        partition = Partition(self.topic, 0)
        end = reader.end_offset(partition)
        reader.seek(partition, 0)
        found = []
        while len(found) < end:
            found += reader.poll(1000).get(partition, [])
        reader.close()
        return [decode(message.value) for message in found]


@pytest.fixture
def spool(tmp_path, broker, topics):
    return Spool(tmp_path / "spool", broker, topics(), segment_bytes=560)


def test_everything_is_shipped_once_and_then_deleted_but_for_the_newest_segment(spool):
    spool.write(range(20))
    assert len(segments(spool.path, spool.topic)) == 5
    spool.ship()
    assert [each.number for each in spool.arrived()] == list(range(20))
    assert len(segments(spool.path, spool.topic)) == 1
    spool.write(range(20, 30))
    spool.ship()
    assert [each.number for each in spool.arrived()] == list(range(30))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: bytes(len(data)),
        lambda data: data[: len(data) // 2],
        lambda data: b"[]",
        lambda data: data.replace(b'"offsets": {', b'"offsets": {"x": null, '),
        lambda data: data.replace(b'"streams": [[', b'"streams": [[1], ['),
    ],
    ids=["empty", "zeros", "half", "no map", "no number", "no stream"],
)
def test_a_damaged_memory_costs_duplicates_and_claims_no_loss(spool, damage):
    spool.write(range(10))
    spool.ship()
    held = [int(path.stem) for path in segments(spool.path, spool.topic)]
    state = spool.path / "shipped.json"
    state.write_bytes(damage(state.read_bytes()))
    spool.write(range(10, 12))
    assert "shipping the whole spool again" in spool.ship()
    frames = spool.arrived()
    assert [each.number for each in frames] == [*range(10), *range(held[0], 12)]
    assert not any(each.losses for each in frames)
    spool.write(range(12, 13))
    assert "damaged" not in spool.ship()
    assert [each.number for each in spool.arrived()][-1] == 12


def test_what_was_evicted_unsent_is_a_loss_with_exact_positions(spool):
    spool.write(range(6))
    spool.ship()
    spool.write(range(6, 40), retention_bytes=1200)
    start = int(segments(spool.path, spool.topic)[0].stem)
    assert start > 10
    assert "the spool gave up frames" in spool.ship()
    frames = spool.arrived()
    account = frames[6]
    assert [each.number for each in frames[:6] + frames[7:]] == [*range(6), *range(start, 40)]
    (loss,) = account.losses
    assert (loss.kind, loss.first_position, loss.count) == (LossKind.DROP, 60, (start - 6) * 10)
    assert (account.stream, account.first, account.next) == (STREAM, start * 10, start * 10)
    assert (spool.told.dropped_positions, spool.told.dropped_unknown) == (loss.count, 0)
    assert (spool.told.frames, spool.told.errors) == (1 + 40 - start, 0)


def test_a_spool_that_fills_its_disk_is_shipped_and_makes_room(small_disk, broker, topics):
    spool = Spool(small_disk / "spool", broker, topics(), segment_bytes=50_000)
    spool.write(range(60), body=random.Random(1).randbytes(10_000))
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "ballast").write_bytes(bytes(1_000_000))
    assert "cannot be noted" in spool.ship()
    assert [each.number for each in spool.arrived()] == list(range(60))
    assert len(segments(spool.path, spool.topic)) == 1
    spool.ship()
    assert json.loads((spool.path / "shipped.json").read_text())["offsets"] == {f"{spool.topic}/0": 60}


def test_a_spool_that_is_not_there_is_one_sentence(tmp_path, broker):
    with pytest.raises(UnavailableError, match="there is no log in"):
        Shipper(tmp_path / "absent", KafkaConfig(broker.bootstrap))


class Taking:
    """A client whose broker takes everything at once; `sent` has when, and the number of each frame by topic."""

    errors = waiting = 0

    def __init__(self, _, on_ack):
        self._on_ack, self._taken, self.sent = on_ack, [], []

    def room(self):
        return True

    def send(self, token, topic, _, value):
        self.sent.append((time.monotonic(), topic, decode(value).number))
        self._taken.append(token)
        self._on_ack()

    def acked(self):
        taken, self._taken = self._taken, []
        return taken

    def close(self):
        pass


@pytest.fixture
def shipper(tmp_path, monkeypatch):
    """Give a log and a function that appends a frame to a topic of it and hints at that, and what is sent of it."""
    monkeypatch.setattr(ship, "FrameProducer", Taking)
    monkeypatch.setattr(ship, "verify_topic", lambda *_: None)
    log = writer(tmp_path)
    made = Shipper(tmp_path, KafkaConfig("nobody:1"))
    ours, theirs = os.pipe()
    stdin = os.dup(0)
    os.dup2(ours, 0)
    thread = threading.Thread(target=made.run)
    thread.start()

    def append(topic, number):
        log.append(topic, frame(number))
        log.sync()
        os.write(theirs, b"\n")

    try:
        yield append, made._producer.sent
    finally:
        os.close(theirs)
        thread.join(20)
        os.dup2(stdin, 0)
        os.close(stdin)
        os.close(ours)
        made.close()
        log.close()


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_trace_events_wait_for_company_and_the_kernel_log_does_not_wait_for_them(shipper):
    append, sent = shipper
    for number in range(0, 20, 2):
        time.sleep(0.3)
        begin = len(sent)
        append(TOPIC_TRACE, number)
        until(lambda begin=begin: len(sent) == begin + 1)
        append(TOPIC_TRACE, number + 1)
        append(TOPIC_LOG, number)
        until(lambda begin=begin: len(sent) == begin + 3)
        (first_s, *_), (log_s, *log), (last_s, *_) = sent[begin:]
        # A machine that was busy for a quarter of a second has seen nothing.
        if log == [TOPIC_LOG, number] and log_s - first_s < 0.1 and last_s - first_s > 0.2:
            return
    raise AssertionError(sent)
