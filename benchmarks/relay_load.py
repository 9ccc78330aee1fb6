"""Simulated guests at their ports: `python -m benchmarks.relay_load DIR GUESTS FRAME_BYTES BYTES_PER_S SECONDS`.

Each listens at DIR/gN.sock, as QEMU does, and sends frames of incompressible bytes as its share of BYTES_PER_S allows;
0 is as fast as the window does. They begin with a line on standard input, when all are connected. At the end a line of
JSON says how many bytes of each guest were acknowledged. With GUESTS 0 whoever connects to DIR/g0.sock gets bare bytes,
without a protocol.
"""

import json
import os
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from schemas.frame import Frame, encode
from schemas.relay import Hello
from schemas.relay_guest import Acked, Greeted, GuestEnd
from schemas.stream import Stream
from schemas.surfaces import TOPIC_TRACE

_TURN_BYTES = 128 << 10
# As an agent's frames have them.
_RUN, _HASH = "5f1e2d3c-2f4e-4c1b-9d3a-5f1e2d3c4b5a", bytes(32)


class _Guest:
    def __init__(self, folder: Path, number: int, frame_bytes: int, rate: float) -> None:
        self.listener = _listener(folder / f"g{number}.sock")
        self.socket: Any = None
        self.acked_bytes = 0
        self.wants_out = False
        self._stream = Stream("claimed", f"boot-{number}", "guest-kernel", "bpf", "load", "mono")
        self._claims = Hello(f"spool-{number}", "claimed", self._stream.boot_id, "guest-kernel", 0, {})
        self._end, self._body, self._rate = GuestEnd(), os.urandom(frame_bytes), rate
        self._next, self._start_s, self._sent_bytes = 0, 0.0, 0
        self._out: deque[memoryview] = deque()
        self._sizes: deque[int] = deque()

    def accept(self) -> None:
        self.socket = self.listener.accept()[0]
        self.socket.setblocking(False)
        self._put(self._end.opened())

    def read(self) -> None:
        for event in self._end.feed(self.socket.recv(1 << 16)):
            if isinstance(event, Greeted):
                self._put(self._end.hello(self._claims))
                self._start_s = self._start_s or time.monotonic()
            elif isinstance(event, Acked):
                self.acked_bytes += sum(self._sizes.popleft() for _ in range(event.frames))

    # As much of one guest as the relay reads of it before it is the next one's turn: more in one piece would be the
    # shares of this loop, not those of the relay.
    def write(self, *, over: bool) -> None:
        left_bytes = _TURN_BYTES
        while left_bytes > 0:
            if not self._out:
                if over or not self._end.room() or not self._due():
                    break
                left_bytes -= self._frame()
            try:
                taken = self.socket.send(self._out[0])
            except BlockingIOError:
                break
            self._out[0] = self._out[0][taken:]
            if not self._out[0]:
                self._out.popleft()
        self.wants_out = bool(self._out) or left_bytes <= 0

    def _frame(self) -> int:
        at = self._next
        frame = Frame(
            self._stream, _RUN, at, at, at + 1, 1, "bpf", 1, self._body, snapshot=f"{_RUN}/7", descriptor=_HASH
        )
        payload = encode(frame, compress=False)
        self._put(self._end.frame(TOPIC_TRACE, self._next, payload))
        self._put(payload)
        self._next += 1
        self._sent_bytes += len(payload)
        self._sizes.append(len(payload))
        return len(payload)

    def _due(self) -> bool:
        return not self._rate or self._sent_bytes <= (time.monotonic() - self._start_s) * self._rate

    def _put(self, data: bytes) -> None:
        self._out.append(memoryview(data))


def main() -> None:
    """Serve for so long from the first connection on."""
    folder, count, frame_bytes, rate, seconds = Path(sys.argv[1]), *map(int, sys.argv[2:])
    if not count:
        _bare(folder, frame_bytes, seconds)
        return
    guests = [_Guest(folder, n, frame_bytes, rate / count) for n in range(count)]
    print("ready", flush=True)
    for guest in guests:
        guest.accept()
    print("connected", flush=True)
    sys.stdin.readline()
    end_s = time.monotonic() + seconds
    while (now_s := time.monotonic()) < end_s + 1:
        poll = select.poll()
        by_fd = {guest.socket.fileno(): guest for guest in guests}
        for fd, guest in by_fd.items():
            poll.register(fd, select.POLLIN | (select.POLLOUT if guest.wants_out else 0))
        for fd, what in poll.poll(5):
            if what & select.POLLIN:
                by_fd[fd].read()
        for guest in guests:
            guest.write(over=now_s > end_s)
    print(json.dumps([guest.acked_bytes for guest in guests]), flush=True)
    sys.stdin.read()


def _bare(folder: Path, size_bytes: int, count: int) -> None:
    listener = _listener(folder / "g0.sock")
    print("ready", flush=True)
    data = os.urandom(size_bytes)
    made, _ = listener.accept()
    for _ in range(count):
        made.sendall(data)
    made.close()


def _listener(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(os.fspath(path))
    made.listen(1)
    return made


if __name__ == "__main__":
    main()
