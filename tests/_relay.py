"""A virtual machine's port without the machine: bytes go between a guest's socket and the relay's, and get lost at will."""

import contextlib
import random
import select
import socket
import threading

from producers.log import LogWriter
from schemas import kmsg
from schemas.frame import Frame
from schemas.stream import Stream
from schemas.surfaces import TOPIC_LOG

#: As text for records: makes them long, and such that no compressor makes them short again.
NOISE = "noise"
BOOT = "0b7a3c52-6c1e-4a35-9f0e-2d4b8a6c7e11"


class Chardev:
    """Listens at `host` for the relay and at `guest` for the shipper, as QEMU's chardev and the guest's driver do.

    With `vsock` it connects to the relay at `host` when the shipper came, and lets that go where nobody listens, as
    vhost-device-vsock does.
    """

    def __init__(self, folder, name, *, vsock=False):
        self.host, self.guest = folder / (f"{name}.vsock_5000" if vsock else f"{name}.sock"), folder / f"{name}.guest"
        self._listen = [None if vsock else self._listener(self.host), self._listener(self.guest)]
        self._ends = [None, None]
        self._cut = threading.Event()
        self._over = threading.Event()
        self.carried = 0  # bytes to the host
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self):
        """Break both connections; what is under way is lost."""
        self._cut.set()

    def close(self):
        self._over.set()
        self._thread.join(10)
        for each in [*self._listen, *self._ends]:
            if each is not None:
                each.close()

    def _listener(self, path):
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(path))
        made.listen(1)
        return made

    def _run(self):
        while not self._over.is_set():
            if self._cut.is_set():
                for at in (0, 1):
                    self._drop(at)
                self._cut.clear()
            wanted = [each for at, each in enumerate(self._listen) if self._ends[at] is None and each is not None]
            both = None not in self._ends
            wanted += [each for each in self._ends if each is not None] if both else []
            for ready in select.select(wanted, [], [], 0.02)[0]:
                if ready in self._listen:
                    at = self._listen.index(ready)
                    self._ends[at] = ready.accept()[0]
                    if self._listen[0] is None:
                        self._connect()
                elif ready in self._ends:
                    self._carry(self._ends.index(ready))

    def _connect(self):
        self._ends[0] = socket.socket(socket.AF_UNIX)
        try:
            self._ends[0].connect(str(self.host))
        except OSError:
            self._drop(0)
            self._drop(1)

    def _carry(self, at):
        try:
            data = self._ends[at].recv(1 << 18)
            if data and at == 1:
                self.carried += len(data)
            view = memoryview(data)
            while view and not self._cut.is_set() and not self._over.is_set():
                if select.select([], [self._ends[1 - at]], [], 0.05)[1]:
                    view = view[self._ends[1 - at].send(view[: 1 << 15]) :]
        except OSError:
            data = b""
        if not data:
            self._drop(0)
            self._drop(1)

    def _drop(self, at):
        if self._ends[at] is not None:
            with contextlib.suppress(OSError):
                self._ends[at].close()
            self._ends[at] = None


def record_text(text, i):
    """Return the message of record `i`."""
    return f"{random.Random(i).randbytes(1500).hex()} {i}" if text == NOISE else f"{text} {i}"


class GuestLog:
    """A guest's spool, into which a test writes what an agent would."""

    def __init__(self, path, *, machine="claimed", boot=BOOT, run="run", layer="guest-kernel", **kwargs):
        self.path = path
        self.stream = Stream(machine, boot, layer, "kmsg", "", "printk")
        self.run, self.kwargs = run, {"segment_bytes": 1 << 20, "retention_bytes": 1 << 40, **kwargs}

    def write(self, numbers, text="record", each=10, **changes):
        """Append frames of `each` kernel log records; frame `n` begins with position `each * n`."""
        log = LogWriter(self.path, retention_ms=None, **self.kwargs)
        for n in numbers:
            first = n * each
            records = [
                b"6,%d,%d,-;%s\n" % (i, 1000 + i, record_text(text, i).encode()) for i in range(first, first + each)
            ]
            values = {"stream": self.stream, "run": self.run, "number": n, "first": first, "next": first + each}
            values |= {"count": each, "encoding": "kmsg", "encoding_version": 1, "body": kmsg.pack(records)}
            log.append(TOPIC_LOG, Frame(**(values | {"realtime_ns": 1_700_000_000_000_000_000 + n} | changes)))
        log.close()
