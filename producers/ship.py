"""The agent's child that ships the spool to Kafka: `python -m producers.ship --log DIR --config-json JSON ...`.

Standard input is a pipe from the agent: a byte says that there is new data, end of file that the agent is gone.
What is acknowledged is noted in the spool; frames are sent as they lie there.
"""

import argparse
import contextlib
import gc
import json
import logging
import os
import select
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from producers.kafka import FrameProducer, verify_topic
from producers.ship_report import ShipReport
from producers.spool import GOODBYE_S, SAVE_S, Spool
from schemas import logs
from schemas.crashpoints import crash_point
from schemas.errors import HypocenterError, UnavailableError
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import TOPIC_TRACE

log = logging.getLogger(__name__)
_READ_BYTES: Final = 1 << 20
# Frames that follow one another sooner share a request: a request costs a Kafka client as much as encoding its frames.
_GATHER_S: Final = 0.05
#: No alert waits for trace events and records of BPF, and they come without end.
_GATHER_TRACE_S: Final = 0.5
_FULL_BYTES: Final = 256 << 10
_IDLE_S: Final = 30.0


@dataclass(slots=True)
class _Lane:
    """Topics whose frames are sent together: whether there may be some, and not before when."""

    trace: bool
    gather_s: float
    hinted: bool = True
    send_s: float = 0.0

    def has(self, topic: str) -> bool:
        return (topic == TOPIC_TRACE) == self.trace


class Shipper:
    """Ships every partition of the log in `directory`; holds its lock until `close`.

    Raises:
        UnavailableError: there is no such log, or no broker answers.
        LockedError: another shipper reads it.
        StorageError: the disk refuses.
    """

    def __init__(self, directory: Path, config: KafkaConfig, report: ShipReport | None = None) -> None:
        self._report = report or ShipReport(None)
        self._errors = 0  # of the producer, as far as they are reported
        self._lanes = [_Lane(trace=False, gather_s=_GATHER_S), _Lane(trace=True, gather_s=_GATHER_TRACE_S)]
        self._spool = Spool(directory, lambda topic: verify_topic(config, topic))
        self._ack_read, self._ack_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._woken = False
        with contextlib.ExitStack() as undo:
            undo.callback(self._release)
            self._producer = FrameProducer(config, on_ack=self._wake)
            undo.pop_all()

    def run(self) -> None:
        """Ship until standard input ends, then what is left for some seconds.

        Raises:
            UnavailableError: the broker did not take all of it.
        """
        deadline_s = None
        while deadline_s is None or time.monotonic() < deadline_s:
            now_s = time.monotonic()
            for lane in self._lanes:
                if lane.hinted and self._producer.room() and (now_s >= lane.send_s or deadline_s is not None):
                    size_bytes = self._send(lane)
                    lane.hinted = size_bytes > 0
                    lane.send_s = now_s if size_bytes > _FULL_BYTES else now_s + lane.gather_s
            self._take_acks()
            hinted = [lane for lane in self._lanes if lane.hinted]
            if deadline_s is not None and not hinted and not self._producer.waiting:
                break
            gathering = deadline_s is None and bool(hinted) and self._producer.room()
            # Until the next sending acknowledgements can wait, and what a hint would say may be known.
            inputs = [] if gathering else [self._ack_read]
            if deadline_s is None and not (gathering and len(hinted) == len(self._lanes)):
                inputs.append(0)
            ready, _, _ = select.select(inputs, [], [], self._wait_s(hinted, deadline_s))
            if self._ack_read in ready:
                os.read(self._ack_read, 4096)
                self._woken = False  # before they are taken: what comes from now on wakes again
            if 0 in ready:
                for lane in self._lanes:
                    lane.hinted = True
                if not os.read(0, 65536):
                    deadline_s = time.monotonic() + GOODBYE_S
        else:
            self._spool.save()
            raise UnavailableError(f"{self._producer.waiting} frames or more wait in the spool for a broker")
        self._spool.save()

    def close(self) -> None:
        """Release client, files and lock."""
        self._producer.close()
        self._release()

    def _wait_s(self, hinted: list[_Lane], deadline_s: float | None) -> float:
        if hinted and self._producer.room():
            next_s = min(lane.send_s for lane in hinted)
            return 0.0 if deadline_s is not None else max(0.0, next_s - time.monotonic())
        return SAVE_S if hinted or self._producer.waiting or self._spool.dirty else _IDLE_S

    def _release(self) -> None:
        for descriptor in (self._ack_read, self._ack_write):
            os.close(descriptor)
        self._spool.close()

    # Once for all acknowledgements until they are taken: of a request's frames each comes by itself.
    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
                os.write(self._ack_write, b"\n")

    # Returns how many bytes were read.
    def _send(self, lane: _Lane) -> int:
        size_bytes = 0
        for each in self._spool.read(_READ_BYTES, self._producer.room, lane.has):
            key = each.stream.machine.encode() if each.stream else b""
            self._producer.send(each, each.topic, key, each.payload)
            size_bytes += len(each.payload) + 1  # what is lost has no bytes, but was read
            if each.offset is not None:
                crash_point("ship:sent")
        return size_bytes

    def _take_acks(self) -> None:
        acked = self._producer.acked()
        for done in acked:
            self._spool.acknowledge(done)
            if done.given_up != 0:
                self._report.dropped(done.given_up)
        self._spool.save_if_due()
        self._report.arrived(len(acked), sum(len(done.payload) for done in acked), time.time_ns())
        self._report.failed(self._producer.errors - self._errors)
        self._errors = self._producer.errors
        self._report.tell()


def main() -> int:
    """Run the shipper; the exit code is that of the error that ended it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True, metavar="DIR")
    parser.add_argument("--config-json", required=True, metavar="JSON")
    parser.add_argument("--report-fd", type=int, metavar="FD")
    args = parser.parse_args()
    logs.setup()
    report = ShipReport(args.report_fd)
    try:
        shipper = Shipper(args.log, KafkaConfig(**json.loads(args.config_json)), report)
        gc.freeze()  # what libraries have made stays: not to be searched for garbage again and again
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
