"""The agent's child that ships the spool to the relay on its host: `python -m producers.relay.ship --log DIR ...`.

Standard input is a pipe from the agent: a byte says that there is new data, end of file that the agent is gone. Only
what the relay says to be durable on its host is acknowledged in the spool; after every break it goes on from there.
"""

import argparse
import gc
import itertools
import logging
import math
import os
import select
import sys
import time
from collections import deque
from pathlib import Path
from typing import Final

from producers.relay.pings import Burst
from producers.relay.port import Port
from producers.ship_report import ShipReport
from producers.spool import GOODBYE_S, Shipment, Spool
from schemas import limits, logs
from schemas.errors import HypocenterError, UnavailableError
from schemas.relay import Hello
from schemas.relay_guest import Acked, Diverged, Event, Greeted, GuestEnd, Ponged

log = logging.getLogger(__name__)
_READ_BYTES: Final = 256 << 10
#: What waits for the port at most, before another frame is taken.
_OUT_BYTES: Final = 256 << 10
_JOINED_BYTES_MAX: Final = 4096
_OPEN_S: Final = 0.5
_ASK_S: Final = 1.0
#: So long without an acknowledgement of what was sent: something got lost on the way.
_STALL_S: Final = 15.0
_PING_S: Final = 5.0
#: A burst that is due so soon comes with whatever else woke the shipper, to save a wake-up of its own.
_PING_EARLY_S: Final = 0.5
#: Behind new records of the kernel log there is a burst sooner, but not two within so long.
_PING_SOON_S: Final = 1.0
_KERNEL_LOG: Final = "kmsg"
#: So long the last burst of pings may keep an agent that stops, on top of what the frames take.
_LAST_BURST_S: Final = 1.0
_IDLE_S: Final = 5.0


class RelayShipper:
    """Ships the spool in `directory` over the port `where`; `claims` is what this guest says of itself.

    Raises:
        UnavailableError: there is no such spool.
        LockedError: another shipper reads it.
        StorageError: the disk refuses.
    """

    def __init__(self, directory: Path, where: str, claims: Hello, report: ShipReport | None = None) -> None:
        self._report = report or ShipReport(None)
        self._spool = Spool(directory)
        self._where = where
        self._claims = claims._replace(name=self._spool.id)
        self._end = GuestEnd()
        self._port: Port | None = None
        self._out: deque[memoryview] = deque()
        self._out_bytes = 0
        self._read: deque[Shipment] = deque()
        self._sent: dict[str, deque[Shipment]] = {}
        self._hinted = True
        self._open_s = self._ask_s = self._ping_s = 0.0  # not before
        self._pinged_s, self._soon_s = 0.0, math.inf
        self._told = "", 0  # of which boot the kernel log was sent last, and up to where
        self._progress_s = 0.0
        self._numbers = itertools.count(1)
        self._burst = Burst()
        self._last_burst_s: float | None = None  # until when the last one may take
        self._said = ""

    def run(self) -> None:
        """Ship until standard input ends, then what is left for some seconds, and ping once more.

        Raises:
            UnavailableError: the relay did not take all of it.
        """
        deadline_s = None
        while deadline_s is None or time.monotonic() < deadline_s:
            self._step()
            self._spool.save_if_due()
            self._report.tell()
            if deadline_s is not None and self._over():
                break
            if self._wait(deadline_s) and not os.read(0, 65536):
                deadline_s = time.monotonic() + GOODBYE_S
                self._hinted = True
        else:
            self._spool.save()
            raise UnavailableError("not all of the spool was acknowledged by the relay")
        self._spool.save()

    def close(self) -> None:
        """Release port, files and lock."""
        if self._port is not None:
            self._port.close()
        self._spool.close()

    def _done(self) -> bool:
        return self._end.link > 0 and not (self._hinted or self._read or self._out or self._end.waiting)

    # A guest's clocks are known as far as its last exchange: so there is one more behind all that it sent.
    def _over(self) -> bool:
        now_s = time.monotonic()
        if self._last_burst_s is None:
            if self._done():
                self._last_burst_s, self._ping_s = now_s + _LAST_BURST_S, 0.0
            return False
        return now_s >= self._last_burst_s or (self._done() and self._burst.over and self._ping_s > 0)

    def _step(self) -> None:
        now_s = time.monotonic()
        try:
            if self._port is None and now_s >= self._open_s:
                self._open(now_s)
            if self._port is not None:
                self._receive(self._port)
                self._ask(now_s)
                self._fill()
                self._ping(now_s)
                self._flush(self._port)
        except OSError as e:
            self._broken(e)

    def _open(self, now_s: float) -> None:
        self._open_s = now_s + _OPEN_S
        self._port = Port(self._where)
        self._begin(now_s)
        log.info("%s is open", self._where)
        self._said = ""

    # Everything that was under way counts as not sent.
    def _begin(self, now_s: float) -> None:
        self._put(self._end.opened())
        self._ask_s = now_s + _ASK_S
        self._progress_s = now_s

    def _broken(self, error: OSError) -> None:
        if self._port is not None:
            self._port.close()
        self._port, self._open_s = None, time.monotonic() + _OPEN_S
        self._out.clear()
        self._out_bytes = 0
        self._end.opened()
        self._report.failed()
        text = f"{self._where}: {error.strerror or error}; frames wait in the spool"
        if text != self._said:
            log.warning("%s", text)
            self._said = text

    def _ask(self, now_s: float) -> None:
        if self._end.link:
            if self._end.waiting and now_s - self._progress_s > _STALL_S:
                self._report.failed()
                log.warning("%s: nothing was acknowledged for %.0f s, beginning anew", self._where, _STALL_S)
                self._begin(now_s)
        elif now_s >= self._ask_s and not self._out:
            self._begin(now_s)

    # What is left is said by the next wait, which costs less than asking for what mostly is not there.
    def _receive(self, port: Port) -> None:
        data = port.read()
        if data is None:
            return
        t3_ns = time.monotonic_ns()
        for event in self._end.feed(data):
            self._heard(event, t3_ns)

    def _heard(self, event: Event, t3_ns: int) -> None:
        if isinstance(event, Greeted):
            self._put(self._end.hello(self._claims._replace(ends=self._spool.ends())))
            self._spool.rewind()
            self._read.clear()
            self._sent.clear()
            self._hinted, self._burst, self._ping_s = True, Burst(), 0.0
            self._progress_s = time.monotonic()
            log.info("relayed by %s as %s", event.host.machine, event.host.name)
        elif isinstance(event, Acked):
            sent = self._sent[event.topic]
            for _ in range(event.frames):
                self._acknowledge(sent.popleft())
            self._progress_s = time.monotonic()
        elif isinstance(event, Ponged):
            self._put(self._end.times(event.number, event.t0_ns, t3_ns))
            if self._burst.answered((t3_ns - event.t0_ns) - (event.t2_ns - event.t1_ns)):
                self._send_ping()
        elif isinstance(event, Diverged):
            log.warning("%s: frames were acknowledged that were never sent: a snapshot was restored", self._where)
            self._begin(time.monotonic())

    def _acknowledge(self, done: Shipment) -> None:
        self._spool.acknowledge(done)
        self._report.arrived(1, len(done.payload), time.time_ns())
        if done.given_up != 0:
            self._report.dropped(done.given_up)

    def _fill(self) -> None:
        while self._end.room() and self._out_bytes < _OUT_BYTES:
            if not self._read:
                if not self._hinted:
                    return
                self._read.extend(self._spool.read(_READ_BYTES, lambda: True))
                self._hinted = self._spool.behind()
                if not self._read:
                    return
                continue
            each = self._read.popleft()
            # What a spool says of its losses has no offset of its own: it has the last of those that are gone.
            self._put(self._end.frame(each.topic, each.before - 1, each.payload))
            self._put(each.payload)
            self._ping_soon(each)
            if not self._sent.get(each.topic) and not self._end.waiting:
                self._progress_s = time.monotonic()
            self._sent.setdefault(each.topic, deque()).append(each)

    # They may be the last words of a guest, and a time of it is known only up to its last exchange.
    def _ping_soon(self, each: Shipment) -> None:
        if each.stream is None or each.stream.surface != _KERNEL_LOG:
            return
        boot_id, told = self._told
        # A spool on a disk has the boot before in front, whose numbers say nothing of this one's.
        if each.stream.boot_id != boot_id or each.next > told:
            self._told = each.stream.boot_id, each.next
            self._soon_s = self._pinged_s + _PING_SOON_S

    # Behind no frames, because they would be waited for.
    def _ping(self, now_s: float) -> None:
        early_s = self._ping_s - _PING_EARLY_S
        due_s = self._ping_s if self._end.waiting else early_s
        if self._end.link and now_s >= min(due_s, self._soon_s) and not self._out:
            self._pinged_s, self._soon_s = now_s, math.inf
            # Whatever it came for: another one right behind it would tell nothing more.
            if now_s >= early_s:
                self._ping_s = now_s + _PING_S
            self._burst.begin()
            self._send_ping()

    def _send_ping(self) -> None:
        self._put(self._end.ping(next(self._numbers), time.monotonic_ns()))

    # Short ones go as one write: each is an exit of the virtual machine, and a wake-up of the relay.
    def _put(self, data: bytes) -> None:
        if self._out and len(self._out[-1]) + len(data) <= _JOINED_BYTES_MAX:
            last = self._out.pop()
            self._out_bytes -= len(last)
            data = b"".join((last, data))
        self._out.append(memoryview(data))
        self._out_bytes += len(data)

    def _flush(self, port: Port) -> None:
        while self._out:
            taken = port.write(self._out[0])
            if not taken:
                return
            self._out_bytes -= taken
            if taken == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][taken:]

    # Returns whether standard input has something to say.
    def _wait(self, deadline_s: float | None) -> bool:
        poll = select.poll()
        if deadline_s is None:
            poll.register(0, select.POLLIN)
        if self._port is not None:
            poll.register(self._port.fileno(), select.POLLIN | (select.POLLOUT if self._out else 0))
        busy = self._hinted and self._port is not None and self._end.room() and self._out_bytes < _OUT_BYTES
        ready = dict(poll.poll(0 if busy else self._pause_ms(deadline_s)))
        self._hinted = self._hinted or 0 in ready
        return 0 in ready

    def _pause_ms(self, deadline_s: float | None) -> int:
        now_s = time.monotonic()
        if self._port is None:
            until_s = self._open_s
        elif not self._end.link:
            until_s = self._ask_s
        else:
            until_s = min(now_s + _IDLE_S, self._ping_s, self._soon_s)
            if self._end.waiting:
                until_s = min(until_s, now_s + _ASK_S)
        if self._spool.dirty:
            until_s = min(until_s, now_s + _ASK_S)
        if deadline_s is not None:
            until_s = min(until_s, now_s + 0.2)
        # Rounded down it would be two wake-ups.
        return max(10, math.ceil((until_s - now_s) * 1000))


def main() -> int:
    """Run the shipper; the exit code is that of the error that ended it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True, metavar="DIR")
    parser.add_argument("--port", required=True, metavar="PORT")
    for claim in ("machine", "boot-id", "layer"):
        parser.add_argument(f"--{claim}", required=True, metavar="NAME")
    parser.add_argument("--report-fd", type=int, metavar="FD")
    args = parser.parse_args()
    logs.setup()
    claims = Hello("", args.machine, args.boot_id, args.layer, limits.RELAY_WINDOW_BYTES_MAX, {})
    report = ShipReport(args.report_fd)
    try:
        shipper = RelayShipper(args.log, args.port, claims, report)
        gc.freeze()
        try:
            shipper.run()
        finally:
            shipper.close()
    except HypocenterError as e:
        report.failed()
        report.tell()
        log.error("%s", e)  # noqa: TRY400
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
