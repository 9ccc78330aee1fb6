"""A follower over a log in memory, to its end or in a thread, and what is stored by it."""

import threading
import time

from consumers.follow import Follower
from consumers.lake.storage import MemoryStorage
from consumers.transport.base import Partition
from consumers.transport.memory import MemoryReader
from consumers.views import run_query
from schemas.config import CollectConfig
from schemas.errors import StorageError
from schemas.frame import decode
from tests.consumers._frames import message_bytes

LOG, STATE = Partition("hypocenter.log", 0), Partition("hypocenter.state", 0)


#: Two messages of one record.
CUT_BYTES = 2 * len(decode(message_bytes(0, 1, 0)).body)


class FailingStorage(MemoryStorage):
    """Refuses data files while `full`."""

    full = False

    def put_file(self, local, key):
        if self.full:
            raise StorageError("disk full")
        super().put_file(local, key)


def seqs(storage):
    return [seq for (seq,) in run_query(storage, "select seq from kmsg order by seq")[1]]


def starts(storage):
    names = (key.rpartition("/")[2].removesuffix(".json") for key in storage.list("commits/hypocenter.log/0/"))
    return [int(name) for name in names if name.isdigit()]


def follower(log, storage, **config):
    return Follower(MemoryReader(log), storage, CollectConfig(cut_age_s=0.05, **config))


def to_the_end(log, storage, **config):
    each = follower(log, storage, **config)
    each.run(threading.Event(), until_end=True)
    return each


class Running:
    """A follower in a thread, stopped at the end of the block."""

    def __init__(self, each):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=each.run, args=(self._stop,), kwargs={"until_end": False})

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


def until(condition, timeout_s=10):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "condition not reached in time"
        time.sleep(0.02)
