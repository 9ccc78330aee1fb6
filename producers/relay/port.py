"""The guest's way out: a virtio-serial port, a vsock or a UNIX socket, opened without waiting, read and written so.

A port whose host end nobody has open hangs up (poll(2): POLLHUP), takes no bytes and reads as ended; one whose host is
slow takes no bytes and does not hang up. Opening it again lets go of what a reader before us left in it.
"""

import errno
import os
import re
import select
import socket
import stat
from typing import Final

from schemas.errors import UsageError

_READ_BYTES: Final = 64 << 10
# The driver takes no more of one write(2): drivers/char/virtio_console.c, port_fops_write.
_WRITE_BYTES: Final = 32 << 10
_VSOCK: Final = re.compile(r"vsock:([0-9]{1,10}):([0-9]{1,10})")


def verify(where: str) -> None:
    """Verify that `where` may be a port: `vsock:CID:PORT`, or a path where a port or a socket is, or nothing yet.

    Raises:
        UsageError: it is something else; nothing is ever written to that.
    """
    if where.startswith("vsock:"):
        if _VSOCK.fullmatch(where) is None:
            raise UsageError(f"a vsock is vsock:CID:PORT, as in vsock:2:6100, not {where!r:.80}")
        return
    try:
        mode = os.stat(where).st_mode  # noqa: PTH116 - may be any text
    except (OSError, ValueError):
        return
    if not _is_port(mode):
        raise UsageError(f"{where} is neither a port (a character device) nor a socket, and not written to")


def _is_port(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


class Port:
    """The open port `where`: a path, or `vsock:CID:PORT`.

    Raises:
        OSError: it cannot be opened now, or its host end is not there.
    """

    def __init__(self, where: str) -> None:
        self._socket: socket.socket | None = None
        vsock = _VSOCK.fullmatch(where)
        if vsock is not None:
            self._connect(socket.socket(socket.AF_VSOCK), (int(vsock[1]), int(vsock[2])))
        elif stat.S_ISSOCK(mode := os.stat(where).st_mode):  # noqa: PTH116 - may be any text
            self._connect(socket.socket(socket.AF_UNIX), where)
        elif not _is_port(mode):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), where)
        else:
            self._fd = os.open(where, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        if self.hung_up():
            self.close()
            raise ConnectionRefusedError(f"{where}: nobody has the host's end open")

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._fd

    def hung_up(self) -> bool:
        """Return whether the host's end is gone."""
        poll = select.poll()
        poll.register(self._fd, 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))

    def read(self) -> bytes | None:
        """Return what came, None where nothing did.

        Raises:
            OSError: the host's end is gone.
        """
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionResetError("the host's end is gone")
        return data

    def write(self, data: bytes | memoryview) -> int:
        """Return how many bytes of `data` were taken, 0 where there is no room.

        Raises:
            OSError: the host's end is gone.
        """
        try:
            return os.write(self._fd, data[:_WRITE_BYTES])
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Release it."""
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._fd)

    def _connect(self, made: socket.socket, address: str | tuple[int, int]) -> None:
        try:
            made.settimeout(1.0)
            made.connect(address)
            made.setblocking(False)
        except OSError:
            made.close()
            raise
        self._socket, self._fd = made, made.fileno()
