"""The whole alerter over a log in memory, in a thread."""

import threading

from consumers.alerts.access import OPEN
from consumers.alerts.follow import AlertFollower
from consumers.alerts.judge import Judge
from consumers.alerts.signs import SignReader
from consumers.transport.memory import MemoryReader
from consumers.verdict.verdict import Confidence, Owner, Verdict
from schemas.alert_config import AlertConfig

VERDICT = Verdict(Owner.HOST_CPU, Confidence.HIGH, "C2", 1, "the vCPU waited for a CPU of its host")


def follower(log, storage, url=None, assess=lambda _incident: VERDICT, access=OPEN, **keys):
    keys = {"alertmanager": (url,) if url else (), "resend_s": 1.0, "ends_ahead_s": 60.0, "commit_s": 0.1} | keys
    reader = MemoryReader(log)
    signs = SignReader(lambda: MemoryReader(log))
    return AlertFollower(reader, storage, AlertConfig(**keys), Judge(assess), signs, access=access)


class Running:
    """A follower in a thread; at the end of the block it is stopped in good order."""

    def __init__(self, each):
        self.each = each
        self._stop = threading.Event()
        self._thread = threading.Thread(target=each.run, args=(self._stop,), kwargs={"until_end": False})

    def __enter__(self):
        self._thread.start()
        return self.each

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
