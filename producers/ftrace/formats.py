"""The stream of a set's descriptions: what decoding its pages takes, before the first page and at every change."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from producers.ftrace import events as ftrace_events
from producers.ftrace import instance as ftrace_instance
from producers.ftrace.instance import Instance
from producers.ftrace.session import Session
from producers.source import Batch
from schemas import ftrace, limits
from schemas.errors import UsageError
from schemas.stream import Stream

log = logging.getLogger(__name__)
#: Seconds between looks at whether an event was taken away or came again: one stat(2) for each event.
_LOOK_S: Final = 5.0
_ID: Final = re.compile(r"^ID:\s*(\d+)", re.MULTILINE)


class FormatsSource:
    """Descriptions of the rings of `instances`, of which `own` records now; position `sent` is the next one's.

    Pages name a description only when it was cut: so this source is cut before those of pages. Before a change is
    described `seal` is called, so that what was read names the description by which it was recorded.

    Raises:
        UsageError: the description is too long for a frame.
    """

    encoding = ftrace.FORMATS_ENCODING
    encoding_version = ftrace.FORMATS_VERSION

    def __init__(
        self,
        stream: Stream,
        instances: list[Instance],
        own: Instance | None,
        sent: int,
        session: Session,
        seal: Callable[[], None] = lambda: None,
    ) -> None:
        self.stream = stream
        self.tick_s: float | None = _LOOK_S
        self._session = session
        self._own = own
        self._seal = seal
        self._next = sent
        self._sent: set[bytes] = set()
        self._pending: list[_Description] = []
        self._formats: dict[str, str] = {}
        self._marks: tuple[int, ...] = ()
        self._counters = {"records": 0, "changes": 0}
        for instance in instances:
            self._describe(instance)

    def fileno(self) -> int:
        """Return -1: nothing tells of a change."""
        return -1

    def alive(self) -> bool:
        """Return whether the set is being watched, and not only read to its end."""
        return self._own is not None or bool(self._pending)

    def drain(self) -> bool:
        """See whether an event came again with its module: then it is recorded again and described anew."""
        own = self._own
        if own is None:
            return False
        marks = ftrace_events.marks(own.path / "events", own.events)
        if marks != self._marks:
            before = dict(zip(own.events, self._marks, strict=True))
            came = [event for event, mark in zip(own.events, marks, strict=True) if mark not in (0, before[event])]
            self._describe(own, came)
            self._counters["changes"] += 1
        return False

    def pending_bytes(self) -> int:
        """Return the size of the descriptions not yet cut."""
        return sum(len(each.body) for each in self._pending)

    def cut(self) -> list[Batch]:
        """Return a batch for each description that was not sent in this run."""
        pending, self._pending = self._pending, []
        batches = []
        for body, instance, came in pending:
            if instance.descriptor is not None:
                self._seal()
            instance.descriptor = ftrace.descriptor(body)
            if instance.descriptor not in self._sent:
                self._sent.add(instance.descriptor)
                now_ns = time.monotonic_ns()
                batches.append(Batch(self._next, self._next + 1, 1, body, [], now_ns, now_ns, instance.descriptor))
                self._next += 1
            # Only now: from then on pages hold them.
            for event in came:
                self._enable(instance, event)
        self._counters["records"] += len(batches)
        return batches

    def next_position(self) -> int:
        """Return how many descriptions were cut, over all runs."""
        return self._next

    def counters(self) -> dict[str, int]:
        """Return the descriptions cut in this run, and how often an event was found gone or new."""
        return dict(self._counters)

    def stop(self) -> None:
        """Do nothing: descriptions end when their pages do."""

    def give_up(self) -> None:
        """Do nothing: nothing waits in the kernel."""

    def close(self) -> None:
        """Let go of the set."""
        self._session.release(self)

    def _enable(self, own: Instance, event: str) -> None:
        try:
            ftrace_instance.enable(own, event)
        except (UsageError, OSError) as e:  # the latter: it is gone again
            log.error("%s came again with its module and is traced no more: %s", event, e)  # noqa: TRY400

    # Formats of events that are gone stay, since pages that hold them may still be to come; not so where another event
    # has got the id, for which the kernel has emptied the rings.
    def _describe(self, instance: Instance, came: Sequence[str] = ()) -> None:
        marks = ftrace_events.marks(instance.path / "events", instance.events)
        formats = instance.formats()
        if instance is self._own:
            self._marks = marks
            ids = {_id(text) for text in formats.events.values()}
            gone = {name: text for name, text in self._formats.items() if _id(text) not in ids}
            formats.events = self._formats = {**gone, **formats.events}
        body = packed(instance.set_name, formats, len(instance.events))
        self._pending.append(_Description(body, instance, came))


class _Description(NamedTuple):
    """A description to be cut, and the events that are to be recorded again when it was."""

    body: bytes
    instance: Instance
    came: Sequence[str]


def packed(set_name: str, formats: ftrace.Formats, events: int) -> bytes:
    """Return the body that describes the `events` of a set.

    Raises:
        UsageError: it is too long for a frame.
    """
    body = ftrace.pack_formats(formats)
    if len(body) > limits.BODY_BYTES_MAX:
        raise UsageError(
            f"ftrace set {set_name}: {events} events are described by {len(body)} bytes, "
            f"and a frame holds {limits.BODY_BYTES_MAX}: share them out over several sets"
        )
    return body


def _id(text: str) -> str:
    found = _ID.search(text)
    return found[1] if found else text
