"""How connections come: real UNIX sockets and a real loop; of AF_VSOCK the peer's address alone is made up.

No machine without guests has a vsock of which a connection with a guest's CID comes; `tests/guest` has a kernel's own.
"""

import asyncio
import contextlib
import os
import socket
import stat

import pytest

from producers.relay import ways
from producers.relay.vms import Connect, Listen, Vm, Vsock
from producers.relay.ways import Came, Listener, VsockDoor, listen_vsock, opener
from schemas.errors import UsageError
from tests.producers.relay.test_link import until


def connected(path):
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(path))
    made.settimeout(5)
    return made


class Served(list):
    """The connections that came; closed at the end."""

    def close(self):
        for each in self:
            each.close()


@pytest.fixture
def served():
    made = Served()
    yield made
    made.close()


def test_who_comes_by_the_vsock_of_all_needs_nothing_of_its_own(tmp_path, served):
    async def story():
        assert opener(Vm("web", "", Vsock(3)), served.append) is None
        for way in (Connect(tmp_path / "none"), Listen(tmp_path / "here")):
            opener(Vm("web", "", way), served.append).close()

    asyncio.run(story())
    assert list(tmp_path.iterdir()) == []


def test_whoever_connects_is_served_and_the_socket_is_for_the_group(tmp_path, served):
    path = tmp_path / "vm.sock_5000"

    async def story():
        listener = Listener("web", path, served.append)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with connected(path) as guest:
            await until(lambda: served)
            guest.sendall(b"x")
            assert served[0].recv(1) == b"x"
        listener.close()
        assert not path.exists()

    asyncio.run(story())


def test_of_many_connections_at_once_the_newest_counts_and_more_wait(tmp_path, served, monkeypatch):
    monkeypatch.setattr(ways, "_AGAIN_S", 0.3)
    path = tmp_path / "s"

    async def story():
        listener = Listener("web", path, served.append)
        with contextlib.ExitStack() as opened:
            guests = [opened.enter_context(connected(path)) for _ in range(5)]
            await until(lambda: served)
            guests[-1].sendall(b"x")
            assert served[0].recv(1) == b"x"
            assert [each.recv(1) for each in guests[:-1]] == [b""] * 4
            later = opened.enter_context(connected(path))
            await asyncio.sleep(0.05)
            assert len(served) == 1
            await until(lambda: len(served) == 2)
            later.sendall(b"y")
            assert served[1].recv(1) == b"y"
        listener.close()

    asyncio.run(story())


def test_a_socket_that_a_killed_relay_left_is_replaced_and_one_in_use_is_not(tmp_path, served, monkeypatch):
    monkeypatch.setattr(ways, "_AGAIN_S", 0.05)
    path, other = tmp_path / "s", Served()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    async def story():
        listener = Listener("web", path, served.append)
        late = Listener("web", path, other.append)
        with connected(path):
            await until(lambda: served)
            await asyncio.sleep(0.2)
            # The other tried several times meanwhile, and whom it tried has nothing of it.
            assert (len(served), other) == (1, [])
            listener.close()
            await until(path.exists)
            with connected(path):
                await until(lambda: other)
        late.close()

    asyncio.run(story())
    other.close()


def test_what_lies_there_and_is_no_socket_stays(tmp_path, served, monkeypatch):
    monkeypatch.setattr(ways, "_AGAIN_S", 0.05)
    path = tmp_path / "s"
    path.write_text("kept")

    async def story():
        listener = Listener("web", path, served.append)
        await asyncio.sleep(0.2)
        listener.close()

    asyncio.run(story())
    assert path.read_text() == "kept"


class Peers:
    """A listening socket whose peers have the CIDs that a test says, each from a port of its own."""

    def __init__(self, folder):
        self.path = folder / "vsock"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen(64)
        self._socket.setblocking(False)
        self._cids = []

    def connect(self, cid):
        self._cids.append(cid)
        return connected(self.path)

    def fileno(self):
        return self._socket.fileno()

    def accept(self):
        made, _ = self._socket.accept()
        return made, (self._cids.pop(0), 1024)

    def close(self):
        self._socket.close()


@pytest.fixture
def peers(tmp_path):
    made = Peers(tmp_path)
    yield made
    made.close()


async def came(door, count):
    found = []
    async with asyncio.timeout(10):
        while len(found) < count:
            await asyncio.sleep(0.02)
            found += door.take()
    return found


def test_each_connection_has_its_cid_and_of_one_cid_the_newest_is_left(peers):
    async def story():
        door = VsockDoor(peers)
        with contextlib.ExitStack() as opened:
            guests = [opened.enter_context(peers.connect(cid)) for cid in (3, 4, 3)]
            await asyncio.sleep(0.1)
            first, second = await came(door, 2)
            assert [first.cid, second.cid] == [4, 3]
            for each, guest in ((first, guests[1]), (second, guests[2])):
                guest.sendall(b"x")
                assert each.socket.recv(1) == b"x"
                each.socket.close()
            assert guests[0].recv(1) == b""
        door.close()

    asyncio.run(story())


def test_who_is_refused_is_let_go_and_counted(peers):
    async def story():
        door = VsockDoor(peers)
        with peers.connect(2) as host:
            for each in await came(door, 1):
                assert isinstance(each, Came)
                door.refuse(each)
            assert host.recv(1) == b""
        assert door.strangers == 1
        door.close()

    asyncio.run(story())


def test_more_cids_than_there_are_guests_are_not_kept(peers, monkeypatch):
    monkeypatch.setattr(ways, "VMS_MAX", 20)

    async def story():
        door = VsockDoor(peers)
        with contextlib.ExitStack() as opened:
            guests = [opened.enter_context(peers.connect(cid)) for cid in range(3, 43)]
            await until(lambda: door.strangers == 20)
            assert guests[0].recv(1) == b""
            assert len(door.take()) == 20
        door.close()

    asyncio.run(story())


def test_who_waits_when_the_door_closes_is_let_go(peers):
    async def story():
        door = VsockDoor(peers)
        with peers.connect(3) as guest:
            await until(lambda: door._came)
            door.close()
            assert guest.recv(1) == b""

    asyncio.run(story())


@pytest.mark.parametrize("port", [0, -1, (1 << 32) - 1, 1 << 40])
def test_what_is_no_port_of_a_vsock_is_refused(port):
    with pytest.raises(UsageError, match="--vsock"):
        listen_vsock(port)


def test_a_port_of_a_vsock_is_listened_on_once_where_there_is_one():
    port = 50_000 + os.getpid()
    try:
        socket.socket(socket.AF_VSOCK).close()
    except OSError:
        with pytest.raises(UsageError, match=f"--vsock {port}: "):
            listen_vsock(port)
        return
    first = listen_vsock(port)
    with pytest.raises(UsageError, match=f"--vsock {port}: .* in use"):
        listen_vsock(port)
    first.close()
