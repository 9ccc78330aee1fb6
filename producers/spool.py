"""A spool as the process that ships it sees it: what comes next, what is acknowledged, what was given up unsent.

What is acknowledged is kept in DIR/shipped.json, and segments below it are deleted; frames are shipped as they lie in
the spool. Where retention was faster than the shipper, what it missed is said stream by stream, with exact positions.
"""

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from producers.durable import write_at
from schemas import frame as frames
from schemas import log_dir
from schemas.crashpoints import crash_point
from schemas.errors import BadInputError, LockedError, StorageError
from schemas.frame import SHIPPER_RUN, Frame
from schemas.log_cursor import LogCursor, OvertakenError
from schemas.loss import Loss, LossKind, LossUnit
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION, TOPIC_TRACE

log = logging.getLogger(__name__)
#: How often what is acknowledged is noted.
SAVE_S: Final = 1.0
#: How long a shipper takes to say goodbye, at most.
GOODBYE_S: Final = 8.0
# The shipper of an agent that was killed says goodbye first.
_LOCK_S: Final = GOODBYE_S + 1.0
_LOCK_RETRY_S: Final = 0.05
# A spool's topics have one partition each.
_NUMBER: Final = 0


@dataclass(slots=True)
class Shipment:
    """One frame to ship, from the partition `where` (TOPIC/NUMBER), and what its acknowledgement moves forward.

    `offset` is the one behind it in the spool, None where it is no frame of the spool but says what that gave up right
    before `before`; `stream` and `next` are None and 0 where the spool's bytes are damaged and no frame.
    """

    where: str
    offset: int | None
    stream: Stream | None
    next: int
    payload: bytes
    before: int
    #: Of an account of what was given up: how many positions, None where nobody knows.
    given_up: int | None = 0

    @property
    def topic(self) -> str:
        """The topic whose frame it is."""
        return self.where.partition("/")[0]


class Spool:
    """The log in `directory` to ship; holds the shippers' lock until `close`. `on_found` hears of each topic once.

    Raises:
        UnavailableError: there is no such log.
        LockedError: another shipper reads it.
        StorageError: the disk refuses.
    """

    def __init__(self, directory: Path, on_found: Callable[[str], None] | None = None) -> None:
        self._dir = directory
        self._on_found = on_found
        self.id = log_dir.read_identity(directory).id
        self._run = f"{SHIPPER_RUN}{self.id}"
        self._lock = _claim(directory)
        self._offsets: dict[str, int] = {}
        self._streams: dict[Stream, int] = {}
        self._cursors: dict[str, LogCursor] = {}
        self._overtaken: set[str] = set()
        self._evicted: dict[str, int] = {}  # by partition: of the segment below which none is left, its first offset
        self._saved_s = 0.0
        #: Whether an acknowledgement is not yet noted.
        self.dirty = False
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._lock)
            self._forgot = not self._load()
            self._sent = dict(self._streams)
            undo.pop_all()

    def read(
        self, bytes_max: int, room: Callable[[], bool], wanted: Callable[[str], bool] = lambda _: True
    ) -> Iterator[Shipment]:
        """Yield what comes next in the `wanted` topics, about `bytes_max` of each at once, as long as there is `room`.

        Raises:
            StorageError: the disk refuses.
        """
        self._find()
        yield from self._read_known(bytes_max, room, wanted)

    def behind(self) -> bool:
        """Return whether the last `read` left something; what came since it does not know."""
        return any(cursor.behind for cursor in self._cursors.values())

    def acknowledge(self, done: Shipment) -> None:
        """Enter that `done`, and everything shipped before it from its partition, has arrived for good."""
        if done.offset is not None:
            self._offsets[done.where] = done.offset
        if done.stream is not None:
            self._streams[done.stream] = done.next
        self.dirty = True
        crash_point("ship:acked")

    def rewind(self) -> None:
        """Go back to the oldest frame that is not acknowledged, in every partition."""
        for cursor in self._cursors.values():
            cursor.close()
        self._cursors, self._overtaken = {}, set()
        self._sent = dict(self._streams)

    def ends(self) -> dict[str, int]:
        """Return by topic the offset that its partition ends at; nothing of it was ever seen beyond."""
        found = {}
        for path in self._dir.glob("*/0/end"):
            end = log_dir.read_end(path.parent)
            found[path.parent.parent.name] = end.offset if end else 0
        return found

    def save_if_due(self) -> None:
        """Note what is acknowledged, when the last note is old enough."""
        if self.dirty and time.monotonic() - self._saved_s >= SAVE_S:
            self.save()

    def save(self) -> None:
        """Note what is acknowledged, and delete the segments below it."""
        state = {
            "run": self._run,
            "offsets": self._offsets,
            "streams": [[*stream, at] for stream, at in self._streams.items()],
        }
        self._saved_s = time.monotonic()
        try:
            path = f"{self._dir}/shipped.json"
            _overwrite(path + ".part", json.dumps(state).encode())
            os.replace(path + ".part", path)  # noqa: PTH105
            self.dirty = False
            crash_point("ship:saved")
        except OSError as e:
            log.warning("%s: what is acknowledged cannot be noted: %s", self._dir, e.strerror)
        # Also on a full disk, which needs it most: an older note only sends some again.
        try:
            self._evict()
        except OSError as e:
            log.warning("%s: what is acknowledged cannot be deleted: %s", self._dir, e.strerror)

    def close(self) -> None:
        """Release files and lock."""
        for cursor in self._cursors.values():
            cursor.close()
        os.close(self._lock)

    def _read_known(
        self, bytes_max: int, room: Callable[[], bool], wanted: Callable[[str], bool]
    ) -> Iterator[Shipment]:
        for where, cursor in self._cursors.items():
            if not wanted(where.partition("/")[0]):
                continue
            if not room():
                return
            if where in self._overtaken:
                yield from self._account(where, cursor)
                self._overtaken.discard(where)
            try:
                entries = cursor.read(bytes_max)
            except OvertakenError:
                self._overtaken.add(where)
                yield from self._account(where, cursor)
                self._overtaken.discard(where)
                continue
            for offset, _, payload in entries:
                yield self._shipment(where, offset, payload)

    # At every wake-up of an idle guest: no Path for each name.
    def _find(self) -> None:
        try:
            with os.scandir(self._dir) as found:
                topics = [each.name for each in found if each.is_dir()]
        except OSError as e:
            raise StorageError(f"{self._dir}: {e.strerror}") from e
        for topic in topics:
            where = f"{topic}/{_NUMBER}"
            if where not in self._cursors and os.path.exists(f"{self._dir}/{where}/{log_dir.END}"):  # noqa: PTH110
                if self._on_found is not None:
                    self._on_found(topic)
                cursor = LogCursor(self._dir, topic, _NUMBER)
                # Without a memory of what was shipped, nothing can be said of what is no longer here.
                wanted = self._offsets.get(where, cursor.position if self._forgot else 0)
                if cursor.start_offset() <= wanted:
                    cursor.seek(wanted)
                else:
                    self._overtaken.add(where)
                self._cursors[where] = cursor

    def _shipment(self, where: str, offset: int, payload: bytes) -> Shipment:
        try:
            stream, position = frames.decode_reach(payload)
        except BadInputError:
            # Whoever reads it makes a dead letter of it.
            return Shipment(where, offset + 1, None, 0, payload, offset + 1)
        self._sent[stream] = position
        return Shipment(where, offset + 1, stream, position, payload, offset + 1)

    # Retention evicted what was not shipped: say so, stream by stream. The number is the spool's start, so the same
    # account sent twice is recognised.
    def _account(self, where: str, cursor: LogCursor) -> Iterator[Shipment]:
        start = cursor.start_offset()
        cursor.seek(start)
        for stream, position in cursor.segment_positions().items():
            known = self._sent.get(stream)
            if known is not None and known >= position:
                continue
            loss = Loss(LossKind.DROP, position, None, "spool-full", "shipper")
            if known is not None:
                loss = Loss(LossKind.DROP, known, position - known, "spool-full", "shipper")
            losses = [loss]
            if where.partition("/")[0] == TOPIC_TRACE:
                # The frames told what a ring had overwritten or refused, and nobody does now.
                losses.append(Loss(LossKind.DROP, position, None, "spool-full", "shipper", LossUnit.EVENT))
            frame = Frame(
                stream,
                self._run,
                start,
                position,
                position,
                0,
                HEARTBEAT_ENCODING,
                HEARTBEAT_VERSION,
                b"",
                losses,
                realtime_ns=time.time_ns(),
            )
            log.error("the spool gave up frames of %s before position %d", stream.surface, position)
            self._sent[stream] = position
            yield Shipment(where, None, stream, position, frames.encode(frame), start, loss.count)

    # False when the memory is damaged: then the whole spool is sent again, and the collector drops what it has.
    def _load(self) -> bool:
        path = self._dir / "shipped.json"
        try:
            state = json.loads(path.read_bytes())
            if state["run"] != self._run:
                return True  # of another log that lay here before
            offsets = {str(where): int(offset) for where, offset in state["offsets"].items()}
            streams = {Stream(*map(str, tags)): int(at) for *tags, at in state["streams"]}
        except FileNotFoundError:
            return True
        except OSError as e:
            raise StorageError(f"{path}: {e.strerror}") from e
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            log.warning("%s is damaged (%r): shipping the whole spool again", path, e)
            return False
        self._offsets, self._streams = offsets, streams
        return True

    # Only a segment behind which reading went on can be below what is acknowledged.
    def _evict(self) -> None:
        for where, offset in self._offsets.items():
            cursor = self._cursors.get(where)
            base = cursor.segment_base if cursor is not None else None
            if base is not None and self._evicted.get(where) == base:
                continue
            segments = sorted((self._dir / where).glob("*.seg"))
            for segment, after in pairwise(segments):
                if int(after.stem) <= offset:
                    segment.unlink(missing_ok=True)
                    crash_point("ship:evicted")
            if base is not None and offset >= base:
                self._evicted[where] = base


# Once in ten seconds of an idle guest: no file object of Python's around it.
def _overwrite(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        write_at(fd, data, 0)
    finally:
        os.close(fd)


def _claim(directory: Path) -> int:
    path = directory / "shipper.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as e:
        raise StorageError(f"{path}: {e.strerror}") from e
    deadline_s = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline_s:
                time.sleep(_LOCK_RETRY_S)
                continue
            os.close(lock)
            raise LockedError(f"another shipper reads {directory}") from None
        return lock
