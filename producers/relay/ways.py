"""How a guest's connection comes to be: the relay connects to a UNIX socket, listens on one, or on an AF_VSOCK port.

A VMM with a virtio-serial port listens, QEMU's chardev. One whose vsock is in user space connects, for a guest that
connects to CID 2 and port P, to the path of its own socket with `_P` behind: vhost-device-vsock, Firecracker's
docs/vsock.md, Cloud Hypervisor's docs/vsock.md. With vhost-vsock the kernel hands connections over: vsock(7).
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from producers.relay.vms import VMS_MAX, Connect, Listen, Vm
from schemas.errors import UsageError

log = logging.getLogger(__name__)
_AGAIN_S: Final = 1.0
#: Connections that wait to be taken, and how many are taken at once.
_BACKLOG: Final = 16
#: So long nobody is let in after so many at once: a guest that floods costs others the time to get in, and no more.
_REST_S: Final = 0.01
#: VMMs run as users of their own: who of them may connect, the socket's group says, and the folder that it is in.
_MODE: Final = 0o660

Serve = Callable[[socket.socket], None]


class Opener(Protocol):
    """Sees to it that a guest is connected."""

    def lost(self) -> None:
        """Take note that the connection is gone."""

    def close(self) -> None:
        """Stop, for good."""


def opener(vm: Vm, serve: Serve) -> Opener | None:
    """Return what hands the connections of `vm` to `serve`, the newest being the one that counts.

    None where its connections come through the vsock of all guests.
    """
    if isinstance(vm.way, Connect):
        return Dialer(vm.name, vm.way.at, serve)
    if isinstance(vm.way, Listen):
        return Listener(vm.name, vm.way.at, serve)
    return None


class _Complaint:
    # Says what is wrong once, however often it is tried.
    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path, self._said = name, path, ""

    def __call__(self, e: OSError) -> None:
        if str(e) != self._said:
            self._said = str(e)
            log.warning("%s at %s: %s; trying again", self._name, self._path, e.strerror or e)

    def over(self) -> None:
        self._said = ""


class Dialer:
    """Connects to the socket at `path` now, and a second after each time that it failed or was lost."""

    def __init__(self, name: str, path: Path, serve: Serve) -> None:
        self._path, self._serve, self._complain = path, serve, _Complaint(name, path)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._dial()

    def lost(self) -> None:
        """Try again in a second."""
        self._timer = self._loop.call_later(_AGAIN_S, self._dial)

    def close(self) -> None:
        """Try no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _dial(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            made.connect(str(self._path))
        except OSError as e:
            made.close()
            self._complain(e)
            self.lost()
            return
        self._complain.over()
        self._serve(made)


class Listener:
    """Listens at `path`; each second the newest of the connections made there is served, the others are let go."""

    def __init__(self, name: str, path: Path, serve: Serve) -> None:
        self._path, self._serve, self._complain = path, serve, _Complaint(name, path)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        self._inode = 0
        self._listen()

    def lost(self) -> None:
        """Leave it to the VMM to connect again."""

    def close(self) -> None:
        """Listen no more, and take the socket away."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == self._inode:  # it may be another's by now
                    self._path.unlink()

    def _listen(self) -> None:
        try:
            self._socket = _listening(self._path)
            self._inode = self._path.stat().st_ino
        except OSError as e:
            self._complain(e)
            self._timer = self._loop.call_later(_AGAIN_S, self._listen)
            return
        self._complain.over()
        self._wait()

    def _wait(self) -> None:
        assert self._socket is not None
        self._loop.add_reader(self._socket, self._accept)

    # What a guest makes without end waits in front of the door, and holds up only its own VMM.
    def _accept(self) -> None:
        assert self._socket is not None
        self._loop.remove_reader(self._socket)
        self._timer = self._loop.call_later(_AGAIN_S, self._wait)
        newest: socket.socket | None = None
        with contextlib.suppress(OSError):  # nobody is there any more, or there is no descriptor left
            for _ in range(_BACKLOG):
                made, _ = self._socket.accept()
                if newest is not None:
                    newest.close()
                newest = made
        if newest is not None:
            newest.setblocking(False)
            self._serve(newest)


# A socket that a relay left which was killed is replaced; one at which somebody listens is not.
def _listening(path: Path) -> socket.socket:
    with contextlib.ExitStack() as undo:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        undo.callback(made.close)
        if _is_left_over(path):
            path.unlink()
        os.fchmod(made.fileno(), 0o600)  # what the path gets, until it is given to the others
        made.bind(str(path))
        path.chmod(_MODE)
        made.listen(_BACKLOG)
        undo.pop_all()
    return made


def _is_left_over(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            # Of another type than ours, so that who listens there gets no connection of it.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as tried:
                return tried.connect_ex(str(path)) == errno.ECONNREFUSED
    return False


class Accepting(Protocol):
    """What `VsockDoor` needs of a listening AF_VSOCK socket: the address of a peer is (CID, port), by the kernel."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def accept(self) -> tuple[socket.socket, tuple[int, int]]:
        """Return the next connection and who made it."""

    def close(self) -> None:
        """Release it."""


def listen_vsock(port: int) -> Accepting:
    """Return a socket that listens on `port` of AF_VSOCK.

    Raises:
        UsageError: it is no port, this machine has no vsock, or the port is taken.
    """
    if not 0 < port < socket.VMADDR_PORT_ANY:
        raise UsageError(f"--vsock {port}: a port is 1 to {socket.VMADDR_PORT_ANY - 1}")
    try:
        made = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            made.bind((socket.VMADDR_CID_ANY, port))
            made.listen(_BACKLOG)
        except OSError:
            made.close()
            raise
    except OSError as e:
        raise UsageError(f"--vsock {port}: {e.strerror or e}") from None
    return made


class Came(NamedTuple):
    """A connection of whoever has the CID now."""

    cid: int
    socket: socket.socket


class VsockDoor:
    """Takes the connections of all guests at `listener`; the newest of each CID waits for `take`.

    Whose a CID is may change while a connection waits: ask only after `take`, and begin with a greeting that whoever
    is at its other end has to answer.
    """

    def __init__(self, listener: Accepting) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._came: dict[int, socket.socket] = {}
        self._last = 0
        #: Connections of CIDs that are no guest's, which were let go.
        self.strangers = 0
        self._told = 0
        self._wait()

    def take(self) -> list[Came]:
        """Return what came since the last call; each is the caller's now."""
        came, self._came = self._came, {}
        return [Came(*each) for each in came.items()]

    def refuse(self, came: Came) -> None:
        """Let go of a connection of no guest, and count it."""
        came.socket.close()
        self.strangers += 1
        self._last = came.cid

    def report(self) -> None:
        """Say how many were refused since the last report, if any were."""
        if self.strangers > self._told:
            log.warning("vsock: refused %d of no guest, the last of CID %d", self.strangers - self._told, self._last)
            self._told = self.strangers

    def close(self) -> None:
        """Take no more, and let go of who waits."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for each in self.take():
            each.socket.close()

    def _wait(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_BACKLOG):
            try:
                made, (cid, _) = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # it is gone again, or there is no descriptor left
                break
            made.setblocking(False)
            before = self._came.pop(cid, None)
            if before is not None:
                before.close()
            self._came[cid] = made
            if len(self._came) > VMS_MAX:  # more than there are guests: somebody else's VMs
                oldest = next(iter(self._came))
                self.refuse(Came(oldest, self._came.pop(oldest)))
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(_REST_S, self._wait)
