"""The agent: one asyncio loop waits on every source, drains, cuts frames, and hands them to the writer thread."""

import asyncio
import contextlib
import logging
import math
import os
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from producers import memory, ship_report
from producers.clock_readings import read_clocks
from producers.log import LogWriter
from producers.metrics import AgentMetrics, Shipping, Tally
from producers.pacing import Pace
from producers.registry import Identity, Known, Opening, open_sources
from producers.ship_child import ShipperChild
from producers.source import Batch, Holding, Leaving, Source
from producers.writer import WriterThread
from schemas import metrics_http
from schemas.config import Config
from schemas.crashpoints import crash_point
from schemas.errors import HypocenterError, StorageError, UnavailableError
from schemas.frame import Frame
from schemas.heartbeat import Heartbeat, pack
from schemas.metrics_http import MetricsServer
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION, SURFACES, TOPIC_TRACE

log = logging.getLogger(__name__)
#: Drained bytes that are cut at once, without waiting for more.
_CUT_BYTES: Final = 256 << 10
_STOP_S: Final = 10.0
_PAUSE_S: Final = 0.05
#: So much before its time a timer may come.
_EARLY_S: Final = 1e-6


@dataclass(slots=True)
class _Watched:
    """A source and what the agent keeps beside it."""

    source: Source
    number: int  # of the next frame
    since_realtime_ns: int
    since_position: int
    pace: Pace = field(default_factory=Pace)
    fd: int = -1  # that the loop waits on; a source may have another one later
    paused: bool = False
    rest: asyncio.Handle | None = None  # until the next drain
    linger: asyncio.TimerHandle | None = None  # until the next cut
    gathers: bool = field(init=False)  # nobody waits for its frames: no alert, and no ring for its room

    def __post_init__(self) -> None:
        trace = SURFACES[self.source.stream.surface].topic == TOPIC_TRACE
        self.gathers = trace and not isinstance(self.source, Holding)


class Agent:
    """Reads the surfaces of this machine into `writer`; with `shipper`, keeps that command running beside it."""

    def __init__(self, config: Config, identity: Identity, writer: LogWriter, shipper: list[str] | None) -> None:
        self._all = config
        self._config = config.agent
        self._identity = identity
        self._run = str(uuid.uuid4())
        self._snapshot: str | None = None
        self._heartbeats = 0
        self._writer = writer
        self._shipper_command = shipper
        self._shipper: ShipperChild | None = None
        self._report = -1  # the shipper's
        self._tally = Tally()
        self._metrics: MetricsServer | None = None
        self._watched: list[_Watched] = []
        self._holding: list[tuple[_Watched, Holding]] = []
        self._error: BaseException | None = None

    def close(self) -> None:
        """Release every surface, however far the run came; idempotent."""
        watched, self._watched = self._watched, []
        for each in watched:
            each.source.close()
        if self._metrics is not None:
            self._metrics.close()
        report, self._report = self._report, -1
        if report >= 0:
            os.close(report)

    async def run(self, *, on_ready: Callable[[], None] | None = None) -> None:
        """Run until SIGTERM, SIGINT or `for_s`; then drain, say goodbye in the log, and close."""
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._loop.set_exception_handler(self._failed)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._open()
        self._thread = WriterThread(self._writer, self._durable, self._config.queue_bytes_max // 4)
        self._start_shipper()
        for watched in self._watched:
            if watched.source.pending_bytes():
                self._cut(watched)
        for watched in self._watched:
            self._listen(watched)
        self._began_s = self._loop.time()
        for tick_s in sorted({each.source.tick_s for each in self._watched if each.source.tick_s is not None}):
            self._tick(tick_s)
        self._beat()
        log.info("watching %s as run %s", ", ".join(self._config.surfaces), self._run)
        self._metrics = self._serve()
        if on_ready:
            on_ready()
        try:
            await asyncio.wait_for(self._stop.wait(), self._config.for_s)
        except TimeoutError:
            pass
        finally:
            try:
                await self._close()
            except BaseException:
                self._leave()
                raise
        if self._error is not None:
            raise self._error

    # A callback that raises would else be a line in the log, and a source that nobody reads any more.
    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._error = self._error or context.get("exception")
        if self._error is None:
            loop.default_exception_handler(context)
        self._stop.set()

    # After the handlers of signals, so that a stop from here on still leaves every surface as it was found.
    def _open(self) -> None:
        known = {stream: Known(at.next, at.number) for stream, at in self._writer.positions.items()}
        opening = Opening(self._identity, known, self._all, self._writer.dir)
        clocks = read_clocks()
        for name in self._config.surfaces:
            for source in open_sources(name, opening):
                number = known[source.stream].number + 1 if source.stream in known else 0
                self._watched.append(_Watched(source, number, clocks.realtime_ns, source.next_position()))
        self._holding = [(each, each.source) for each in self._watched if isinstance(each.source, Holding)]
        crash_point("agent:opened")

    def _start_shipper(self) -> None:
        if self._shipper_command is not None:
            self._report = ship_report.create()
            command = [*self._shipper_command, "--report-fd", str(self._report)]
            self._shipper = ShipperChild(command, (self._report,))

    # A thread of its own: what a scrape reads of the disk, and what a client makes it wait, is no wait of the drain.
    def _serve(self) -> MetricsServer | None:
        shipping = None
        if self._shipper is not None:
            shipping = Shipping(self._writer.dir, self._shipper, self._report)
        limit_bytes = (self._all.spool if shipping else self._all.log).retention_bytes
        metrics = AgentMetrics(
            self._tally, self._thread, self._config.heartbeat_s, self._config.queue_bytes_max, limit_bytes, shipping
        )
        return metrics_http.serve(self._config.metrics, metrics.text)

    def _listen(self, watched: _Watched) -> None:
        self._wait_on(watched, watched.source.fileno())

    def _ignore(self, watched: _Watched) -> None:
        self._wait_on(watched, -1)

    def _wait_on(self, watched: _Watched, fd: int) -> None:
        if fd != watched.fd:
            if watched.fd >= 0:
                self._loop.remove_reader(watched.fd)
            if fd >= 0:
                self._loop.add_reader(fd, self._drain, watched)
            watched.fd = fd

    # One wake-up for all sources that want to be asked as often. What a tick finds is cut at once: before the next one
    # little is added, and to wait for it would be another wake-up.
    def _tick(self, tick_s: float) -> None:
        if self._stop.is_set():
            return
        for watched in self._watched:
            if watched.source.tick_s == tick_s and watched.rest is None:
                self._drain(watched)
                if watched.linger is not None and watched.rest is None and self._config.linger_ms < tick_s * 1000:
                    self._cut(watched)
        self._loop.call_at(self._due_s(tick_s), self._tick, tick_s)

    # All intervals begin together: what is due at the same moment is one wake-up, and one group of frames for the disk.
    def _due_s(self, every_s: float) -> float:
        passed = (self._loop.time() + _EARLY_S - self._began_s) // every_s
        return self._began_s + (passed + 1) * every_s

    def _drain(self, watched: _Watched) -> None:
        if watched.rest is not None:
            watched.rest.cancel()  # the descriptor was sooner: one call follows another, never two
            watched.rest = None
        if self._thread.queued_bytes > self._config.queue_bytes_max:
            self._pause(watched)
            return
        before = watched.source.pending_bytes()
        more = watched.source.drain()
        pending = watched.source.pending_bytes()
        drained_bytes = pending - before
        if pending >= _CUT_BYTES:
            self._cut(watched)
        elif watched.linger is None and pending:
            watched.linger = self._loop.call_later(self._config.linger_ms / 1000, self._cut, watched)
        self._await_next(watched, more=more, drained_bytes=drained_bytes)

    def _await_next(self, watched: _Watched, *, more: bool, drained_bytes: int) -> None:
        if watched.source.tick_s is not None:
            if more:
                # Its descriptor may be silent about what is left; the loop's other work comes in between.
                watched.rest = self._loop.call_soon(self._drain, watched)
            self._listen(watched)
            return
        rest_s = 0.0 if more else watched.pace.rest_s(drained_bytes, self._loop.time())
        if rest_s:
            # Nothing is added before the next drain, so a cut that is due before it need not wait either.
            if watched.linger is not None and watched.linger.when() <= self._loop.time() + rest_s:
                self._cut(watched)
            self._ignore(watched)
            watched.rest = self._loop.call_later(rest_s, self._drain, watched)
        else:
            self._listen(watched)

    # The disk is behind by as much memory as we may take: let the kernel's ring fill, its overwrites are counted.
    def _pause(self, watched: _Watched) -> None:
        bytes_max = self._config.queue_bytes_max
        if not watched.paused:
            name = f"{watched.source.stream.surface} {watched.source.stream.instance}".rstrip()
            # By how much is no part of it: said each time, it would be another line each time.
            log.error("%s: reading pauses, the disk is more than %d bytes behind", name, bytes_max)
        watched.paused = self._thread.queued_bytes > bytes_max // 2
        self._ignore(watched)
        watched.rest = self._loop.call_later(_PAUSE_S, self._pause if watched.paused else self._drain, watched)

    def _cut(self, watched: _Watched) -> None:
        if watched.linger is not None:
            watched.linger.cancel()
            watched.linger = None
        source = watched.source
        for batch in source.cut():
            if batch.body:
                self._put(watched, batch, source.encoding, source.encoding_version)
            else:
                self._put(watched, batch, HEARTBEAT_ENCODING, HEARTBEAT_VERSION)
        crash_point("agent:cut")

    def _put(self, watched: _Watched, batch: Batch, encoding: str, version: int) -> None:
        frame = Frame(
            stream=watched.source.stream,
            run=self._run,
            number=watched.number,
            first=batch.first,
            next=batch.next,
            count=batch.count,
            encoding=encoding,
            encoding_version=version,
            body=batch.body,
            losses=batch.losses,
            ts_first_ns=batch.ts_first_ns,
            ts_last_ns=batch.ts_last_ns,
            realtime_ns=time.time_ns(),
            snapshot=self._snapshot,
            descriptor=batch.descriptor,
        )
        watched.number += 1
        self._tally.put(frame)
        self._thread.put(frame, gathers=watched.gathers)

    # Right behind a tick that is due with it, so that the frames of both are there before the writer wakes.
    def _beat(self) -> None:
        if not self._stop.is_set():
            self._heartbeat()
            self._loop.call_at(math.nextafter(self._due_s(self._config.heartbeat_s), math.inf), self._beat)

    def _heartbeat(self) -> None:
        if self._thread.error is not None:
            self._stop.set()
            return
        clocks = read_clocks()
        self._snapshot = f"{self._run}/{self._heartbeats}"
        self._heartbeats += 1
        for watched in self._watched:
            counters = {**watched.source.counters(), "torn_bytes": self._writer.torn_bytes}
            self._cut(watched)  # with what was only known from those
            if not watched.source.alive():
                watched.since_realtime_ns = clocks.realtime_ns
                continue
            position = watched.source.next_position()
            beat = Heartbeat(
                since_realtime_ns=watched.since_realtime_ns,
                until_realtime_ns=clocks.realtime_ns,
                first_position=watched.since_position,
                realtime_ns=clocks.realtime_ns,
                monotonic_ns=clocks.monotonic_ns,
                boottime_ns=clocks.boottime_ns,
                bracket_ns=clocks.bracket_ns,
                counters=counters,
            )
            body = Batch(position, position, 0, pack(beat), [], 0, 0)
            self._put(watched, body, HEARTBEAT_ENCODING, HEARTBEAT_VERSION)
            watched.since_realtime_ns, watched.since_position = clocks.realtime_ns, position
        self._tally.beat_realtime_ns = clocks.realtime_ns

    # Called from the writer thread.
    def _durable(self) -> None:
        crash_point("agent:durable")
        if self._shipper is not None:
            self._shipper.hint()
        if self._holding:
            with contextlib.suppress(RuntimeError):  # the loop is closed: a disk took its time
                self._loop.call_soon_threadsafe(self._let_go)

    # What was held for the log leaves room, and what came meanwhile may have woken nobody.
    def _let_go(self) -> None:
        for watched, source in self._holding:
            position = self._thread.durable.get(watched.source.stream)
            if position is not None:
                source.durable(position)
                if not self._stop.is_set():
                    self._drain(watched)

    async def _close(self) -> None:
        self._stop.set()
        for watched in self._watched:
            self._ignore(watched)
            if watched.rest is not None:
                watched.rest.cancel()
        await self._drain_to_the_end()
        self._heartbeat()
        stopped = await asyncio.to_thread(self._thread.stop, _STOP_S)
        self._let_go()
        unwritten = self._thread.queued - self._thread.synced
        if not stopped or self._error is not None:
            self._leave()
        shipped = self._shipper is None or await self._shipper.stop()
        records = sum(watched.source.counters().get("records", 0) for watched in self._watched)
        self.close()
        log.info("stopped after %d records", records)
        if not stopped:
            what = f"the log's disk refused the last frames, {unwritten} of them"
            raise StorageError(f"{what}; the kernel keeps what it can, and the next run tells of the rest what is lost")
        if not shipped:
            raise UnavailableError("not everything was taken: the rest waits in the spool for the next run")

    # Not all that was read is in the log, or nobody knows.
    def _leave(self) -> None:
        for source in [each.source for each in self._watched if isinstance(each.source, Leaving)]:
            source.leave()

    # All surfaces first, so that one is not long over while another one still fills.
    async def _drain_to_the_end(self) -> None:
        for watched in self._watched:
            watched.source.stop()
        until_s = self._loop.time() + _STOP_S
        rest = self._watched
        while rest:
            rest = [watched for watched in rest if self._has_more(watched)]
            for watched in rest:
                self._cut(watched)
                await self._until_queued(self._config.queue_bytes_max, until_s)
            if self._loop.time() > until_s:
                break
        for watched in self._watched if self._error is None else ():  # else it is left to the next agent
            watched.source.give_up()

    # At the end one surface that fails keeps nobody from the others.
    def _has_more(self, watched: _Watched) -> bool:
        try:
            return watched.source.drain()
        except (HypocenterError, OSError) as e:
            self._error = self._error or e
        return False

    # The queue is emptied by a thread, which has no event of this loop to set.
    async def _until_queued(self, bytes_max: int, until_s: float) -> None:
        while self._thread.queued_bytes > bytes_max and self._loop.time() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def run_agent(config: Config, identity: Identity, writer: LogWriter, shipper: list[str] | None) -> None:
    """Run an agent to its end; `writer` and every surface are closed whatever happens."""
    memory.keep()
    agent = Agent(config, identity, writer, shipper)
    try:
        asyncio.run(agent.run())
    except BaseException as e:
        if not isinstance(e, (HypocenterError, KeyboardInterrupt)):
            log.exception("the agent failed")
        with contextlib.suppress(StorageError):  # that it refuses is what is said already, or the lesser of two evils
            writer.close()
        raise
    finally:
        agent.close()
    writer.close()
