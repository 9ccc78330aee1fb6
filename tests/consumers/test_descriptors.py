"""Descriptors by their hash: those that came, and those that the lake keeps."""

import pytest

from consumers import descriptors
from consumers.decode.base import FrameIn
from consumers.descriptors import Descriptors
from consumers.lake.storage import MemoryStorage
from consumers.transport.base import Partition
from schemas import ftrace
from tests.consumers import _pages
from tests.consumers._frames import frame
from tests.consumers._pages import FORMATS, described, page, paged


@pytest.fixture
def storage():
    made = MemoryStorage()
    yield made
    made.close()


def naming(*bodies):
    return [FrameIn(paged(0, [page(1)], body=body), 0, Partition("t", 0), 0) for body in bodies]


def test_what_came_is_known_and_what_nobody_sent_is_left_out(storage):
    held = Descriptors(storage)
    held.note(described())
    held.note(frame(0, 1, 0))
    absent = _pages.formats({})
    assert held.named_by(naming(FORMATS, absent)) == {ftrace.descriptor(FORMATS): FORMATS}
    assert held.named_by([FrameIn(frame(0, 1, 0), 0, Partition("t", 0), 0)]) == {}


def test_the_latest_stay_in_memory(storage, monkeypatch):
    monkeypatch.setattr(descriptors, "_HELD_MAX", 2)
    held = Descriptors(storage)
    bodies = [_pages.formats({}, clock=name) for name in ("a", "b", "c")]
    for i, body in enumerate(bodies):
        held.note(described(i, body=body))
    assert set(held.named_by(naming(*bodies)).values()) == set(bodies[1:])
