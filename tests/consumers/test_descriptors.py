"""Descriptors by their hash: those that came, and those that the lake keeps."""

import contextlib

import pytest

from consumers import descriptors
from consumers.decode import ftrace_formats
from consumers.decode.base import FrameIn
from consumers.descriptors import Descriptors
from consumers.lake.storage import MemoryStorage
from consumers.lake.writer import Batch, CommitWriter
from consumers.transport.base import Partition
from schemas import ftrace
from tests.consumers import _pages
from tests.consumers._frames import frame
from tests.consumers._pages import FORMATS, described
from tests.consumers.lake._lakes import chain

# A snapshot lists manifests, then commits, then manifests again.
A_LOOK = 3


@pytest.fixture
def storage():
    made = MemoryStorage()
    yield made
    made.close()


def found(held, *bodies):
    """Those of `bodies` that are known by their hash."""
    known = []
    for body in bodies:
        with contextlib.suppress(KeyError):
            known.append(held[ftrace.descriptor(body)])
    return known


def test_what_came_is_known_and_what_nobody_sent_is_left_out(storage):
    held = Descriptors(storage)
    held.note(described())
    held.note(frame(0, 1, 0))
    absent = _pages.formats({})
    assert found(held, FORMATS, absent) == [FORMATS]
    assert dict(held) == {ftrace.descriptor(FORMATS): FORMATS}


@pytest.mark.parametrize("name", [b"", b"x", bytes(8), bytes(33)])
def test_what_is_no_hash_is_nobodys(storage, name):
    assert name not in Descriptors(storage)


@pytest.fixture
def bodies():
    return [_pages.formats({}, clock=name) for name in ("a", "b", "c")]


def test_the_newest_stay_in_memory_up_to_a_bound_of_bytes(storage, bodies, monkeypatch):
    monkeypatch.setattr(descriptors, "_SENT_BYTES_MAX", len(bodies[1]) + len(bodies[2]))
    held = Descriptors(storage)
    for i, body in enumerate([*bodies, bodies[2]]):
        held.note(described(i, body=body))
    assert found(held, *bodies) == bodies[1:]


def test_more_than_memory_holds_are_all_found_in_the_lake(storage, bodies, monkeypatch):
    items = [FrameIn(described(i, body=body), 0, Partition("t", 0), i) for i, body in enumerate(bodies)]
    tables = ftrace_formats.decode_many(items, {}).tables
    assert CommitWriter(storage).commit(chain(storage), Batch(0, 3, tables, {}, {}))
    monkeypatch.setattr(descriptors, "_LOADED_BYTES_MAX", len(bodies[0]))
    held = Descriptors(storage)
    for _ in range(2):
        assert found(held, *bodies) == bodies


def test_names_that_nobody_has_cost_one_look_a_second(storage, bodies, monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(descriptors.time, "monotonic", lambda: now_s[0])
    held = Descriptors(storage)
    assert found(held, *bodies) == []
    assert storage.lists == A_LOOK
    owner = chain(storage)
    for i, body in enumerate(bodies):
        items = [FrameIn(described(i, body=body), 0, Partition("t", 0), i)]
        tables = ftrace_formats.decode_many(items, {}).tables
        assert CommitWriter(storage).commit(owner, Batch(i, i + 1, tables, {}, {}))
    lists = storage.lists
    assert found(held, *bodies) == []
    assert storage.lists == lists
    now_s[0] += 1
    assert found(held, *bodies) == bodies
    assert found(held, _pages.formats({}, clock="d")) == []
    assert storage.lists == lists + A_LOOK
