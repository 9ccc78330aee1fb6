"""How long the oldest frame of a spool waits: frames with known append times, and a shipper's notes written by hand."""

import json

import pytest

from producers import unshipped
from producers.unshipped import Unshipped
from tests._logs import TOPIC, frame, writer

S = 10**9


class Spool:
    def __init__(self, path):
        self.path, self.now_ns, self.number = path, 1000 * S, 0
        self.log = writer(path, segment_bytes=1 << 14, clock=lambda: self.now_ns)

    def append(self, count, topic=TOPIC):
        for _ in range(count):
            self.log.append(topic, frame(self.number))
            self.number += 1
        self.log.sync()

    def shipped(self, offset, topic=TOPIC):
        note = {"run": "r", "offsets": {f"{topic}/0": offset}, "streams": []}
        (self.path / "shipped.json").write_text(json.dumps(note))


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path / "spool")
    yield made
    made.log.close()


def test_an_empty_spool_has_nothing_that_waits(spool):
    assert Unshipped(spool.path).oldest_ns(spool.now_ns) is None


def test_what_waited_before_anybody_looked_has_its_time_of_append(spool):
    for _ in range(50):
        spool.append(1)
        spool.now_ns += S
    assert Unshipped(spool.path).oldest_ns(2000 * S) == 1000 * S
    spool.shipped(20)
    assert Unshipped(spool.path).oldest_ns(2000 * S) == 1020 * S
    spool.shipped(50)
    assert Unshipped(spool.path).oldest_ns(2000 * S) is None


def looked_at(spool):
    """Return who has seen the spool with one frame, which was shipped."""
    spool.append(1)
    spool.shipped(1)
    seen = Unshipped(spool.path)
    assert seen.oldest_ns(1000 * S) is None
    return seen


def test_later_frames_wait_since_they_were_first_seen(spool):
    seen = looked_at(spool)
    for at_s in range(1010, 1100, 10):
        spool.append(1)
        assert seen.oldest_ns(at_s * S) == 1010 * S
    spool.shipped(4)  # the first, and those seen at 1010, 1020 and 1030
    assert seen.oldest_ns(1100 * S) == 1040 * S
    spool.shipped(10)
    assert seen.oldest_ns(1110 * S) is None
    spool.append(1)
    assert seen.oldest_ns(1120 * S) == 1120 * S


def test_the_oldest_of_all_topics_counts(spool):
    seen = Unshipped(spool.path)
    spool.append(1)
    assert seen.oldest_ns(1010 * S) == 1000 * S
    spool.append(1, "hypocenter.state")
    spool.shipped(1)
    assert seen.oldest_ns(1020 * S) == 1000 * S  # found in its partition when that was first looked at


def test_looks_are_bounded_and_the_oldest_stays(spool, monkeypatch):
    monkeypatch.setattr(unshipped, "LOOKS_MAX", 8)
    seen = looked_at(spool)
    for at_s in range(1001, 1101):
        spool.append(1)
        assert seen.oldest_ns(at_s * S) == 1001 * S
    assert len(seen._looks[f"{TOPIC}/0"]) <= 8
    spool.shipped(60)
    assert 1001 * S < seen.oldest_ns(1101 * S) <= 1101 * S


@pytest.mark.parametrize("text", ["", "{", "[]", '{"offsets": 7}', '{"offsets": {"x": "y"}}'])
def test_damaged_notes_mean_that_everything_waits(spool, text):
    spool.append(3)
    (spool.path / "shipped.json").write_text(text)
    assert Unshipped(spool.path).oldest_ns(2000 * S) == 1000 * S


def test_what_retention_deleted_does_not_wait(spool):
    for _ in range(400):
        spool.append(1)
        spool.now_ns += S
    oldest = sorted((spool.path / TOPIC / "0").glob("*.seg"))
    assert len(oldest) > 2
    oldest[0].unlink()
    assert Unshipped(spool.path).oldest_ns(9000 * S) == (1000 + int(oldest[1].stem)) * S
