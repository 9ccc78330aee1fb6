"""Descriptions of a set whose modules come and go, on an instance that is written by hand."""

import dataclasses

import pytest

from producers.ftrace import events as ftrace_events
from producers.ftrace import formats as ftrace_formats
from producers.ftrace import instance as ftrace_instance
from producers.ftrace.formats import FormatsSource
from schemas import ftrace
from schemas.stream import Stream

STREAM = Stream("m", "b", "guest-kernel", "ftrace", "set", "mono")


def text(name, number):
    return f"name: {name}\nID: {number}\nformat:\n"


@dataclasses.dataclass
class Ring:
    """What a FormatsSource asks of an instance; `ids` are those of the events that are there."""

    path: object
    ids: dict
    events: tuple = ("s:a", "s:b")
    set_name: str = "set"
    descriptor: bytes | None = None

    def formats(self):
        events = {event: text(event[2:], self.ids[event]) for event in self.events if event in self.ids}
        return ftrace.Formats("", "mono", 4096, "little", 8, events)


@pytest.fixture
def ring(tmp_path, monkeypatch):
    made = Ring(tmp_path, {"s:a": 1500, "s:b": 1501})
    monkeypatch.setattr(ftrace_events, "marks", lambda _, events: tuple(made.ids.get(event, 0) for event in events))
    return made


class Session:
    def release(self, source):
        pass


def test_what_was_read_before_a_change_names_the_old_description_and_what_comes_again_is_recorded_last(
    ring, monkeypatch
):
    log = []
    monkeypatch.setattr(ftrace_instance, "enable", lambda _, event: log.append(("enable", event, ring.descriptor)))
    source = FormatsSource(STREAM, [ring], ring, 0, Session(), lambda: log.append(("seal", ring.descriptor)))
    (first,) = source.cut()
    del ring.ids["s:b"]
    source.drain()
    assert source.cut() == []
    log.clear()
    ring.ids["s:b"] = 1502
    source.drain()
    assert (log, ring.descriptor) == ([], first.descriptor)
    (second,) = source.cut()
    assert log == [("seal", first.descriptor), ("enable", "s:b", second.descriptor)]
    assert ring.descriptor == second.descriptor != first.descriptor


def test_a_format_goes_when_another_event_has_its_id(ring, monkeypatch):
    monkeypatch.setattr(ftrace_instance, "enable", lambda *_: None)
    source = FormatsSource(STREAM, [ring], ring, 0, Session())
    source.cut()
    ring.ids = {}
    source.drain()
    assert source.cut() == []
    ring.ids = {"s:b": 1500}
    source.drain()
    (told,) = source.cut()
    assert ftrace.unpack_formats(told.body).events == {"s:b": text("b", 1500)}


def test_a_ring_that_is_only_read_to_its_end_is_looked_at_once(ring, monkeypatch):
    source = FormatsSource(STREAM, [ring], None, 4, Session())
    assert source.alive()
    (told,) = source.cut()
    assert (told.first, told.next, ring.descriptor) == (4, 5, told.descriptor)
    monkeypatch.setattr(ftrace_events, "marks", None)
    ring.ids = {}
    assert source.drain() is source.alive() is False


def test_a_description_that_no_frame_holds_is_refused(ring, monkeypatch):
    monkeypatch.setattr(ftrace_formats.limits, "BODY_BYTES_MAX", 10)
    with pytest.raises(ftrace_formats.UsageError, match="share them out over several sets"):
        FormatsSource(STREAM, [ring], ring, 0, Session())
