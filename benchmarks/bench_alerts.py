"""The alerter: healthy records a second of a core, how soon a start line is a page, and a host whose guests all stall.

Pages are taken by a server in this process; the alerter is a process of its own, reading a log directory.
"""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks import text
from benchmarks.base import Options, Reach, Row, log, percentile, scratch
from benchmarks.processes import ours, start
from consumers.alerts.machine import Machine
from producers.log import LogWriter
from schemas import kmsg
from schemas.frame import Frame, decode, encode
from schemas.stream import Stream
from schemas.surfaces import TOPIC_LOG

_FRAME_RECORDS: Final = 500
_QUIET: Final = (b"lockup", b"stall", b"blocked for more", b"hung")


def run(options: Options) -> list[Row]:
    """Return the three figures."""
    return [_healthy(options), *_pages(options)]


def _healthy(options: Options) -> Row:
    count = 100_000 if options.quick else 1_000_000
    kept = [each for each in text.records(count, options.captures) if not any(word in each for word in _QUIET)]
    messages = [
        encode(_frame("m", at // _FRAME_RECORDS, at, kept[at : at + _FRAME_RECORDS]))
        for at in range(0, len(kept), _FRAME_RECORDS)
    ]
    speeds = []
    for _ in range(3):
        machine, began_s = Machine("m", "guest-kernel"), time.process_time()
        for message in messages:
            machine.feed(decode(message))
        speeds.append(len(kept) / (time.process_time() - began_s) / 1e6)
        log(f"  {speeds[-1]:.2f} M records/s, {machine.parsed} of {len(kept)} parsed")
    how = f"{len(kept)} records of a kernel log without a report, frames of {_FRAME_RECORDS}, decoding included"
    return Row("alerts, healthy records", speeds, "M/s", Reach(1, at_least=True), how)


def _pages(options: Options) -> Iterator[Row]:
    singles, guests = (20, 200) if options.quick else (100, 1000)
    with scratch() as root, _receiver() as (url, came), contextlib.ExitStack() as stack:
        folder = root / "log"
        writer = LogWriter(folder, segment_bytes=16 << 20, retention_bytes=1 << 40, retention_ms=None)
        stack.callback(writer.close)
        process = start(_command(root, folder, url))
        stack.callback(process.wait)
        stack.callback(process.terminate)
        _append(writer, ["warm"])
        _until(lambda: "warm" in came)
        waits = []
        for number in range(singles):
            sent_s = _append(writer, [f"single-{number}"])
            _until(lambda name=f"single-{number}": name in came)
            waits.append((came[f"single-{number}"] - sent_s) * 1000)
            time.sleep(0.02)
        how = f"from the append to a log directory to the request, {singles} incidents one by one"
        yield Row("alerts, start line to page, p99", [percentile(waits, 99)], "ms", Reach(100), how)
        yield Row("alerts, start line to page, median", [percentile(waits, 50)], "ms", None, how)
        names = [f"guest-{number}" for number in range(guests)]
        sent_s = _append(writer, names)
        _until(lambda: all(name in came for name in names))
        last_s = max(came[name] for name in names) - sent_s
        yield Row(
            f"alerts, storm of {guests}", [last_s * 1000], "ms", None, "the same, until the last page of all at once"
        )


def _command(root: Path, folder: Path, url: str) -> list[str]:
    where = ("--lake", str(root / "lake"), "--log", str(folder))
    return ours("consumers.cli", "alert", *where, "--alertmanager", url, "--metrics", "off")


def _append(writer: LogWriter, names: list[str]) -> float:
    line = b"0,1,5000000,-,caller=C1;watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [stress:77]\n"
    frames = [_frame(name, 0, 1, [line]) for name in names]
    began_s = time.monotonic()
    for frame in frames:
        writer.append(TOPIC_LOG, frame)
    writer.sync()
    return began_s


def _frame(machine: str, number: int, first: int, records: list[bytes]) -> Frame:
    stream, next_ = Stream(machine, "b", "guest-kernel", "kmsg", "", "printk"), first + len(records)
    return Frame(
        stream, "r", number, first, next_, len(records), "kmsg", 1, kmsg.pack(records), realtime_ns=time.time_ns()
    )


@contextlib.contextmanager
def _receiver() -> Iterator[tuple[str, dict[str, float]]]:
    came: dict[str, float] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            now_s = time.monotonic()
            for each in json.loads(self.rfile.read(int(self.headers["Content-Length"]))):
                came.setdefault(each["labels"]["machine"], now_s)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", came
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _until(condition: Any, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise RuntimeError("no page came")
        time.sleep(0.0005)
