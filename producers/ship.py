"""The agent's child that ships the spool to Kafka: `python -m producers.ship --log DIR --config-json JSON`.

Standard input is a pipe from the agent: a byte says that there is new data, end of file that the agent is gone.
What is acknowledged is kept in DIR/shipped.json; frames are sent as they lie in the spool.
"""

import argparse
import contextlib
import fcntl
import gc
import json
import logging
import os
import select
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from producers.kafka import FrameProducer, verify_topic
from schemas import frame as frames
from schemas import log_dir, logs
from schemas.crashpoints import crash_point
from schemas.errors import BadInputError, HypocenterError, LockedError, StorageError, UnavailableError
from schemas.frame import Frame
from schemas.kafka_config import KafkaConfig
from schemas.log_cursor import LogCursor, OvertakenError
from schemas.loss import Loss, LossKind
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION

log = logging.getLogger(__name__)
_READ_BYTES: Final = 1 << 20
_SAVE_S: Final = 1.0
# Frames that follow one another sooner share a request: a request costs a Kafka client as much as encoding its frames.
_GATHER_S: Final = 0.05
_FULL_BYTES: Final = 256 << 10
_IDLE_S: Final = 30.0
_GOODBYE_S: Final = 8.0
# The shipper of an agent that was killed says goodbye first.
_LOCK_S: Final = _GOODBYE_S + 1.0
_LOCK_RETRY_S: Final = 0.05


@dataclass(slots=True)
class _Ack:
    """What an acknowledged frame moves forward; `offset` None where it is no frame of the spool."""

    where: str
    offset: int | None
    stream: Stream | None
    next: int


class Shipper:
    """Ships every partition of the log in `directory`; holds its lock until `close`.

    Raises:
        UnavailableError: there is no such log, or no broker answers.
        LockedError: another shipper reads it.
        StorageError: the disk refuses.
    """

    def __init__(self, directory: Path, config: KafkaConfig) -> None:
        self._dir = directory
        self._config = config
        self._run = f"ship-{log_dir.read_identity(directory).id}"
        self._lock = _claim(directory)
        self._ack_read, self._ack_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._offsets: dict[str, int] = {}
        self._streams: dict[Stream, int] = {}
        self._cursors: dict[str, LogCursor] = {}
        self._read: dict[str, int] = {}
        self._overtaken: set[str] = set()
        self._dirty, self._saved_s = False, 0.0
        with contextlib.ExitStack() as undo:
            undo.callback(self._release)
            self._forgot = not self._load()
            self._sent = dict(self._streams)
            self._producer = FrameProducer(config, on_ack=self._wake)
            undo.pop_all()

    def run(self) -> None:
        """Ship until standard input ends, then what is left for some seconds.

        Raises:
            UnavailableError: the broker did not take all of it.
        """
        deadline_s = None
        hinted, send_s = True, 0.0  # whether there may be something to send; not before then
        while deadline_s is None or time.monotonic() < deadline_s:
            now_s = time.monotonic()
            if hinted and self._producer.room() and (now_s >= send_s or deadline_s is not None):
                size_bytes = self._send()
                hinted = size_bytes > 0
                send_s = now_s if size_bytes > _FULL_BYTES else now_s + _GATHER_S
            self._take_acks()
            if deadline_s is not None and not hinted and not self._producer.waiting:
                break
            gathering = deadline_s is None and hinted and self._producer.room()
            # Nothing to do until the next sending: what a hint would say is known, and acknowledgements can wait.
            inputs = [] if gathering else [self._ack_read]
            if deadline_s is None and not gathering:
                inputs.append(0)
            ready, _, _ = select.select(inputs, [], [], self._wait_s(hinted, send_s, deadline_s))
            if self._ack_read in ready:
                os.read(self._ack_read, 4096)
            if 0 in ready:
                hinted = True
                if not os.read(0, 65536):
                    deadline_s = time.monotonic() + _GOODBYE_S
        else:
            self._save()
            raise UnavailableError(f"{self._producer.waiting} frames or more wait in the spool for a broker")
        self._save()

    def close(self) -> None:
        """Release client, files and lock."""
        self._producer.close()
        for cursor in self._cursors.values():
            cursor.close()
        self._release()

    def _wait_s(self, hinted: bool, send_s: float, deadline_s: float | None) -> float:
        if hinted and self._producer.room():
            return 0.0 if deadline_s is not None else max(0.0, send_s - time.monotonic())
        return _SAVE_S if hinted or self._producer.waiting or self._dirty else _IDLE_S

    def _release(self) -> None:
        for descriptor in (self._ack_read, self._ack_write, self._lock):
            os.close(descriptor)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._ack_write, b"\n")

    # Returns how many bytes were read; a hint without anything to read may be for a partition that is new.
    def _send(self) -> int:
        size_bytes = self._send_known()
        if not size_bytes:
            self._find()
            size_bytes = self._send_known()
        return size_bytes

    def _send_known(self) -> int:
        size_bytes = 0
        for where, cursor in self._cursors.items():
            if not self._producer.room():
                break
            if where in self._overtaken:
                self._account(where, cursor)
                self._overtaken.discard(where)
            try:
                entries = cursor.read(_READ_BYTES)
            except OvertakenError:
                self._overtaken.add(where)
                size_bytes += 1  # its account comes at the next turn
                continue
            for offset, _, payload in entries:
                self._ship(where, offset, payload)
                size_bytes += len(payload) + 1  # what is lost has no bytes, but was read
        return size_bytes

    def _find(self) -> None:
        for path in self._dir.glob("*/*/end"):
            where = f"{path.parent.parent.name}/{path.parent.name}"
            if where not in self._cursors:
                topic, number = where.split("/")
                verify_topic(self._config, topic)
                cursor = LogCursor(self._dir, topic, int(number))
                # Without a memory of what was shipped, nothing can be said of what is no longer here.
                self._read[where] = self._offsets.get(where, cursor.position if self._forgot else 0)
                if cursor.start_offset() <= self._read[where]:
                    cursor.seek(self._read[where])
                else:
                    self._overtaken.add(where)
                self._cursors[where] = cursor

    def _ship(self, where: str, offset: int, payload: bytes) -> None:
        try:
            stream, position = frames.decode_reach(payload)
            ack, key = _Ack(where, offset + 1, stream, position), stream.machine.encode()
            self._sent[stream] = position
        except BadInputError:
            # The collector makes a dead letter of it.
            ack, key = _Ack(where, offset + 1, None, 0), b""
        self._read[where] = offset + 1
        self._producer.send(ack, where.partition("/")[0], key, payload)
        crash_point("ship:sent")

    # Retention evicted what was not shipped: say so, stream by stream. The number is the spool's start, so the same
    # account sent twice is recognised.
    def _account(self, where: str, cursor: LogCursor) -> None:
        start = cursor.start_offset()
        cursor.seek(start)
        self._read[where] = start
        for stream, position in cursor.segment_positions().items():
            known = self._sent.get(stream)
            if known is not None and known >= position:
                continue
            loss = Loss(LossKind.DROP, position, None, "spool-full", "shipper")
            if known is not None:
                loss = Loss(LossKind.DROP, known, position - known, "spool-full", "shipper")
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
                [loss],
                realtime_ns=time.time_ns(),
            )
            log.error("the spool gave up frames of %s before position %d", stream.surface, position)
            self._sent[stream] = position
            ack = _Ack(where, None, stream, position)
            self._producer.send(ack, where.partition("/")[0], stream.machine.encode(), frames.encode(frame))

    def _take_acks(self) -> None:
        for ack in self._producer.acked():
            if ack.offset is not None:
                self._offsets[ack.where] = ack.offset
            if ack.stream is not None:
                self._streams[ack.stream] = ack.next
            self._dirty = True
            crash_point("ship:acked")
        if self._dirty and time.monotonic() - self._saved_s >= _SAVE_S:
            self._save()

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

    def _save(self) -> None:
        state = {
            "run": self._run,
            "offsets": self._offsets,
            "streams": [[*stream, at] for stream, at in self._streams.items()],
        }
        self._saved_s = time.monotonic()
        try:
            part = self._dir / "shipped.json.part"
            part.write_text(json.dumps(state), encoding="utf-8")
            part.replace(self._dir / "shipped.json")
            self._dirty = False
            crash_point("ship:saved")
        except OSError as e:
            log.warning("%s: what is acknowledged cannot be noted: %s", self._dir, e.strerror)
        # Also on a full disk, which needs it most: the broker has these, and an older note only sends some again.
        try:
            self._evict()
        except OSError as e:
            log.warning("%s: what is acknowledged cannot be deleted: %s", self._dir, e.strerror)

    def _evict(self) -> None:
        for where, offset in self._offsets.items():
            segments = sorted((self._dir / where).glob("*.seg"))
            for segment, after in pairwise(segments):
                if int(after.stem) <= offset:
                    segment.unlink(missing_ok=True)
                    crash_point("ship:evicted")


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


def main() -> int:
    """Run the shipper; the exit code is that of the error that ended it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True, metavar="DIR")
    parser.add_argument("--config-json", required=True, metavar="JSON")
    args = parser.parse_args()
    logs.setup()
    try:
        shipper = Shipper(args.log, KafkaConfig(**json.loads(args.config_json)))
        gc.freeze()  # what libraries have made stays: not to be searched for garbage again and again
        try:
            shipper.run()
        finally:
            shipper.close()
    except HypocenterError as e:
        log.error("%s", e)  # noqa: TRY400
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
