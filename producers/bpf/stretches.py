"""Stretches of one BPF ring, copied one behind the other until they are a body: what all its sources share."""

import ctypes
import sys
from typing import Final

from producers.bpf.ring import Ring, Status
from producers.source import Batch
from schemas import bpf, limits
from schemas.errors import BadInputError
from schemas.loss import Loss, LossUnit

#: About as many bytes of ring fill one body.
BODY_BYTES: Final = 256 << 10
_FOUND_BY: Final = "agent"
_TIME_BYTES: Final = 8


class Stretches:
    """Copies what `ring` holds, from record number `position` on, into bodies of at most `body_bytes` of ring.

    `descriptor` names what a record is; records that are `timed` begin with a u64 of CLOCK_MONOTONIC. `losses` are
    those known before. `read` is the number of the next record to be copied, `next` of the next to be cut; `counters`
    say what was copied.
    """

    def __init__(
        self,
        ring: Ring,
        descriptor: bytes,
        position: int,
        losses: list[Loss],
        *,
        timed: bool,
        body_bytes: int = BODY_BYTES,
    ) -> None:
        self.read = self.next = position
        self.counters = {"records": 0, "discarded": 0, "ring_bytes_read": 0, "busy": 0}
        self._ring = ring
        self._descriptor = descriptor
        self._timed = timed
        self._losses = list(losses)
        self._batches: list[Batch] = []
        self._sealed_bytes = 0
        self._body_bytes = body_bytes
        self._buffer = bytearray(bpf.HEAD_BYTES + body_bytes)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._filled = bpf.HEAD_BYTES
        self._first = position  # of the records in the buffer
        self._ring_first = ring.position
        self._ts_first_ns = self._ts_last_ns = 0

    def take(self) -> Status:
        """Copy one stretch; where `BOUND` or `TOO_LONG` ends it, what was copied is to be sealed.

        Raises:
            BadInputError: the ring cannot be read, or the next record is longer than any body.
        """
        status = self._ring.read(*self.room())
        taken = self._ring.taken
        if status is Status.TOO_LONG and self._filled == bpf.HEAD_BYTES:
            what = f"its next record has {taken.last_bytes} bytes, a body at most {self._body_bytes}"
            raise BadInputError("ring", what)
        if taken.records and self._timed:
            if self.read == self._first:
                self._ts_first_ns = self._time_at(taken.first_at)
            self._ts_last_ns = self._time_at(taken.last_at)
        self._filled += taken.bytes
        self.read += taken.records
        self.counters["discarded"] += taken.discarded
        self.counters["ring_bytes_read"] += taken.bytes
        self.counters["busy"] += status is Status.STILL_BUSY
        return status

    def room(self) -> tuple[int, int, int]:
        """Return address and bytes of the free part of the buffer, and how many records a frame still takes."""
        return self._address + self._filled, len(self._buffer) - self._filled, self.records_max()

    def records_max(self) -> int:
        """Return how many records the body in the making still takes."""
        return limits.FRAME_RECORDS_MAX - (self.read - self._first)

    def seal(self) -> None:
        """Make a batch of what was copied since the last one."""
        count, data_bytes = self.read - self._first, self._filled - bpf.HEAD_BYTES
        if count:
            self._buffer[: bpf.HEAD_BYTES] = bpf.head(count, data_bytes, self._ring_first)
            body = bytes(memoryview(self._buffer)[: self._filled])
            times = (self._ts_first_ns, self._ts_last_ns)
            batch = Batch(self._first, self.read, count, body, self._take_losses(), *times, self._descriptor)
            self._batches.append(batch)
            self._sealed_bytes += len(body)
            self.counters["records"] += count
        # Bytes of discarded records alone are not sent.
        self._ring_first += data_bytes
        self._first, self._filled = self.read, bpf.HEAD_BYTES

    def pending_bytes(self) -> int:
        """Return the bytes of ring that were copied and not yet cut."""
        return self._sealed_bytes + self._filled - bpf.HEAD_BYTES

    def lose(self, kind: str, count: int | None, reason: str) -> None:
        """Note that `count` records which got no position are missing behind what was copied so far."""
        self._losses.append(Loss(kind, self.read, count, reason, _FOUND_BY, LossUnit.EVENT))

    def cut(self) -> list[Batch]:
        """Return the sealed batches; one without a record where losses are left over."""
        batches, self._batches, self._sealed_bytes = self._batches, [], 0
        if batches and not batches[-1].losses:
            batches[-1] = batches[-1]._replace(losses=self._take_losses())
        while self._losses:
            batches.append(Batch(self.read, self.read, 0, b"", self._take_losses(), 0, 0))
        self.next = self.read
        return batches

    def _time_at(self, offset: int) -> int:
        at = self._filled + offset
        return min(int.from_bytes(self._buffer[at : at + _TIME_BYTES], sys.byteorder), limits.INT64_MAX)

    def _take_losses(self) -> list[Loss]:
        losses, self._losses = self._losses[: limits.FRAME_LOSSES_MAX], self._losses[limits.FRAME_LOSSES_MAX :]
        return losses
