"""What machines may bring: as much as any kernel has, and not what would be everybody's to carry."""

import logging

import pytest

from consumers import kinds
from consumers.kinds import Kinds


@pytest.fixture(autouse=True)
def few(monkeypatch):
    for name, value in (("OF_MACHINE_MAX", 4), ("OF_PARTITION_MAX", 10), ("OF_TABLE_MAX", 5)):
        monkeypatch.setattr(kinds, name, value)
    monkeypatch.setattr(kinds, "OF_TABLE_AND_MACHINE_MAX", 2)


def test_a_machine_may_use_what_others_brought_when_it_has_no_room(caplog):
    known = Kinds({})
    assert all(known.admit(["a"], f"trace_{i}", "c") for i in range(4))
    with caplog.at_level(logging.WARNING):
        assert [known.admit(["a"], "trace_4", "c") for _ in range(3)] == [False] * 3
    assert caplog.text.count("machine a has brought 4 kinds") == 1
    assert known.admit(["b"], "trace_4", "c")
    assert known.admit(["a"], "trace_4", "c")
    assert known.admit(["a", "b"], "trace_5", "c")
    assert known.take_new() == {**{f"trace_{i}:c": "a" for i in range(4)}, "trace_4:c": "b", "trace_5:c": "b"}
    assert known.take_new() == {}


def test_columns_of_one_table_are_bounded_for_a_machine_and_for_all():
    known = Kinds({})
    assert [known.admit(["a"], "trace_x", f"c{i}") for i in range(3)] == [True, True, False]
    assert known.admit(["a"], "trace_y", "c0")
    assert [known.admit([f"b{i}"], "trace_x", f"d{i}") for i in range(4)] == [True, True, True, False]
    assert known.admit(["b3"], "trace_x", "c1")


def test_a_partition_is_bounded_whoever_invents_machines():
    known = Kinds({})
    assert [known.admit([f"m{i}"], f"trace_{i}", "c") for i in range(12)] == [True] * 10 + [False] * 2


def test_whoever_invents_machines_has_no_line_for_each(monkeypatch, caplog):
    monkeypatch.setattr(kinds, "_TOLD_MAX", 3)
    known = Kinds({f"trace_{i}:c": "a" for i in range(10)})
    with caplog.at_level(logging.WARNING):
        assert not any(known.admit([f"m{i}", f"n{i}"], "trace_x", "c") for i in range(5))
    assert len(caplog.records) == 3


def test_what_is_noted_holds_after_a_restart_and_asking_notes_nothing():
    known = Kinds({f"trace_{i}:c": "a" for i in range(3)})
    assert known.has_room(["a"], "trace_3", "c")
    assert known.admit(["a"], "trace_3", "c")
    assert not known.has_room(["a"], "trace_4", "c")
    assert known.has_room(["a"], "trace_3", "c")
    assert known.take_new() == {"trace_3:c": "a"}
