"""The agent's loop with sources that are scripted: readiness by descriptor or by tick, losses without records, failure."""

import asyncio
import os
import time
from collections import defaultdict

import pytest

from producers import agent as agent_module
from producers.agent import run_agent
from producers.log import LogWriter
from producers.registry import Identity
from producers.source import Batch
from schemas import heartbeat
from schemas.config import AgentConfig, Config
from schemas.frame import decode
from schemas.loss import Loss
from schemas.stream import Stream
from tests._logs import TOPIC, read_all, writer

ME = Identity("m", "b", "host")


class Scripted:
    """Gives `script` away, one entry for each drain: bytes are a record, an exception is raised, True is more to come."""

    encoding, encoding_version = "scripted", 3

    def __init__(self, name, script=(), *, tick_s=None, fd=-1, alive=True, losses=()):
        self.stream = Stream(*ME, "kmsg", name, "c")
        self.script, self.tick_s, self.fd, self.lives = list(script), tick_s, fd, alive
        self.losses = list(losses)
        self.pending, self.next, self.drains, self.calls = [], 0, 0, []

    def fileno(self):
        return self.fd

    def alive(self):
        return self.lives

    def drain(self):
        self.drains += 1
        entry = self.script.pop(0) if self.script else False
        if isinstance(entry, BaseException):
            raise entry
        if isinstance(entry, bytes):
            self.pending.append(entry)
        if callable(entry):
            entry(self)
        return entry is True

    def pending_bytes(self):
        return sum(map(len, self.pending))

    def cut(self):
        pending, self.pending = self.pending, []
        losses, self.losses = self.losses, []
        if not pending:
            return [Batch(self.next, self.next, 0, b"", losses, 0, 0)] if losses else []
        first, self.next = self.next, self.next + len(pending)
        return [Batch(first, self.next, len(pending), b"".join(pending), losses, 1, 2, b"hash")]

    def next_position(self):
        return self.next

    def counters(self):
        return {"records": self.next, "drains": self.drains}

    def stop(self):
        self.calls.append("stop")

    def give_up(self):
        self.calls.append("give up")

    def close(self):
        self.calls.append("close")


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(*sources, for_s=0.3, heartbeat_s=60.0, linger_ms=1):
        monkeypatch.setattr(agent_module, "open_sources", lambda name, opening: list(sources))
        config = Config(agent=AgentConfig(for_s=for_s, linger_ms=linger_ms, heartbeat_s=heartbeat_s))
        run_agent(config, ME, writer(tmp_path / "log"), None)
        found = defaultdict(list)
        for _, _, payload in read_all(tmp_path / "log", TOPIC):
            frame = decode(payload)
            found[frame.stream.instance].append(frame)
        return found

    return run


def records(frames):
    return [frame.body for frame in frames if frame.encoding == "scripted"]


def test_a_source_without_a_descriptor_is_asked_at_every_tick(run):
    source = Scripted("a", [b"one", False, b"two"], tick_s=0.02)
    found = run(source)["a"]
    assert records(found) == [b"one", b"two"]
    assert 5 < source.drains < 25
    frame = next(frame for frame in found if frame.encoding == "scripted")
    assert (frame.encoding_version, frame.descriptor) == (3, b"hash")
    assert source.calls == ["stop", "give up", "close"]


def test_what_a_tick_takes_does_not_move_those_behind_it_away_from_the_heartbeats(run, monkeypatch):
    groups, sync = [], LogWriter.sync

    def counted(self):
        groups.append(None)
        sync(self)

    def slow(source):
        time.sleep(0.03)
        source.pending.append(b"record")

    monkeypatch.setattr(LogWriter, "sync", counted)
    source = Scripted("a", [slow] * 20, tick_s=0.1)
    found = run(source, for_s=1.05, heartbeat_s=0.1)["a"]
    # Eleven, and one at the end; with pauses of 0.1 s between them there would be nine.
    assert source.drains > 10
    # What is due together is one group for the disk.
    assert len(groups) < 0.8 * len(found)


class Held(Scripted):
    """Its records stay in a ring until the log has them, and fill it."""

    def durable(self, position):
        pass


@pytest.mark.parametrize(
    ("kind", "surface", "gathers"),
    [(Scripted, "kmsg", False), (Scripted, "qmp", False), (Scripted, "ftrace", True), (Scripted, "bpf", True),
     (Held, "bpf", False)],
)  # fmt: skip
def test_frames_wait_for_others_where_neither_an_alert_nor_a_ring_waits_for_them(kind, surface, gathers):
    source = kind("a")
    source.stream = source.stream._replace(surface=surface)
    assert agent_module._Watched(source, 0, 0, 0).gathers is gathers


def test_what_a_tick_leaves_is_read_at_once(run):
    source = Scripted("a", [True, True, True, b"one"], tick_s=0.2)
    run(source, for_s=0.1)
    assert source.drains >= 4


def test_what_a_tick_finds_is_cut_at_once_where_the_next_comes_later_than_its_linger(run):
    cut_s = []

    class Timed(Scripted):
        def drain(self):
            self.drained_s = time.monotonic()
            return super().drain()

        def cut(self):
            if self.pending:
                cut_s.append(time.monotonic() - self.drained_s)
            return super().cut()

    assert records(run(Timed("a", [b"one", b"two"], tick_s=0.2), for_s=0.5, linger_ms=150)["a"]) == [b"one", b"two"]
    assert max(cut_s) < 0.1
    cut_s.clear()
    assert records(run(Timed("b", [b"one"], tick_s=0.2), for_s=0.3, linger_ms=220)["b"]) == [b"one"]
    assert cut_s


def test_a_descriptor_that_is_always_ready_does_not_multiply_the_calls(run):
    read, write = os.pipe()
    os.write(write, b"x")
    depth = []

    class Flooded(Scripted):
        def drain(self):
            depth.append(
                sum(getattr(each, "_callback", None) is not None and not each.cancelled() for each in _ready())
            )
            return len(depth) < 500

    run(Flooded("a", tick_s=0.05, fd=read), for_s=0.3)
    assert len(depth) >= 500
    assert max(depth) < 20
    os.close(read)
    os.close(write)


def test_a_cut_that_would_come_before_the_next_drain_is_made_at_once(run):
    read, write = os.pipe()
    os.write(write, b"x")
    cut_s = []

    class Steady(Scripted):
        def drain(self):
            self.script = [bytes(20_000)]
            return super().drain()

        def cut(self):
            cut_s.append(time.monotonic() - self.drained_s if self.pending else None)
            return super().cut()

        def pending_bytes(self):
            self.drained_s = time.monotonic()
            return super().pending_bytes()

    # Every drain is followed by a rest of up to 20 ms, longer than the 15 ms that a record may linger.
    run(Steady("a", fd=read), for_s=0.5, linger_ms=15)
    waits_s = [each for each in cut_s if each is not None]
    assert len(waits_s) > 10
    assert sorted(waits_s)[len(waits_s) // 2] < 0.005
    os.close(read)
    os.close(write)


def _ready():
    return list(asyncio.get_event_loop_policy().get_event_loop()._ready)


def test_a_descriptor_may_come_and_go(run):
    read, write = os.pipe()
    os.write(write, b"x")

    def ready(source):
        source.fd = read

    def gone(source):
        os.read(read, 1)
        source.fd = -1

    source = Scripted("a", [ready, b"by descriptor", gone, b"by tick"], tick_s=0.05)
    assert records(run(source)["a"]) == [b"by descriptor", b"by tick"]
    os.close(read)
    os.close(write)


def test_what_is_known_at_the_start_is_cut_in_order_before_anything_is_read(run):
    first, second = Scripted("descriptions"), Scripted("pages", [b"page"], tick_s=0.01)
    first.pending = [b"description"]
    found = run(first, second)
    assert records(found["descriptions"]) == [b"description"]
    assert found["descriptions"][0].realtime_ns < found["pages"][0].realtime_ns


def test_losses_without_a_record_travel_in_a_heartbeat(run):
    losses = [Loss("overwrite", 0, 9, "ring-overrun", "agent", "event"), Loss("drop", 0, None, "x", "agent")]
    found = run(Scripted("a", losses=losses))["a"]
    assert (found[0].encoding, found[0].body, found[0].losses) == ("heartbeat", b"", losses)
    assert [frame.number for frame in found] == list(range(len(found)))


def test_what_is_not_there_has_no_heartbeat(run):
    found = run(Scripted("absent", alive=False), Scripted("there"), heartbeat_s=0.1)
    assert "absent" not in found
    assert len(found["there"]) >= 3
    assert heartbeat.unpack(found["there"][-1].body).counters["records"] == 0


def test_a_source_that_fails_ends_the_agent_and_everything_is_released(run, caplog):
    sources = [Scripted("a", [b"kept"], tick_s=0.01), Scripted("b", [False, OSError(5, "broken")], tick_s=0.02)]
    with pytest.raises(OSError, match="broken"):
        run(*sources, for_s=5)
    assert [source.calls[-1] for source in sources] == ["close", "close"]
    assert "the agent failed" in caplog.text


def test_a_source_that_never_ends_does_not_hold_up_the_end(run, monkeypatch):
    monkeypatch.setattr(agent_module, "_STOP_S", 0.2)
    source = Scripted("a", [True] * 10**6, tick_s=None)
    run(source, for_s=0.05)
    assert source.calls == ["stop", "give up", "close"]


def test_nothing_is_left_open_when_opening_fails(tmp_path, monkeypatch):
    def refuse(name, opening):
        raise OSError(1, "refused")

    monkeypatch.setattr(agent_module, "open_sources", refuse)
    log = writer(tmp_path / "log")
    with pytest.raises(OSError, match="refused"):
        run_agent(Config(), ME, log, None)
    writer(tmp_path / "log").close()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
