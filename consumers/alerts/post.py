"""One request to an Alertmanager: POST /api/v2/alerts, an array of alerts.

Source: Alertmanager, api/v2/openapi.yaml. 200 takes all; 400 says that at least one alert is bad, and takes the others.
RFC 9110, section 10.2.3: Retry-After is seconds or a date.
"""

import email.utils
import http.client
import json
import math
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from consumers.alerts.access import OPEN, Access
from consumers.alerts.outbox import Answer
from schemas import tls

_PATH: Final = "/api/v2/alerts"
_REASON_BYTES_MAX: Final = 300
_WAIT_S_MAX: Final = 86_400
#: The alerts themselves are refused; every other status is about the way there, or the Alertmanager's state.
_BAD: Final = frozenset((400, 413, 422))
_LOGIN: Final = frozenset((401, 403))
_PORTS: Final = {"http": 80, "https": 443}


class Reply(NamedTuple):
    """What became of a request, why it was not taken, and how long the other side asks to be left alone."""

    answer: Answer
    why: str = ""
    wait_ns: int = 0


class Client:
    """Posts to the Alertmanager at `url`, each request on a connection of its own. No proxy, no redirection."""

    def __init__(self, url: str, timeout_s: float, access: Access = OPEN) -> None:
        parts = urlsplit(url)
        self.url = url
        self._host, self._port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        self._path = parts.path.rstrip("/") + _PATH
        self._context = (access.context or ssl.create_default_context()) if parts.scheme == "https" else None
        self._headers = {"Content-Type": "application/json", "Connection": "close", **access.headers}
        self._timeout_s = timeout_s

    def post(self, body: list[dict[str, Any]]) -> Reply:
        """Post `body`. To be connected and then to be answered takes up to the timeout each, however it is spent."""
        try:
            link = socket.create_connection((self._host, self._port), self._timeout_s)
        except OSError as e:
            return Reply(Answer.FAILED, f"{type(e).__name__}: {e}")
        deadline_s = time.monotonic() + self._timeout_s
        try:
            if self._context is not None:
                link = self._context.wrap_socket(link, server_hostname=self._host, do_handshake_on_connect=False)
            with link:
                return self._asked(link, json.dumps(body).encode())
        except (OSError, http.client.HTTPException, ValueError) as e:
            if time.monotonic() >= deadline_s:
                return Reply(Answer.FAILED, f"no whole answer within {self._timeout_s:g} s")
            if isinstance(e, ssl.SSLCertVerificationError):
                return Reply(Answer.FAILED, f"its certificate is not trusted: {e.verify_message}")
            if isinstance(e, ssl.SSLError):
                return Reply(Answer.FAILED, f"it does not speak TLS as it should: {tls.why(e)}")
            return Reply(Answer.FAILED, f"{type(e).__name__}: {e}")

    # A timeout of the socket bounds each read, and somebody may send a byte at a time: so at the end the line is cut.
    def _asked(self, link: socket.socket, data: bytes) -> Reply:
        late = threading.Event()
        cutter = threading.Timer(self._timeout_s, _cut, (link, late))
        cutter.daemon = True
        cutter.start()
        connection = http.client.HTTPConnection(self._host, self._port)
        try:
            if isinstance(link, ssl.SSLSocket):
                link.do_handshake()
            connection.sock = link
            response = _answer(connection, self._path, data, self._headers)
            # What is cut among the headers passes for their end.
            if late.is_set():
                raise TimeoutError
            status = response.status
            if status in range(200, 300):
                return Reply(Answer.TAKEN)
            why = f"HTTP {status} {response.reason}: {_said(response)}"
        finally:
            cutter.cancel()
            cutter.join()
            connection.close()
        if status in _LOGIN:
            why = f"it refuses the login, or wants one: {why}"
        elif status in range(300, 400):
            why = f"it sends to {response.getheader('Location', 'nowhere')!r:.200}, and only a configured URL is asked"
        answer = Answer.REFUSED if status in _BAD else Answer.FAILED
        return Reply(answer, why, _wait_ns(response.getheader("Retry-After")))


# Who refuses by the headers alone (a login, a size, HTTP where TLS is wanted) may answer and close before all is sent.
def _answer(
    connection: http.client.HTTPConnection, path: str, data: bytes, headers: dict[str, str]
) -> http.client.HTTPResponse:
    try:
        connection.request("POST", path, data, headers)
    except (BrokenPipeError, ConnectionResetError) as unsent:
        try:
            return connection.getresponse()
        except (OSError, http.client.HTTPException):
            raise unsent from None
    return connection.getresponse()


# The status alone decides; of a reason, what came before its end or the connection's.
def _said(response: http.client.HTTPResponse) -> str:
    found = b""
    with suppress(OSError, http.client.HTTPException, ValueError):
        while piece := response.read1(_REASON_BYTES_MAX - len(found)):
            found += piece
    return found.decode("utf-8", "replace").strip()


# That of the socket alone: the one of TLS forgets its state, in which another thread reads.
def _cut(link: socket.socket, late: threading.Event) -> None:
    late.set()  # before whoever reads wakes up
    with suppress(OSError):
        socket.socket.shutdown(link, socket.SHUT_RDWR)


def _wait_ns(text: str | None) -> int:
    if text is None:
        return 0
    try:
        wait_s = float(text) if text.strip().isdigit() else email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return 0
    if not text.strip().isdigit():
        wait_s -= time.time()
    return int(min(max(wait_s, 0), _WAIT_S_MAX) * 10**9) if math.isfinite(wait_s) else 0
