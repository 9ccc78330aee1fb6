"""The agent: one asyncio loop waits on every source, drains, cuts frames, and hands them to the writer thread."""

import asyncio
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from producers.clocks import read_clocks
from producers.log import LogWriter
from producers.pacing import Pace
from producers.registry import Identity, Known, open_sources
from producers.source import Batch, Source
from producers.writer import WriterThread
from schemas.config import AgentConfig
from schemas.crashpoints import crash_point
from schemas.errors import HypocenterError, StorageError, UnavailableError
from schemas.frame import Frame
from schemas.heartbeat import Heartbeat, pack
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION, SURFACES

log = logging.getLogger(__name__)
#: Drained bytes that are cut at once, without waiting for more.
_CUT_BYTES: Final = 256 << 10
_STOP_S: Final = 10.0
_PAUSE_S: Final = 0.05
#: Seconds before the shipper is started again: at first, and at most.
_RESTART_S: Final = (1.0, 30.0)


@dataclass(slots=True)
class _Watched:
    """A source and what the agent keeps beside it."""

    source: Source
    number: int  # of the next frame
    since_realtime_ns: int
    since_position: int
    pace: Pace = field(default_factory=Pace)
    listening: bool = False  # whether the loop waits for the descriptor
    paused: bool = False
    rest: asyncio.TimerHandle | None = None  # until the next drain
    linger: asyncio.TimerHandle | None = None  # until the next cut


class Agent:
    """Reads `config.surfaces` of this machine into `writer`; with `shipper`, keeps that command running beside it."""

    def __init__(self, config: AgentConfig, identity: Identity, writer: LogWriter, shipper: list[str] | None) -> None:
        self._config = config
        self._run = str(uuid.uuid4())
        self._snapshot: str | None = None
        self._heartbeats = 0
        self._writer = writer
        self._shipper_command = shipper
        self._shipper: asyncio.subprocess.Process | None = None
        self._shipped = True  # until the shipper fails
        known = {stream: Known(at.next, at.number) for stream, at in writer.positions.items()}
        clocks = read_clocks()
        self._watched = []
        for name in config.surfaces:
            for source in open_sources(name, identity, known):
                number = known[source.stream].number + 1 if source.stream in known else 0
                self._watched.append(_Watched(source, number, clocks.realtime_ns, source.next_position()))
        crash_point("agent:opened")

    async def run(self, *, on_ready: Callable[[], None] | None = None) -> None:
        """Run until SIGTERM, SIGINT or `for_s`; then drain, say goodbye in the log, and close."""
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._thread = WriterThread(self._writer, self._durable)
        shipping = asyncio.create_task(self._ship()) if self._shipper_command else None
        for watched in self._watched:
            self._listen(watched)
        beating = asyncio.create_task(self._beat())
        log.info("watching %s as run %s", ", ".join(self._config.surfaces), self._run)
        if on_ready:
            on_ready()
        try:
            await asyncio.wait_for(self._stop.wait(), self._config.for_s)
        except TimeoutError:
            pass
        finally:
            await self._close(beating, shipping)

    def _drain(self, watched: _Watched) -> None:
        if self._thread.queued_bytes > self._config.queue_bytes_max:
            self._pause(watched)
            return
        before = watched.source.pending_bytes()
        more = watched.source.drain()
        pending = watched.source.pending_bytes()
        rest_s = 0.0 if more else watched.pace.rest_s(pending - before, self._loop.time())
        if pending >= _CUT_BYTES:
            self._cut(watched)
        elif watched.linger is None and pending:
            watched.linger = self._loop.call_later(self._config.linger_ms / 1000, self._cut, watched)
        if rest_s:
            self._ignore(watched)
            watched.rest = self._loop.call_later(rest_s, self._drain, watched)
        else:
            self._listen(watched)

    def _listen(self, watched: _Watched) -> None:
        if not watched.listening:
            watched.listening = True
            self._loop.add_reader(watched.source.fileno(), self._drain, watched)

    def _ignore(self, watched: _Watched) -> None:
        if watched.listening:
            watched.listening = False
            self._loop.remove_reader(watched.source.fileno())

    # The disk is behind by as much memory as we may take: let the kernel's ring fill, its overwrites are counted.
    def _pause(self, watched: _Watched) -> None:
        queued_bytes = self._thread.queued_bytes
        if not watched.paused:
            log.error("%s: reading pauses, the disk is %d bytes behind", watched.source.stream.surface, queued_bytes)
        watched.paused = queued_bytes > self._config.queue_bytes_max // 2
        self._ignore(watched)
        watched.rest = self._loop.call_later(_PAUSE_S, self._pause if watched.paused else self._drain, watched)

    def _cut(self, watched: _Watched) -> None:
        if watched.linger is not None:
            watched.linger.cancel()
            watched.linger = None
        row = SURFACES[watched.source.stream.surface]
        for batch in watched.source.cut():
            self._put(watched, batch, row.encoding, row.encoding_version)
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
        )
        watched.number += 1
        self._thread.put(frame)

    async def _beat(self) -> None:
        while True:
            self._heartbeat()
            await asyncio.sleep(self._config.heartbeat_s)

    def _heartbeat(self) -> None:
        if self._thread.error is not None:
            self._stop.set()
            return
        clocks = read_clocks()
        self._snapshot = f"{self._run}/{self._heartbeats}"
        self._heartbeats += 1
        for watched in self._watched:
            self._cut(watched)
            position = watched.source.next_position()
            beat = Heartbeat(
                since_realtime_ns=watched.since_realtime_ns,
                until_realtime_ns=clocks.realtime_ns,
                first_position=watched.since_position,
                realtime_ns=clocks.realtime_ns,
                monotonic_ns=clocks.monotonic_ns,
                boottime_ns=clocks.boottime_ns,
                bracket_ns=clocks.bracket_ns,
                counters={**watched.source.counters(), "torn_bytes": self._writer.torn_bytes},
            )
            body = Batch(position, position, 0, pack(beat), [], 0, 0)
            self._put(watched, body, HEARTBEAT_ENCODING, HEARTBEAT_VERSION)
            watched.since_realtime_ns, watched.since_position = clocks.realtime_ns, position

    # Called from the writer thread.
    def _durable(self) -> None:
        crash_point("agent:durable")
        if self._shipper is not None:
            self._loop.call_soon_threadsafe(self._hint_shipper)

    def _hint_shipper(self) -> None:
        hints = self._shipper.stdin if self._shipper is not None else None
        # A pipe that is full of hints already says what this one would.
        if hints is not None and not hints.is_closing() and hints.transport.get_write_buffer_size() == 0:
            hints.write(b"\n")

    async def _ship(self) -> None:
        assert self._shipper_command is not None
        wait_s = _RESTART_S[0] / 2
        while True:
            self._shipper = await asyncio.create_subprocess_exec(
                *self._shipper_command, stdin=asyncio.subprocess.PIPE, start_new_session=True
            )
            started_s = self._loop.time()
            code = await self._shipper.wait()
            self._shipped = False
            # Doubled while it keeps failing at its start, so that an absent broker is a line now and then, not a flood.
            wait_s = _RESTART_S[0] if self._loop.time() - started_s > _RESTART_S[1] else min(wait_s * 2, _RESTART_S[1])
            log.error(
                "the shipper ended with code %d, started again in %.0f s; records wait in the spool", code, wait_s
            )
            await asyncio.sleep(wait_s)

    async def _close(self, beating: asyncio.Task[None], shipping: asyncio.Task[None] | None) -> None:
        beating.cancel()
        for watched in self._watched:
            self._ignore(watched)
            if watched.rest is not None:
                watched.rest.cancel()
            watched.source.drain()
        self._heartbeat()
        stopped = await asyncio.to_thread(self._thread.stop, _STOP_S)
        if shipping is not None:
            await self._stop_shipper(shipping)
        records = sum(watched.source.counters().get("records", 0) for watched in self._watched)
        for watched in self._watched:
            watched.source.close()
        log.info("stopped after %d records", records)
        if not stopped:
            raise StorageError("the log's disk refused the last frames; the kernel still holds what its ring can keep")
        if not self._shipped:
            raise UnavailableError("the broker did not take everything: the rest waits in the spool for the next run")

    async def _stop_shipper(self, shipping: asyncio.Task[None]) -> None:
        shipping.cancel()
        process, self._shipper = self._shipper, None
        if process is None or process.stdin is None or process.returncode is not None:
            return
        process.stdin.close()  # end of file: send what there is, then end
        try:
            self._shipped = await asyncio.wait_for(process.wait(), _STOP_S) == 0
        except TimeoutError:
            self._shipped = False
            process.kill()
            await process.wait()


def run_agent(config: AgentConfig, identity: Identity, writer: LogWriter, shipper: list[str] | None) -> None:
    """Run an agent to its end; `writer` is closed whatever happens."""
    try:
        agent = Agent(config, identity, writer, shipper)
        asyncio.run(agent.run())
    except BaseException as e:
        if not isinstance(e, (HypocenterError, KeyboardInterrupt)):
            log.exception("the agent failed")
        raise
    finally:
        writer.close()


def shipper_command(log_dir: Path, config_json: str) -> list[str]:
    """Return the command of the child that ships `log_dir` to Kafka."""
    return [sys.executable, "-m", "producers.ship", "--log", os.fspath(log_dir), "--config-json", config_json]
