"""The real kernel log as a source of known records: written here, and read back by a reader that is not the agent."""

import contextlib
import errno
import os
import random
import threading
import time

import pytest

from tests.producers.conftest import PRINTK_DEVKMSG

_DEVICE = "/dev/kmsg"
# Far below what the ring holds, so that reading back right after writing misses nothing.
_BURST = 200
_TRIES = 100
_NOISE = 300


class Kernel:
    """Writes tagged records; `written` maps the kernel's sequence number of each to its text."""

    def __init__(self, tag):
        self.tag = tag
        self.written = {}
        self._count = 0
        self._random = random.Random(tag)
        self._lock = threading.Lock()
        self._out = os.open(_DEVICE, os.O_WRONLY)
        self._in = os.open(_DEVICE, os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._in, 0, os.SEEK_END)

    def close(self):
        os.close(self._out)
        os.close(self._in)

    def write(self, count):
        """Write `count` records and note under which numbers the kernel keeps them."""
        for _ in range(_TRIES):
            with self._lock:
                found = self._burst(min(count, _BURST))
            self.written |= found
            count -= len(found)
            if not count:
                return
        raise AssertionError("the kernel keeps nothing of what is written: who else writes to it?")

    # Fewer when somebody else switched the rate limit on again meanwhile.
    def _burst(self, count):
        PRINTK_DEVKMSG.write_text("on\n")
        texts = [self._text() for _ in range(count)]
        for text in texts:
            os.write(self._out, f"<14>{text}\n".encode())
        found = self._read_back()
        assert set(found.values()) <= set(texts)
        return found

    def flood(self, count):
        """Write `count` records as fast as the kernel takes them, however many it overwrites; none is noted."""
        with self._lock:
            PRINTK_DEVKMSG.write_text("on\n")
            for _ in range(count):
                os.write(self._out, f"<14>{self._text()}\n".encode())
            os.lseek(self._in, 0, os.SEEK_END)

    @contextlib.contextmanager
    def load(self, burst=10, every_s=0.005):
        """Write `burst` records every `every_s` until the block ends."""
        stop, failed = threading.Event(), []

        def run():
            try:
                while not stop.wait(every_s):
                    self.write(burst)
            except BaseException as e:  # noqa: BLE001 - raised again where the block ends
                failed.append(e)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert not failed, failed

    def others(self):
        """Return how many records that are not ours came between ours."""
        return max(self.written) - min(self.written) + 1 - len(self.written)

    def skip_if_noisy(self):
        """Skip the test where others wrote so much that the ring may have lost our records; in CI that is a failure."""
        if self.others() > _NOISE:
            pytest.skip(f"somebody else wrote {self.others()} records to this machine's kernel log meanwhile")

    def held(self):
        """Return (sequence number, text) of everything that the ring holds now."""
        fd = os.open(_DEVICE, os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            return list(_records(fd))
        finally:
            os.close(fd)

    def newest(self):
        """Return the newest sequence number."""
        return self.held()[-1][0]

    def _text(self):
        self._count += 1
        return f"{self.tag} {self._count - 1:06d} {self._random.randbytes(20).hex()}"

    def _read_back(self):
        return {seq: text for seq, text in _records(self._in) if text.startswith(self.tag)}


def _records(fd):
    while True:
        try:
            record = os.read(fd, 8192)
        except BlockingIOError:
            return
        except OSError as e:
            if e.errno == errno.EPIPE:
                continue
            raise
        head, _, text = record.partition(b";")
        yield int(head.split(b",")[1]), text.split(b"\n")[0].decode()


def until(condition, what, timeout_s=30.0):
    """Wait until `condition()` is true and return its value; `what()` or `what` says what was waited for."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what() if callable(what) else what}")
        time.sleep(0.01)
    return value
