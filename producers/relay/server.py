"""The relay on a host: one loop serves every guest's socket, a thread makes frames durable, then they are acknowledged.

A guest is read only while the disk keeps up, its rates allow it, and in turn with the others: what is not read, the
guest keeps in its own spool. So nothing is dropped here, and no guest costs another one anything.
"""

import asyncio
import contextlib
import json
import logging
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from producers import memory
from producers.log import LogWriter
from producers.relay.accounts import Accounts
from producers.relay.guest import Guest, Host
from producers.relay.history import History, recalled
from producers.relay.link import ALONE_BYTES, READ_BYTES, Link
from producers.relay.metrics import RelayMetrics, Standing
from producers.relay.turns import Turns
from producers.relay.vms import Vm, Vsock
from producers.relay.ways import Accepting, VsockDoor
from producers.ship_child import ShipperChild
from producers.writer import WriterThread
from schemas import metrics_http
from schemas.config import Config
from schemas.crashpoints import crash_point
from schemas.errors import StorageError, UnavailableError, UsageError
from schemas.frame import Frame, encode
from schemas.relay import Hello
from schemas.relay_host import Arrived
from schemas.segment import StreamPosition
from schemas.stream import Layer
from schemas.surfaces import TOPIC_STATE

log = logging.getLogger(__name__)
_STATE: Final = "relay.json"
_SECOND_S: Final = 1.0
_STOP_S: Final = 10.0


class _Token(NamedTuple):
    """To be acknowledged when so many frames are synced, if the connection is still the same."""

    queued: int
    link: Link
    number: int
    topic: str
    offset: int
    check: int
    size_bytes: int
    at_s: float


class Relay:
    """Takes frames of the guests that `find` names into `writer`; with `shipper`, keeps that command running beside it.

    With `hold_bytes` no guest is read while the log is larger: it is a spool, and deletes nothing that was not shipped.
    `vsock` listens for all guests that have a CID.
    """

    def __init__(
        self,
        config: Config,
        host: Host,
        find: Callable[[], list[Vm]],
        writer: LogWriter,
        *,
        shipper: list[str] | None,
        hold_bytes: int | None,
        vsock: Accepting | None = None,
    ) -> None:
        self._config, self._host, self._find, self._writer = config.relay, host, find, writer
        self._for_s = config.agent.for_s
        self._hold_bytes = hold_bytes
        self._log_bytes = 0  # counted on from what it was a second ago
        self._shipper_command = shipper
        self._run = str(uuid.uuid4())
        self._links: dict[str, Link] = {}
        self._vsock = vsock
        self._door: VsockDoor | None = None
        self._turns: Turns[Link] = Turns()
        self._ahead: set[Link] = set()  # of more than a window, which no guest that keeps to it is
        self._tokens: deque[_Token] = deque()
        stands = writer.positions
        self._accounts = Accounts(host, self._run, stands)
        self._histories = recalled(writer.dir, stands)
        self._remembered = self._load()
        self._failure: BaseException | None = None
        self._beat_realtime_ns = time.time_ns()

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or `for_s`; then make durable what came, and close.

        Raises:
            StorageError: the disk did not take the last frames; their guests have them.
            UnavailableError: the broker did not take everything; the rest waits in the spool.
        """
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._loop.set_exception_handler(self._failed)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._thread = WriterThread(self._writer, self._from_thread)
        shipper = ShipperChild(self._shipper_command) if self._shipper_command else None
        self._hint = shipper.hint if shipper else lambda: None
        self._door = VsockDoor(self._vsock) if self._vsock is not None else None
        self._every_second()
        self._report()
        log.info("relaying %d guests as run %s", len(self._links), self._run)
        limit_bytes = self._config.queue_bytes_max
        metrics = metrics_http.serve(self._config.metrics, RelayMetrics(self._thread, limit_bytes, self._standing).text)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), self._for_s)
        self._stop.set()  # nothing is put behind the last account
        for link in self._links.values():
            link.close()
        if self._door is not None:
            self._door.close()
        self._put(self._accounts.frames(self._guests(), self._strangers()))
        stopped = await asyncio.to_thread(self._thread.stop, _STOP_S)
        self._save()
        shipped = shipper is None or await shipper.stop()
        if metrics is not None:
            metrics.close()
        log.info("stopped after %d frames", sum(link.guest.frames for link in self._links.values()))
        if self._failure is not None:
            raise self._failure
        if not stopped:
            raise StorageError("the log's disk refused the last frames; the guests that sent them keep them")
        if not shipped:
            raise UnavailableError("the broker did not take everything: the rest waits in the spool for the next run")

    # A callback that raises would else be a line in the log, and a guest that nobody reads any more.
    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._failure = self._failure or context.get("exception")
        if self._failure is None:
            loop.default_exception_handler(context)
        self._stop.set()

    def _every_second(self) -> None:
        if self._stop.is_set() or self._thread.error is not None:
            self._stop.set()
            return
        self._beat_realtime_ns = time.time_ns()
        self._hold()
        self._open_and_close()
        self._save()
        self._loop.call_later(_SECOND_S, self._every_second)

    def _hold(self) -> None:
        if self._hold_bytes is not None:
            self._log_bytes = self._writer.size_bytes() + self._thread.queued_bytes
            if self._held():
                log.warning("the spool is full: guests keep their frames until some of it is shipped")
        self._resume()

    def _held(self) -> bool:
        return self._hold_bytes is not None and self._log_bytes > self._hold_bytes

    def _open_and_close(self) -> None:
        try:
            vms = {vm.machine: vm for vm in self._find()}
        except UsageError as e:
            log.warning("%s; the guests stay as they are", e)
            return
        for machine, link in list(self._links.items()):
            if vms.get(machine) != link.guest.vm:
                link.close()
                self._turns.forget(link)
                self._ahead.discard(link)
                self._put(self._accounts.leave(link.guest))
                self._histories[machine] = link.guest.history
                del self._links[machine]
        for machine, vm in vms.items():
            if machine not in self._links:
                self._links[machine] = self._link(vm)
        if self._door is not None:
            self._let_in(self._door)

    # Whose a CID is was asked after these came: it may have been another's when they did.
    def _let_in(self, door: VsockDoor) -> None:
        by_cid = {link.guest.vm.way: link for link in self._links.values()}
        for came in door.take():
            link = by_cid.get(Vsock(came.cid))
            if link is None:
                door.refuse(came)
            else:
                link.serve(came.socket)
        door.report()

    def _strangers(self) -> int:
        return self._door.strangers if self._door is not None else 0

    def _link(self, vm: Vm) -> Link:
        guest = Guest(vm, self._host, self._histories.setdefault(vm.machine, History()))
        remembered = self._remembered.get(vm.machine, {})
        guest.history.generation = max(guest.history.generation, int(remembered.get("generation", 0)))
        guest.reached.update(remembered.get("reached", {}))
        self._accounts.watch(guest)
        hello = Hello(vm.name, self._host.machine, self._host.boot_id, Layer.HOST, self._config.window_bytes, {})
        return Link(guest, hello, self._config, self._arrived, self._may_read)

    def _may_read(self, link: Link) -> int:
        turn = self._turns.may(link, link.guest.bytes)
        if link.queued_bytes > self._config.window_bytes:
            self._ahead.add(link)
            return 0
        if not turn or self._held() or self._thread.queued_bytes > self._config.queue_bytes_max:
            self._turns.wait(link)
            return 0
        return READ_BYTES if len(self._turns) else ALONE_BYTES

    def _resume(self) -> None:
        room_bytes = self._config.queue_bytes_max - self._thread.queued_bytes
        if len(self._turns) and not self._held() and room_bytes >= self._config.queue_bytes_max // 2:
            for link in self._turns.next(room_bytes // READ_BYTES):
                if not link.resume():
                    self._turns.give_up(link)

    def _arrived(self, link: Link, arrived: Arrived) -> None:
        now_s = self._loop.time()
        taken = link.guest.take(arrived, now_s)
        size_bytes = 0
        if taken is not None:
            size_bytes = sum(map(len, taken.parts))
            self._thread.put_encoded(*taken)
            link.queued_bytes += size_bytes
            self._log_bytes += size_bytes
        where = (arrived.topic, arrived.offset + 1, arrived.check)
        self._tokens.append(_Token(self._thread.queued, link, arrived.link, *where, size_bytes, now_s))
        if taken is None:
            self._acknowledge()

    def _from_thread(self) -> None:
        crash_point("relay:durable")
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._durable)

    def _durable(self) -> None:
        self._hint()
        self._acknowledge()
        self._resume()

    def _acknowledge(self) -> None:
        newest: dict[tuple[Link, str], _Token] = {}
        synced = self._thread.synced
        while self._tokens and self._tokens[0].queued <= synced:
            token = self._tokens.popleft()
            token.link.queued_bytes -= token.size_bytes
            if token.link in self._ahead and token.link.queued_bytes <= self._config.window_bytes:
                self._ahead.remove(token.link)
                token.link.resume()
            newest[token.link, token.topic] = token
        for token in newest.values():
            if token.number == token.link.end.link:
                token.link.ack(token.topic, token.offset, token.check)
                crash_point("relay:acked")

    def _report(self) -> None:
        if not self._stop.is_set():
            self._put(self._accounts.frames(self._guests(), self._strangers()))
            self._loop.call_later(self._config.report_s, self._report)

    # Called from the thread that serves metrics.
    def _standing(self) -> Standing:
        lag_s = 0.0
        with contextlib.suppress(IndexError):
            lag_s = max(0.0, self._loop.time() - self._tokens[0].at_s)
        return Standing(self._guests(), len(self._turns), lag_s, self._beat_realtime_ns, self._strangers())

    def _guests(self) -> list[Guest]:
        return [link.guest for link in list(self._links.values())]

    def _put(self, made: list[Frame]) -> None:
        for frame in made:
            at = StreamPosition(frame.next, frame.number)
            self._thread.put_encoded(TOPIC_STATE, (encode(frame),), frame.stream, at)

    def _load(self) -> dict[str, Any]:
        try:
            found = json.loads((self._writer.dir / _STATE).read_bytes())
            return {
                str(machine): {
                    "generation": int(each["generation"]),
                    "reached": {
                        str(spool): {str(topic): int(offset) for topic, offset in ends.items()}
                        for spool, ends in each["reached"].items()
                    },
                }
                for machine, each in found.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            log.warning("%s: %r; going by what the log itself holds", self._writer.dir / _STATE, e)
            return {}

    def _save(self) -> None:
        for machine, link in self._links.items():
            guest = link.guest
            self._remembered[machine] = {"generation": guest.history.generation, "reached": dict(guest.reached)}
        part = self._writer.dir / f"{_STATE}.part"
        try:
            part.write_text(json.dumps(self._remembered), encoding="utf-8")
            part.replace(self._writer.dir / _STATE)
        except OSError as e:
            log.warning("%s cannot be written: %s", part, e.strerror)


def run_relay(relay: Relay, writer: LogWriter) -> None:
    """Run the relay to its end; `writer` is closed whatever happens."""
    memory.keep()
    try:
        asyncio.run(relay.run())
    finally:
        writer.close()
