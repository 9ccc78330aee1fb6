"""A guest's port over what behaves like one here: UNIX sockets, and pseudo-terminals, which hang up as a port does."""

import errno
import os
import pty
import re
import select
import socket
import tty
from pathlib import Path

import pytest

from producers.relay.port import Port, verify
from schemas.errors import UsageError

_WRITE_BYTES = 32 << 10


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "port"))
        made.listen(1)
        yield made


@pytest.fixture
def at_socket(listener):
    port = Port(listener.getsockname())
    host, _ = listener.accept()
    yield port, host
    port.close()
    host.close()


class Held:
    """A descriptor that is closed once."""

    def __init__(self, fd):
        self.fd = fd

    def fileno(self):
        return self.fd

    def close(self):
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def open_files():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.fixture
def at_terminal():
    host, guest = pty.openpty()
    tty.setraw(guest)
    port = Port(os.ttyname(guest))
    os.close(guest)
    held = Held(host)
    yield port, held
    held.close()
    port.close()


def test_bytes_go_both_ways_over_a_socket(at_socket):
    port, host = at_socket
    assert port.read() is None
    host.sendall(b"to the guest")
    assert port.read() == b"to the guest"
    assert port.write(b"to the host") == 11
    assert host.recv(100) == b"to the host"
    assert not port.hung_up()


def test_bytes_go_both_ways_over_a_terminal(at_terminal):
    port, host = at_terminal
    assert port.read() is None
    os.write(host.fd, b"\x00\x03\r to the guest\xff")
    assert select.select([port], [], [], 5)[0]
    assert port.read() == b"\x00\x03\r to the guest\xff"
    assert port.write(b"\x00\x04\n to the host") == 15
    assert os.read(host.fd, 100) == b"\x00\x04\n to the host"
    assert not port.hung_up()


@pytest.mark.parametrize("which", ["at_socket", "at_terminal"])
def test_a_host_that_does_not_read_takes_no_bytes_and_does_not_hang_up(which, request):
    port, host = request.getfixturevalue(which)
    sent = 0
    while taken := port.write(bytes(1 << 20)):
        assert taken <= _WRITE_BYTES
        sent += taken
    assert sent
    assert not port.hung_up()
    read = 0
    while read < sent:
        read += len(os.read(host.fileno(), 1 << 16))
    assert select.select([], [port], [], 5)[1]
    assert port.write(b"again") == 5


@pytest.mark.parametrize("which", ["at_socket", "at_terminal"])
def test_a_host_that_is_gone_hangs_up_and_both_ways_are_errors(which, request):
    port, host = request.getfixturevalue(which)
    host.close()
    assert port.hung_up()
    with pytest.raises(OSError):  # noqa: PT011 - EIO, EPIPE or an end of file
        port.read()
    with pytest.raises(OSError):  # noqa: PT011
        port.write(b"x")


def test_what_a_host_sent_before_it_went_is_read_before_its_end(at_socket):
    port, host = at_socket
    host.sendall(b"last words")
    host.close()
    assert port.read() == b"last words"
    with pytest.raises(ConnectionResetError, match="the host's end is gone"):
        port.read()


def test_a_port_whose_host_end_nobody_has_open_is_not_opened(monkeypatch):
    host, guest = pty.openpty()
    before = open_files()
    name = os.ttyname(guest)
    tty.setraw(guest)
    # A terminal without its other end cannot be opened at all, unlike a port: so that goes right behind the opening.
    real = os.open

    def opened(*words, **more):
        fd = real(*words, **more)
        os.close(host)
        return fd

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(ConnectionRefusedError, match=f"{name}: nobody has the host's end open"):
        Port(name)
    monkeypatch.undo()
    assert open_files() == before - 1
    os.close(guest)


def test_a_socket_at_which_nobody_listens_is_refused_and_nothing_is_left_open(tmp_path, listener):
    listener.close()
    before = open_files()
    with pytest.raises(ConnectionRefusedError):
        Port(str(tmp_path / "port"))
    with pytest.raises(FileNotFoundError):
        Port(str(tmp_path / "none"))
    assert open_files() == before


def test_a_vsock_at_which_nobody_listens_is_refused_at_once_and_nothing_is_left_open():
    before = open_files()
    # Of a machine without a vsock the address is not there, of one with it nobody listens, or answers in time.
    with pytest.raises(OSError) as e:  # noqa: PT011
        Port("vsock:1:4294967200")
    allowed = {errno.ENODEV, errno.ECONNREFUSED, errno.ECONNRESET, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
    assert e.value.errno in allowed | {errno.ETIMEDOUT} or isinstance(e.value, TimeoutError)
    assert str(e.value)
    assert open_files() == before


@pytest.mark.parametrize("text", ["vsock:2", "vsock:2:x", "vsock:-1:5", "vsock:2:50000:1"])
def test_what_is_no_vsock_is_a_path(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(text)):
        Port(text)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(text)
        made.listen(1)
        Port(text).close()
    Path(text).unlink()


def test_a_file_is_no_port_and_stays_as_it_is(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for name in ("README.md", "pipe", "."):
        with pytest.raises(UsageError, match="neither a port"):
            verify(str(tmp_path / name))
        with pytest.raises(OSError, match="No such device"):
            Port(str(tmp_path / name))
    assert path.read_text() == "mine"


@pytest.mark.parametrize("text", ["vsock:2", "vsock:x:1", "vsock:2:50000:1", "vsock:"])
def test_a_vsock_that_is_written_wrong_is_not_waited_for(text):
    with pytest.raises(UsageError, match="vsock:CID:PORT"):
        verify(text)


def test_what_may_be_a_port_later_is_let_pass(tmp_path, listener):
    for where in ("/dev/null", str(tmp_path / "none"), listener.getsockname(), "vsock:2:6100"):
        verify(where)
