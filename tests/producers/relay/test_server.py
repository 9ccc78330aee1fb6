"""Whose connection one over AF_VSOCK is: asked when it has come, of a listener whose peers' addresses are made up."""

import asyncio
import contextlib
import os
import signal

import pytest

from producers.relay.guest import Host
from producers.relay.server import Relay
from producers.relay.vms import Vm, Vsock
from schemas.config import Config, RelayConfig
from schemas.relay_guest import GuestEnd
from tests._logs import writer
from tests.producers.relay.test_link import until
from tests.producers.relay.test_ways import Peers

CONFIG = Config(relay=RelayConfig(metrics="off"))
GUEST, OTHER = 3, 4


@pytest.fixture
def story(tmp_path):
    """Call with the guests to begin with, which may change, and what is to be done with a relay and its listener."""

    def call(vms, what):
        log = writer(tmp_path / "log")
        peers = Peers(tmp_path)

        async def whole():
            relay = Relay(CONFIG, Host("h", "b"), lambda: list(vms), log, shipper=None, hold_bytes=None, vsock=peers)
            running = asyncio.create_task(relay.run())
            await asyncio.sleep(0)
            try:
                await what(relay, peers)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                await running

        asyncio.run(whole())
        log.close()

    return call


def greeted(connection):
    """Return how the relay calls whoever is at this end; None where it let go."""
    end = GuestEnd()
    end.opened()
    while data := connection.recv(1 << 16):
        for event in end.feed(data):
            return event.host.name
    return None


def test_a_connection_is_of_the_guest_that_has_its_cid(story):
    async def what(relay, peers):
        with contextlib.ExitStack() as opened:
            made = [opened.enter_context(peers.connect(cid)) for cid in (OTHER, GUEST, 1, 2, 9)]
            found = [await asyncio.to_thread(greeted, each) for each in made]
        assert found == ["db", "web", None, None, None]
        assert relay._strangers() == 3

    story([Vm("web", "", Vsock(GUEST)), Vm("db", "", Vsock(OTHER))], what)


def test_a_cid_that_another_guest_got_since_the_last_look_is_that_ones(story):
    vms = [Vm("web", "", Vsock(GUEST))]

    async def what(relay, peers):
        await until(lambda: relay._links)
        vms[:] = [Vm("db", "", Vsock(GUEST))]
        with peers.connect(GUEST) as made:
            assert await asyncio.to_thread(greeted, made) == "db"

    story(vms, what)


def test_the_newest_connection_of_a_guest_takes_the_place_of_the_one_before(story):
    async def what(relay, peers):
        with peers.connect(GUEST) as first:
            assert await asyncio.to_thread(greeted, first) == "web"
            with peers.connect(GUEST) as second:
                assert await asyncio.to_thread(greeted, second) == "web"
                assert first.recv(1) == b""
        (guest,) = relay._guests()
        assert guest.connections == 2

    story([Vm("web", "", Vsock(GUEST))], what)
