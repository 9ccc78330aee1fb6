"""Incidents and alerts by hand, an Alertmanager that answers as it is told, and a real one."""

import contextlib
import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from consumers.alerts.payload import Alert
from consumers.incidents.incident import Incident, Source, State
from consumers.reports.report import Kind, Report, Seconds

S = 10**9
SOURCE = Source("m1", "b1", "guest-kernel")
ALERTMANAGER = "prometheus-alertmanager"


def incident(key="i1", *, source=SOURCE, kind=Kind.SOFT_LOCKUP, state=State.OPEN, **fields):
    report = Report(kind, 10, 5 * S, structured=True, cpus=(3,), task="stress", pid=77, duration=Seconds(22.0, 22.0))
    where = (key, source, kind, kind, 10, 12, 0, 5 * S, Seconds(22.0, 22.0), "printed", (3,), "stress", 77, ())
    return Incident(*where, report, [report], state=state, **fields)


def alert(key="i1", version=1, ended_ns=None, **labels):
    found = {"alertname": "GuestIncident", "incident_id": key, **labels}
    return Alert(key, found, {"summary": f"{key} v{version}"}, 1 * S, ended_ns, version)


def until(condition, timeout_s=15.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "not reached in time"
        time.sleep(0.01)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Receiver:
    """An HTTP server on loopback that keeps what is posted; `answer(body)` gives status and text."""

    def __init__(self, answer=lambda _body: (200, ""), port=0):
        self.bodies = []
        self.headers = []
        self.answer = answer
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.headers.append(dict(self.headers))
                outer.bodies.append(body)
                status, text = outer.answer(body)
                with contextlib.suppress(OSError):  # whoever asked may have gone
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def alerts(self):
        """Every alert that was posted, in order."""
        return [each for body in list(self.bodies) for each in body]


class Alertmanager:
    """The real one on a loopback port, whose notifications come to `hook`; with `web` (its own configuration) by https.

    `trust` and `headers` are how the tests themselves ask it then.
    """

    def __init__(self, folder, config=None, web=None, trust=None, headers=None):
        if shutil.which(ALERTMANAGER) is None:
            pytest.skip(f"{ALERTMANAGER} is not there: `make setup-alert` installs it")
        self.hook = Receiver()
        self._folder, self.port = folder, free_port()
        self.url = f"{'https' if web else 'http'}://127.0.0.1:{self.port}"
        self._web, self._trust, self._headers = web, trust, headers or {}
        route = "{receiver: hook, group_by: [host, alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}"
        made = config or f"route: {route}\n"
        made += f"receivers:\n- name: hook\n  webhook_configs:\n  - {{url: '{self.hook.url}', send_resolved: true}}\n"
        (folder / "am.yml").write_text(made)
        self._process = None

    def start(self):
        words = ["--config.file", str(self._folder / "am.yml"), "--storage.path", str(self._folder / "am-data")]
        words += [f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address="]
        if self._web:
            (self._folder / "web.yml").write_text(self._web)
            words += ["--web.config.file", str(self._folder / "web.yml")]
        with (self._folder / "am.err").open("ab") as err:
            self._process = subprocess.Popen([ALERTMANAGER, *words], stdout=err, stderr=err)
        until(lambda: self.get("/-/ready") is not None, 30)

    def stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self):
        self.stop()
        self.hook.__exit__()

    def get(self, path):
        request = urllib.request.Request(self.url + path, headers=self._headers)
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(request, timeout=5, context=self._trust) as answer,
        ):
            return answer.read()
        return None

    def alerts(self):
        return json.loads(self.get("/api/v2/alerts") or b"[]")

    def post(self, *labels):
        body = json.dumps([{"labels": each} for each in labels]).encode()
        request = urllib.request.Request(f"{self.url}/api/v2/alerts", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=5).close()

    def silence(self, name, value):
        matcher = {"name": name, "value": value, "isRegex": False, "isEqual": True}
        at = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + shift)) for shift in (-60, 3600)]
        body = {"matchers": [matcher], "startsAt": at[0], "endsAt": at[1], "createdBy": "test", "comment": "test"}
        request = urllib.request.Request(
            f"{self.url}/api/v2/silences", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=5).close()

    def pages(self, status=None):
        """The notifications that it sent: (status, incident ids)."""
        found = [
            (body["status"], [each["labels"]["incident_id"] for each in body["alerts"]]) for body in self.hook.bodies
        ]
        return [each for each in found if status in (None, each[0])]
