"""The monitor of a VM by hand: frames of its stream, as the host's agent would cut them."""

import json
import time

from schemas import heartbeat, state
from schemas.frame import Frame, encode
from schemas.heartbeat import Heartbeat
from schemas.state import Record
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION

S = 10**9


class Monitor:
    """One VM of one boot of one host; its time is the host's CLOCK_BOOTTIME."""

    def __init__(self, vm="web-7", host="h1", boot="hb1"):
        self.stream = Stream(host, boot, "virtual-platform", "qmp", vm, "boot")
        self.position = self.number = 0
        self.at_ns = self.beaten_ns = 500 * S
        self.start_ns = time.time_ns() - self.at_ns
        self.run = "run"

    def anew(self):
        """Go on as an agent that has another log: another run, and numbers from 0 again."""
        self.run, self.position, self.number = "another run", 0, 0

    def event(self, name, after_s=0.1, **data):
        fields = {"vm": self.stream.instance, "event": name, "data": json.dumps(data) if data else None}
        return self._said(Record("qmp_events", self._later(after_s), fields))

    def status(self, status, after_s=10.0):
        fields = {"vm": self.stream.instance, "connected": True, "status": status, "running": status == "running"}
        return self._said(Record("qmp_status", self._later(after_s), fields))

    def beats(self, after_s=10.0):
        at_ns = self._later(after_s)
        real_ns = self.start_ns + at_ns
        since_ns, self.beaten_ns = self.beaten_ns, at_ns
        beat = Heartbeat(self.start_ns + since_ns, real_ns, self.position, real_ns, at_ns, at_ns, 500)
        return self._frame(0, HEARTBEAT_ENCODING, HEARTBEAT_VERSION, heartbeat.pack(beat))

    def _later(self, after_s):
        self.at_ns += int(after_s * S)
        return self.at_ns

    def _said(self, record):
        return self._frame(1, "qmp", 1, state.pack([record]))

    def _frame(self, count, encoding, version, body):
        self.number += 1
        first, self.position = self.position, self.position + count
        where = (self.stream, self.run, self.number, first, first + count, count, encoding, version, body)
        times = [self.at_ns] * 2 if count else [0, 0]
        return encode(Frame(*where, [], *times, self.start_ns + self.at_ns))
