"""Serves metrics to whoever scrapes them: HTTP/1.1 as far as `GET /metrics` takes it (RFC 9112), in a thread.

The standard library's server would cost each agent's start 17 ms and more than a MiB for what is a page of code here.
While nobody asks, the thread waits in accept(2). It takes one connection at a time, for a bounded time, and rests after
each, so that no client costs the program more than some ten answers a second.
"""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from schemas import metrics_address
from schemas.metrics import CONTENT_TYPE
from schemas.metrics_address import Address

log = logging.getLogger(__name__)
_BACKLOG: Final = 16
_REQUEST_BYTES_MAX: Final = 1 << 13
_CONNECTION_S: Final = 2.0
#: Between two connections: anybody on the machine may ask, and a thread that is always busy would slow the drain.
_REST_S: Final = 0.1
_REFUSED_S: Final = 1.0
_STOP_S: Final = 5.0


class MetricsServer:
    """Serves what `text` returns at `address`; `text` is called in the server's thread, once for each scrape.

    Raises:
        OSError: the address is taken, or not this machine's.
    """

    def __init__(self, address: Address, text: Callable[[], bytes]) -> None:
        self._text = text
        self._closing = threading.Event()
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        with contextlib.ExitStack() as undo:
            undo.callback(self._socket.close)
            # Of a port that an ended process held; never of one that is still listened at.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((address.host, address.port))
            self._socket.listen(_BACKLOG)
            undo.pop_all()
        self.address = Address(*self._socket.getsockname()[:2])
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; idempotent."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # which ends accept(2); close(2) would not
        self._thread.join(_STOP_S)
        self._socket.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                self._closing.wait(_REFUSED_S)  # too many open files, say
                continue
            with connection, contextlib.suppress(OSError):
                self._answer(connection)
            self._closing.wait(_REST_S)

    def _answer(self, connection: socket.socket) -> None:
        deadline_s = time.monotonic() + _CONNECTION_S
        request = b""
        while b"\r\n\r\n" not in request:
            wait_s = deadline_s - time.monotonic()
            if wait_s <= 0 or len(request) > _REQUEST_BYTES_MAX:
                return
            connection.settimeout(wait_s)
            data = connection.recv(_REQUEST_BYTES_MAX)
            if not data:
                return
            request += data
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        connection.settimeout(_CONNECTION_S)
        connection.sendall(self._response(method, path))

    def _response(self, method: bytes, path: bytes) -> bytes:
        if path != b"/metrics":
            return _response("404 Not Found", "text/plain", b"there is /metrics\n", method)
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "text/plain", b"GET it\n", method)
        return _response("200 OK", CONTENT_TYPE, self._text(), method)


def serve(where: str, text: Callable[[], bytes]) -> MetricsServer | None:
    """Serve `text` at `where`, as the configuration has it; None where that is `off` or cannot be.

    A port that is taken is a warning: nothing else depends on it, and another instance of the program may have it.
    """
    address = metrics_address.parse(where)
    if address is None:
        return None
    try:
        server = MetricsServer(address, text)
    except OSError as e:
        log.warning("no metrics: %s cannot be served (%s); give --metrics another port, or off", where, e.strerror or e)
        return None
    log.info("metrics are at %s", server.address.url)
    return server


def _response(status: str, content_type: str, body: bytes, method: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)
