"""A log in memory (or a directory) of machines whose kernels say that something stands still."""

import time

from consumers.transport.base import Partition
from producers.log import LogWriter
from schemas import kmsg, state
from schemas.frame import Frame, decode, encode
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION, TOPIC_LOG, TOPIC_STATE

LOG, STATE = Partition(TOPIC_LOG, 0), Partition(TOPIC_STATE, 0)
SOFT = "watchdog: BUG: soft lockup - CPU#{cpu} stuck for {s}s! [stress:77]"
HEALTHY = "usb 1-1: new high-speed USB device number 2 using xhci_hcd"
S = 10**9


class Kernel:
    """One boot of one machine; gives encoded frames, as its agent would cut them."""

    def __init__(self, machine="m1", boot="b1", layer="guest-kernel", realtime_ns=None):
        self.stream = Stream(machine, boot, layer, "kmsg", "", "printk")
        self.seq = self.number = 0
        self.ts_us = 100_000_000
        self.start_ns = (time.time_ns() if realtime_ns is None else realtime_ns) - self.ts_us * 1000

    def record(self, text, prio=0, caller="C1"):
        made = b"%d,%d,%d,-,caller=%s;%s\n" % (prio, self.seq, self.ts_us, caller.encode(), text.encode())
        self.seq += 1
        self.ts_us += 10
        return made

    def says(self, *texts, prio=0, after_s=1.0):
        """Return the frame with these texts, `after_s` later than what was said before."""
        self.ts_us += int(after_s * 1e6)
        first = self.seq
        records = [self.record(text, prio) for text in texts]
        return self._frame(first, len(records), "kmsg", 1, kmsg.pack(records))

    def stalls(self, cpu=1, s=22, **kwargs):
        return self.says(SOFT.format(cpu=cpu, s=s), "CPU: 1 PID: 77 Comm: stress Not tainted 6.1.0 #1", **kwargs)

    def beats(self, after_s=10.0):
        self.ts_us += int(after_s * 1e6)
        return self._frame(self.seq, 0, HEARTBEAT_ENCODING, HEARTBEAT_VERSION, b"")

    def _frame(self, first, count, encoding, version, body):
        self.number += 1
        last_ns = (self.ts_us - 10) * 1000 if count else 0
        realtime_ns = self.start_ns + self.ts_us * 1000
        where = (self.stream, "run", self.number, first, first + count, count, encoding, version, body)
        return encode(Frame(*where, [], last_ns, last_ns, realtime_ns))


def reading(kernel, number, after_s=0, user=(100, 100), idle=(50, 50)):
    """Return a frame with /proc/stat of two CPUs, in ticks."""
    lines = [f"cpu{cpu} {user[cpu]} 0 70 {idle[cpu]} 0 0 0 0 0 0" for cpu in range(2)]
    text = "\n".join([f"cpu  {sum(user)} 0 140 {sum(idle)} 0 0 0 0 0 0", *lines, ""])
    body = state.pack([state.Record("procfs_text", 5 * S, {"path": "/proc/stat", "text": text, "truncated": False})])
    stream = kernel.stream._replace(surface="procfs", clock="boot")
    at_ns = kernel.start_ns + kernel.ts_us * 1000 + after_s * S
    return encode(Frame(stream, "run", number, number, number + 1, 1, "procfs", 1, body, realtime_ns=at_ns))


def awake(kernel, number, pid, after_s=0, blocked=False):
    """Return a frame that says of a task whether it is blocked."""
    fields = {"pid": pid, "tgid": pid, "comm": "dd", "started_ns": 7 * S, "blocked": blocked, "state": "S"}
    body = state.pack([state.Record("procfs_blocked", 5 * S, fields)])
    stream = kernel.stream._replace(surface="procfs", clock="boot")
    at_ns = kernel.start_ns + kernel.ts_us * 1000 + after_s * S
    return encode(Frame(stream, "run", number, number, number + 1, 1, "procfs", 1, body, realtime_ns=at_ns))


def write_log(folder, frames, topic=TOPIC_LOG):
    """Append encoded `frames` to the log in `folder`."""
    log = LogWriter(folder, segment_bytes=1 << 20, retention_bytes=1 << 40, retention_ms=None)
    for each in frames:
        log.append(topic, decode(each))
    log.close()
