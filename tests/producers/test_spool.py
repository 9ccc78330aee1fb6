"""The spool as its shipper sees it: which segments are deleted once what they hold is acknowledged."""

import contextlib

import pytest

from producers.spool import Spool
from tests._logs import TOPIC, frame, segments, writer

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
