"""The end of a run: a last burst of pings behind the frames, which a host that is gone does not hold up."""

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from producers.relay import ship as relay_ship
from producers.relay.pings import PINGS_MAX
from producers.relay.port import Port
from producers.relay.ship import RelayShipper
from schemas.limits import RELAY_WINDOW_BYTES_MAX
from schemas.relay import Hello
from schemas.relay_host import Arrived, Asked, Greeted, HostEnd, Pinged, Timed
from tests._relay import GuestLog


class Host(threading.Thread):
    """A relay of one guest; with `deaf` it answers no ping, and is gone with so many."""

    def __init__(self, path, *, deaf=False, pings_max=1 << 20):
        super().__init__(daemon=True)
        self._listen = socket.socket(socket.AF_UNIX)
        self._listen.bind(str(path))
        self._listen.listen(1)
        self._end = HostEnd(Hello("", "host", "b", "host", RELAY_WINDOW_BYTES_MAX, {}), itertools.count(1).__next__)
        self._deaf, self._pings = deaf, pings_max
        self.acked_ns, self.timed = 0, []
        self.bursts = []  # when the first ping of each came
        self.start()

    def run(self):
        port, _ = self._listen.accept()
        with contextlib.suppress(OSError):
            port.sendall(self._end.opened())
            while self._pings > 0 and (data := port.recv(1 << 16)):
                for event in self._end.feed(data):
                    self._heard(port, event)
        self._listen.close()
        port.close()

    def _heard(self, port, event):
        if isinstance(event, Asked):
            port.sendall(self._end.greeting())
        elif isinstance(event, Greeted):
            self._end.greeted = True
        elif isinstance(event, Arrived):
            port.sendall(self._end.ack(event.topic, event.offset + 1, event.check))
            self.acked_ns = time.monotonic_ns()
        elif isinstance(event, Pinged) and self._deaf:
            self._pings -= 1
        elif isinstance(event, Pinged):
            now_ns = time.monotonic_ns()
            if not self.timed or event.t0_ns - self.timed[-1] > 10**8:
                self.bursts.append(now_ns)
            port.sendall(self._end.pong(event.number, event.t0_ns, now_ns, now_ns))
        elif isinstance(event, Timed):
            self.timed.append(event.t0_ns)


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """Give a function that ships three frames to a host while standard input is at its end, and says how long it took."""

    def run(**kwargs):
        spool = GuestLog(tmp_path / "spool")
        spool.write(range(3))
        host = Host(tmp_path / "port", **kwargs)
        shipper = RelayShipper(spool.path, str(tmp_path / "port"), Hello("", "m", "b", "l", RELAY_WINDOW_BYTES_MAX, {}))
        ours, theirs = os.pipe()
        os.close(theirs)
        stdin = os.dup(0)
        os.dup2(ours, 0)
        try:
            start_s = time.monotonic()
            shipper.run()
            return host, time.monotonic() - start_s
        finally:
            os.dup2(stdin, 0)
            os.close(stdin)
            os.close(ours)
            shipper.close()
            host.join(10)

    return run


def test_an_answer_and_the_next_ping_are_one_write(ship, monkeypatch):
    sizes, write = [], Port.write

    def counted(self, data):
        sizes.append(len(data))
        return write(self, data)

    monkeypatch.setattr(Port, "write", counted)
    host, _ = ship()
    assert len(host.timed) >= PINGS_MAX
    assert len(sizes) < 1.3 * len(host.timed)


def test_the_last_exchange_is_behind_the_last_frame(ship):
    host, _ = ship()
    assert len(host.timed) >= 2
    assert host.acked_ns < host.timed[-1]


@pytest.fixture
def shipping(tmp_path):
    """A host and a function that appends a frame and hints at it; the shipper ends with the block."""
    path, port = tmp_path / "spool", tmp_path / "port"
    GuestLog(path, boot="4f0c2f0e-8d0a-4a31-8f6c-0f6f3a0b9d55", run="before").write(range(100, 101))
    host = Host(port)
    ours, theirs = os.pipe()
    words = f"-m producers.relay.ship --log {path} --port {port} --machine m --boot-id b --layer l".split()
    shipper = subprocess.Popen([sys.executable, *words], stdin=ours)
    os.close(ours)

    def append(number, **values):
        now_ns = time.monotonic_ns()
        GuestLog(path).write([number], **values)
        os.write(theirs, b"\n")
        return now_ns

    try:
        until(lambda: host.bursts)
        yield host, append
    finally:
        os.close(theirs)
        assert shipper.wait(20) == 0
        host.join(10)


#: What says nothing new, as a heartbeat does.
NOTHING = {"first": 10, "next": 10, "count": 0, "body": b""}


def burst_s(host, at_ns):
    """Return how long after `at_ns` the next burst began."""
    until(lambda: host.bursts[-1] > at_ns)
    return (min(burst for burst in host.bursts if burst > at_ns) - at_ns) / 10**9


def test_new_records_of_the_kernel_log_are_followed_by_an_exchange_within_a_second(shipping):
    host, append = shipping
    sent = []
    # Of another boot than what lies in front, with lower numbers; and then nothing new.
    for number, values in ((0, {}), (1, NOTHING)):
        time.sleep(1.3)
        sent.append(append(number, **values))
    time.sleep(1.1)
    new, nothing = (burst_s(host, at_ns) for at_ns in sent)
    assert new < 1.0 < nothing


def test_an_exchange_that_is_nearly_due_comes_with_an_acknowledgement(shipping):
    host, append = shipping
    append(0)
    until(lambda: len(host.bursts) == 3)  # the first, one behind new records, and the regular one when it was due
    for number in range(1, 5):
        # A machine that is busy may be late with the frame, and then it is due anyway.
        last_ns = host.bursts[-1]
        time.sleep(max(0, last_ns / 10**9 + relay_ship._PING_S - 0.4 - time.monotonic()))
        append(number, **NOTHING)
        until(lambda last_ns=last_ns: host.bursts[-1] > last_ns)
        gap_s = (host.bursts[-1] - last_ns) / 10**9
        assert gap_s > relay_ship._PING_S - 0.5
        if gap_s < relay_ship._PING_S - 0.1:
            return
    raise AssertionError(gap_s)


def test_whatever_came_when_a_regular_exchange_was_nearly_due_was_that_one(tmp_path):
    GuestLog(tmp_path).write([0])
    shipper = RelayShipper(tmp_path, "port", Hello("", "m", "b", "l", RELAY_WINDOW_BYTES_MAX, {}))
    sent = []
    shipper._send_ping = lambda: sent.append(1)
    shipper._end.link, shipper._ping_s, shipper._soon_s = 1, 5.0, 1.0
    # Behind new records that are not acknowledged yet, and then the acknowledgement.
    for now_s, unacked_bytes, pings in ((4.71, 1, 1), (4.72, 0, 1), (9.0, 0, 1), (9.22, 0, 2)):
        shipper._end.unacked_bytes = unacked_bytes
        shipper._ping(now_s)
        assert len(sent) == pings
    shipper.close()


def until(condition, timeout_s=20.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.parametrize("kwargs", [{"deaf": True}, {"deaf": True, "pings_max": 2}])
def test_a_host_that_does_not_answer_holds_up_an_end_for_a_moment_only(ship, kwargs):
    host, took_s = ship(**kwargs)
    assert host.timed == []
    assert took_s < relay_ship._LAST_BURST_S + 5
