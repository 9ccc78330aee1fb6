"""A guest's socket as the relay serves it: real sockets and a real loop, the guest's end by hand."""

import asyncio
import contextlib
import random
import socket

import pytest

from producers.relay.guest import Guest, Host
from producers.relay.history import History
from producers.relay.link import READ_BYTES, Link
from producers.relay.vms import Connect, Vm
from schemas.config import RelayConfig
from schemas.frame import encode
from schemas.relay import HEADER_BYTES, Hello
from schemas.relay_guest import Acked, Greeted, GuestEnd, Ponged
from schemas.surfaces import TOPIC_LOG
from tests._logs import frame

HOST = Hello("web", "the-host", "host-boot", "host", 1 << 22, {})
CLAIMS = Hello("spool", "claimed", "boot", "guest-kernel", 0, {})
#: Far above what a test sends.
FREE = RelayConfig(guest_rate_bytes=1 << 40, guest_rate_packets=10_000_000)


class Peer:
    """A guest behind its port, and the link that serves it; `arrived` are its frames, `held` has it wait."""

    def __init__(self, folder, name="web", config=FREE):
        self.folder, self.name, self.config = folder, name, config
        self.guest = Guest(Vm(name, "", Connect(folder / f"{name}.sock")), Host("the-host", "host-boot"), History())
        self.end, self.arrived, self.events, self.held, self.asked = GuestEnd(), [], [], False, 0
        self.link = self.socket = self.listener = None

    def listen(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.guest.vm.way.at))
        self.listener.listen(1)
        self.listener.setblocking(False)

    def serve(self):
        self.link = Link(self.guest, HOST, self.config, lambda _, each: self.arrived.append(each), self._may_read)

    async def accept(self):
        """Take the relay's connection and greet it."""
        loop = asyncio.get_running_loop()
        self.socket, _ = await loop.sock_accept(self.listener)
        self.socket.setblocking(False)
        self.end.opened()
        await self.heard(Greeted)
        await self.send(self.end.hello(CLAIMS))

    async def start(self):
        self.listen()
        self.serve()
        await self.accept()

    async def send(self, data):
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def heard(self, kind, timeout_s=10):
        """Return the next event of this kind."""
        async with asyncio.timeout(timeout_s):
            while not (found := [each for each in self.events if isinstance(each, kind)]):
                data = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)
                assert data, "the relay let go"
                self.events += self.end.feed(data)
        self.events.remove(found[0])
        return found[0]

    def packet(self, number, body=b""):
        payload = encode(frame(number, body), compress=False)
        return self.end.frame(TOPIC_LOG, number, payload) + payload

    async def flood(self, per_s, body):
        """Send frames of `body`, `per_s` of them a second, until cancelled; count them in `sent`."""
        loop, number = asyncio.get_running_loop(), 0
        start_s = loop.time()
        while True:
            await self.send(self.packet(number, body))
            number += 1
            await asyncio.sleep(max(0.0, start_s + number / per_s - loop.time()))

    def close(self):
        if self.link is not None:
            self.link.close()
        for each in (self.socket, self.listener):
            if each is not None:
                each.close()

    def _may_read(self, link):
        assert link is self.link
        self.asked += 1
        return 0 if self.held else READ_BYTES


async def until(condition, timeout_s=10):
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@pytest.fixture
def run(tmp_path):
    """Call with what is to be done with a connected peer."""

    def call(story, *, connected=True, **kwargs):
        async def whole():
            peer = Peer(tmp_path, **kwargs)
            try:
                if connected:
                    await peer.start()
                await story(peer)
            finally:
                peer.close()

        asyncio.run(whole())

    return call


def test_a_port_that_is_not_there_is_tried_again_until_it_is(run):
    async def story(peer):
        peer.serve()
        await asyncio.sleep(0.05)
        assert not peer.guest.connected
        peer.listen()
        await peer.accept()
        assert (peer.guest.connected, peer.guest.connections) == (True, 1)

    run(story, connected=False)


def test_frames_arrive_in_order_however_the_bytes_are_cut(run):
    async def story(peer):
        data = b"".join(peer.packet(n, bytes(5000)) for n in range(20))
        for at in range(0, len(data), 777):
            await peer.send(data[at : at + 777])
        await until(lambda: len(peer.arrived) == 20)
        assert [each.offset for each in peer.arrived] == list(range(20))
        assert peer.guest.bytes > len(data)

    run(story)


def test_long_and_short_frames_arrive_whole_with_what_is_between_them(run):
    async def story(peer):
        bodies = [
            random.Random(n).randbytes(size) for n, size in enumerate((300_000, 10, 40_000, 40_000, 0, 1 << 20) * 3)
        ]
        sent = [encode(frame(n, body), compress=False) for n, body in enumerate(bodies)]
        for n, payload in enumerate(sent):
            await peer.send(peer.end.frame(TOPIC_LOG, n, payload) + payload)
            await peer.send(peer.end.ping(n, n))
        await until(lambda: len(peer.arrived) == len(sent))
        assert [each.payload for each in peer.arrived] == sent
        assert (await peer.heard(Ponged)).number == 0
        assert peer.guest.refused.total() == 0

    run(story)


def test_of_acknowledgements_the_newest_of_a_topic_is_what_a_guest_gets_that_did_not_read(run):
    async def story(peer):
        await peer.send(b"".join(peer.packet(n) for n in range(5000)))
        await until(lambda: len(peer.arrived) == 5000)
        for each in peer.arrived:
            peer.link.ack(each.topic, each.offset + 1, each.check)
        assert len(peer.link._out) <= 16 << 10
        taken = 0
        while taken < 5000:
            taken += (await peer.heard(Acked)).frames
        assert not peer.end.waiting

    run(story)


def test_who_is_told_to_wait_is_asked_no_more_until_it_is_resumed(run):
    async def story(peer):
        peer.held = True
        asked = peer.asked
        await peer.send(peer.packet(0))
        await asyncio.sleep(0.1)
        assert (peer.asked, peer.arrived) == (asked + 1, [])
        peer.held = False
        peer.link.resume()
        await until(lambda: peer.arrived)

    run(story)


def test_a_packet_that_does_not_go_on_is_given_up_and_what_follows_is_read(run):
    async def story(peer):
        await peer.send(peer.packet(0, bytes(1000))[: HEADER_BYTES + 10])
        await until(lambda: peer.guest.refused["broken-off"], 5)
        await peer.send(peer.packet(1))
        await until(lambda: peer.arrived)
        assert [each.offset for each in peer.arrived] == [1]

    run(story)


def test_a_packet_whose_rest_nobody_read_is_not_broken_off(run):
    async def story(peer):
        data = peer.packet(0, bytes(1000))
        await peer.send(data[:-10])
        await until(lambda: peer.link.end.open)
        peer.held = True
        await peer.send(data[-10:])
        await asyncio.sleep(2.3)
        peer.held = False
        peer.link.resume()
        await until(lambda: peer.arrived)
        assert not peer.guest.refused

    run(story)


def test_a_connection_that_ends_is_made_again_under_another_number(run):
    async def story(peer):
        first = peer.link.end.link
        await peer.send(peer.packet(0, bytes(1000))[:-10])
        await until(lambda: peer.link.end.open)
        late = peer.packet(1)
        peer.socket.close()
        await until(lambda: not peer.guest.connected)
        assert peer.guest.refused == {"broken-off": 1}
        await peer.accept()
        assert peer.link.end.link not in (0, first)
        await peer.send(late + peer.packet(0))
        await until(lambda: peer.arrived)
        assert [each.offset for each in peer.arrived] == [0]
        assert (peer.guest.connections, peer.link.end.stale) == (2, 1)

    run(story)


def test_a_guest_that_went_while_nobody_reads_it_is_owed_nothing_more(run):
    async def story(peer):
        await peer.send(peer.packet(0))
        await until(lambda: peer.arrived)
        peer.held = True
        await peer.send(peer.packet(1))
        await asyncio.sleep(0.05)
        peer.socket.close()
        peer.link.ack(TOPIC_LOG, 1, peer.arrived[0].check)
        assert (peer.link._out, peer.link._acks) == (b"", {})
        peer.held = False
        peer.link.resume()
        await until(lambda: len(peer.arrived) == 2)
        await until(lambda: not peer.guest.connected)

    run(story)


def test_a_ping_is_answered_between_two_readings_of_the_hosts_clock(run):
    async def story(peer):
        await peer.send(peer.end.ping(4, 100))
        pong = await peer.heard(Ponged)
        assert (pong.number, pong.t0_ns) == (4, 100)
        assert 0 < pong.t1_ns <= pong.t2_ns
        await peer.send(peer.end.times(4, 100, 130))
        await until(lambda: peer.guest._exchanged)

    run(story)


def test_a_guest_that_does_not_read_gets_no_pongs_and_costs_no_memory(run):
    async def story(peer):
        sent = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while True:
                    await peer.send(peer.end.ping(sent, 100))
                    sent += 1
        await until(lambda: peer.link._out)
        assert sent > 1000
        assert len(peer.link._out) <= 16 << 10

    run(story)


def test_a_closed_link_lets_go_and_connects_no_more(run):
    async def story(peer):
        await until(lambda: peer.link.end.greeted)
        peer.link.close()
        assert await asyncio.get_running_loop().sock_recv(peer.socket, 10) == b""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await asyncio.get_running_loop().sock_accept(peer.listener)

    run(story)


def test_a_guest_at_ten_times_its_rate_is_slowed_to_it_and_its_neighbour_is_not(tmp_path):
    seconds, rate_bytes, rate_packets = 3, 1 << 20, 120
    by_bytes = RelayConfig(guest_rate_bytes=rate_bytes, guest_rate_packets=10_000_000)
    by_packets = RelayConfig(guest_rate_bytes=1 << 40, guest_rate_packets=rate_packets)
    body = bytes(16_000)

    async def whole():
        loud, hasty, calm = peers = [
            Peer(tmp_path, name, config)
            for name, config in (("loud", by_bytes), ("hasty", by_packets), ("calm", by_bytes))
        ]
        for peer in peers:
            await peer.start()
        per_s = rate_bytes / len(body)
        floods = [
            asyncio.create_task(peer.flood(*how))
            for peer, *how in ((loud, 10 * per_s, body), (hasty, 10 * rate_packets, bytes(4000)), (calm, 50, body))
        ]
        start = [(peer.guest.bytes, len(peer.arrived)) for peer in peers]
        await asyncio.sleep(seconds)
        end = [(peer.guest.bytes, len(peer.arrived)) for peer in peers]
        for each in floods:
            each.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        for peer in peers:
            peer.close()
        return [(two[0] - one[0], two[1] - one[1]) for one, two in zip(start, end, strict=True)]

    loud, hasty, calm = asyncio.run(whole())
    # After a silence a second's share comes at once.
    assert loud[0] == pytest.approx(rate_bytes * (seconds + 1), rel=0.1)
    assert hasty[1] == pytest.approx(rate_packets * (seconds + 1), rel=0.1)
    assert calm[1] == pytest.approx(50 * seconds, rel=0.1)
