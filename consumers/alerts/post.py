"""One request to an Alertmanager: POST /api/v2/alerts, an array of alerts.

Source: Alertmanager, api/v2/openapi.yaml. 200 takes all; 400 says that at least one alert is bad, and takes the others.
"""

import http.client
import json
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

from consumers.alerts.outbox import Answer

_PATH: Final = "/api/v2/alerts"
_REASON_BYTES_MAX: Final = 300
#: The alerts themselves are refused; every other status is about the way there, or the Alertmanager's state.
_BAD: Final = frozenset((400, 413, 422))


class Client:
    """Posts to the Alertmanager at `url`, each request on a connection of its own. No proxy, no redirection."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        self.url = url
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path.rstrip("/") + _PATH
        self._tls = parts.scheme == "https"
        self._timeout_s = timeout_s

    def post(self, body: list[dict[str, Any]]) -> tuple[Answer, str]:
        """Post `body`; return what became of it, and why it was not taken. Each step waits up to the timeout."""
        connection = self._connect()
        try:
            data = json.dumps(body).encode()
            connection.request("POST", self._path, data, {"Content-Type": "application/json", "Connection": "close"})
            response = connection.getresponse()
            said = response.read(_REASON_BYTES_MAX).decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException) as e:
            return Answer.FAILED, f"{type(e).__name__}: {e}"
        finally:
            connection.close()
        if response.status in range(200, 300):
            return Answer.TAKEN, ""
        answer = Answer.REFUSED if response.status in _BAD else Answer.FAILED
        return answer, f"HTTP {response.status} {response.reason}: {said}"

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
