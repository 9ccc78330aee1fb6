"""The spool as its shipper sees it: what is deleted once it is acknowledged, and what is told of what was given up."""

import contextlib
import json

import pytest

from producers.spool import Spool
from schemas.frame import decode
from schemas.loss import Loss
from schemas.surfaces import TOPIC_TRACE
from tests._logs import STREAM, TOPIC, frame, segments, writer

SMALL = 560  # four entries to a segment


@pytest.fixture
def log(tmp_path):
    with contextlib.closing(writer(tmp_path, segment_bytes=SMALL)) as made:
        yield made


def opened(folder):
    return contextlib.closing(Spool(folder))


def bases(folder):
    return [int(each.stem) for each in segments(folder)]


def append(log, numbers):
    for n in numbers:
        log.append(TOPIC, frame(n))
        log.sync()


def read(spool):
    found = []
    while some := list(spool.read(1 << 20, lambda: True)):
        found += some
    return found


def test_segments_go_as_soon_as_all_they_hold_is_acknowledged(log, tmp_path):
    append(log, range(10))
    assert bases(tmp_path) == [0, 4, 8]
    with opened(tmp_path) as spool:
        # Read to the end, acknowledged one by one: what was read says nothing of what has arrived.
        for done, left in zip(read(spool), [[0, 4, 8]] * 3 + [[4, 8]] * 4 + [[8]] * 3, strict=True):
            spool.acknowledge(done)
            spool.save()
            assert bases(tmp_path) == left
        append(log, range(10, 14))
        for done, left in zip(read(spool), [[8, 12], [12], [12], [12]], strict=True):
            spool.acknowledge(done)
            spool.save()
            assert bases(tmp_path) == left


def test_what_a_shipper_did_not_come_to_delete_the_next_one_does(log, tmp_path):
    append(log, range(6))
    with opened(tmp_path) as spool:
        for done in read(spool):
            spool.acknowledge(done)
        lies = {each: each.read_bytes() for each in segments(tmp_path)}
        spool.save()
        assert bases(tmp_path) == [4]
    for path, data in lies.items():
        path.write_bytes(data)
    append(log, [6])
    with opened(tmp_path) as spool:
        (done,) = read(spool)
        spool.acknowledge(done)
        spool.save()
    assert bases(tmp_path) == [4]


OTHER = STREAM._replace(instance="other")


def told(shipments):
    """Return of each frame its number, and of each account of what was given up its losses by instance."""
    for each in shipments:
        made = decode(each.payload)
        yield (each.stream.instance, made.losses) if each.offset is None else made.number


def given_up(position, count):
    return [Loss("drop", position, count, "spool-full", "shipper")]


def acknowledged(folder, count):
    with opened(folder) as spool:
        for done in read(spool)[:count]:
            spool.acknowledge(done)
        spool.save()


def evict(folder, topic=TOPIC):
    segments(folder, topic)[0].unlink()


def test_what_was_evicted_is_told_from_what_is_acknowledged_on(log, tmp_path):
    append(log, range(10))
    acknowledged(tmp_path, 2)
    evict(tmp_path)
    with opened(tmp_path) as spool:
        assert list(told(read(spool))) == [("", given_up(20, 20)), *range(4, 10)]


def test_what_rings_had_lost_by_what_was_evicted_nobody_knows_any_more(log, tmp_path):
    for n in range(10):
        log.append(TOPIC_TRACE, frame(n, stream=STREAM._replace(surface="bpf")))
        log.sync()
    acknowledged(tmp_path, 2)
    evict(tmp_path, TOPIC_TRACE)
    lost = [*given_up(20, 20), Loss("drop", 40, None, "spool-full", "shipper", "event")]
    with opened(tmp_path) as spool:
        assert next(told(read(spool))) == ("", lost)


def test_without_a_note_of_anything_nobody_knows_how_much_was_evicted(log, tmp_path):
    append(log, range(10))
    evict(tmp_path)
    with opened(tmp_path) as spool:
        assert list(told(read(spool))) == [("", given_up(40, None)), *range(4, 10)]


def test_of_a_damaged_note_no_loss_follows(log, tmp_path):
    append(log, range(10))
    acknowledged(tmp_path, 2)
    evict(tmp_path)
    (tmp_path / "shipped.json").write_bytes(b"{")
    with opened(tmp_path) as spool:
        assert list(told(read(spool))) == [*range(4, 10)]


def test_a_note_of_another_log_that_lay_here_says_nothing(log, tmp_path):
    append(log, range(10))
    acknowledged(tmp_path, 9)
    note = json.loads((tmp_path / "shipped.json").read_bytes())
    (tmp_path / "shipped.json").write_text(json.dumps(note | {"run": "ship-another"}))
    with opened(tmp_path) as spool:
        assert list(told(read(spool)))[-2:] == [8, 9]


def test_a_stream_all_of_which_arrived_has_lost_nothing(log, tmp_path):
    log.append(TOPIC, frame(0, stream=OTHER))
    append(log, range(9))
    acknowledged(tmp_path, 1)
    evict(tmp_path)
    with opened(tmp_path) as spool:
        assert [each for each in told(read(spool)) if isinstance(each, tuple)] == [("", given_up(30, None))]


def test_what_was_read_and_not_acknowledged_before_it_was_evicted_is_a_loss(log, tmp_path):
    append(log, range(10))
    with opened(tmp_path) as spool:
        for done in read(spool)[:2]:
            spool.acknowledge(done)
        evict(tmp_path)
        spool.rewind()
        assert list(told(read(spool))) == [("", given_up(20, 20)), *range(4, 10)]
