"""The records of a BPF ring that outlives the agent: they stay in the ring until the log holds them.

Room is given back when the frames are durable, and before that only while the ring is more than half full: what finds
no room in somebody else's ring is counted by nobody, and what dies with this process is, by the anchors. Nobody tells
either what the ring refused: how full it was is all that is known.
Source: Documentation/bpf/ringbuf.rst, kernel/bpf/ringbuf.c (ringbuf_map_poll).
"""

import logging
import os
from collections import deque
from typing import Final

from producers.bpf import readers
from producers.bpf.anchors import Anchor, Anchors
from producers.bpf.ring import SoleRing, Status
from producers.bpf.stretches import BODY_BYTES, Stretches
from producers.source import Batch
from schemas import bpf
from schemas.errors import BadInputError
from schemas.loss import Loss, LossKind
from schemas.stream import Stream

log = logging.getLogger(__name__)
#: Bytes that one drain reads before other sources have their turn.
_DRAIN_BYTES_MAX: Final = 1 << 20
#: What is read is let go at once while more of the ring than this share of it is taken.
_FULL_SHARE: Final = 2


class HeldSource:
    """What the pinned `ring` of the map `fd` holds, `ring_id` its id; `position` is the number of the next record.

    `losses` are those known before it. The descriptor is closed with the ring.
    """

    encoding = bpf.RECORDS_ENCODING
    encoding_version = bpf.RECORDS_VERSION

    def __init__(
        self,
        stream: Stream,
        fd: int,
        ring_id: int,
        ring: SoleRing,
        descriptor: bytes,
        position: int,
        losses: list[Loss],
        tick_s: float,
        anchors: Anchors,
    ) -> None:
        self.stream = stream
        self.tick_s: float | None = tick_s
        self._fd = fd
        self._ring_id = ring_id
        self._ring = ring
        self._anchors = anchors
        body_bytes = min(max(BODY_BYTES, ring.ring_bytes), bpf.DATA_BYTES_MAX)
        self._stretches = Stretches(ring, descriptor, position, losses, timed=False, body_bytes=body_bytes)
        self._held: deque[Anchor] = deque()  # behind each sealed body
        self._durable = position
        self._fill_bytes_max = 0
        self._busy = False
        self._broken = False
        self._end: int | None = None

    def fileno(self) -> int:
        """Return the ring's descriptor, readable while it holds anything; -1 while that is only what was read."""
        return -1 if self._busy or self._broken or self._ring.position != self._ring.released else self._fd

    def alive(self) -> bool:
        """Return whether the ring can be read."""
        return not self._broken

    def drain(self) -> bool:
        """Read until the ring is empty, or a bounded number of bytes; True where there may be more at once."""
        read_bytes = 0
        while not self._broken and read_bytes < _DRAIN_BYTES_MAX:
            if self._end is not None and self._ring.position >= self._end:
                return False
            status = self._read_some()
            read_bytes += self._ring.taken.bytes
            if status is Status.EMPTY or status is Status.STILL_BUSY:
                return False
            self._seal()
        return not self._broken

    def pending_bytes(self) -> int:
        """Return the bytes of ring that were read and not yet cut."""
        return self._stretches.pending_bytes()

    def cut(self) -> list[Batch]:
        """Return what was read as batches; one without a record where losses are left over."""
        self._seal()
        self.durable(self._durable)  # room of records that were taken back, behind what is durable
        return self._stretches.cut()

    def durable(self, position: int) -> None:
        """Give back the room of every record below `position`."""
        self._durable = position
        until = None
        while self._held and self._held[0].position <= position:
            until = self._held.popleft()
        if until is not None and until.ring_position > self._ring.released:
            self._release(until)

    def next_position(self) -> int:
        """Return the number of the next record to be cut."""
        return self._stretches.next

    def counters(self) -> dict[str, int]:
        """Return records read and discarded ones passed over, and how full the ring was.

        `refused_unknown` is 1: what found no room in the ring, or not its lock, is counted by nobody. `ring_bytes` is
        the ring's size, and `fill_bytes_max` the most that was ever in it while it was read: records that fit into
        the difference always found room. `held_bytes` of ring are read and wait for the log; `busy` is how often a
        record was waited for; `final` is 1 when it is read no more.
        """
        self._measure()
        return {
            **self._stretches.counters,
            "refused_unknown": 1,
            "ring_bytes": self._ring.ring_bytes,
            "fill_bytes_max": self._fill_bytes_max,
            "held_bytes": self._ring.position - self._ring.released,
            "final": int(self._end is not None),
        }

    def stop(self) -> None:
        """Read no further than the ring is filled now: its program goes on."""
        self._end = self._ring.produced()

    def give_up(self) -> None:
        """Do nothing: what was not read stays in the ring, for whoever reads it next."""

    def close(self) -> None:
        """Let go of the ring; idempotent."""
        self._broken = True
        self._ring.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _read_some(self) -> Status:
        try:
            status = self._stretches.take()
        except BadInputError as e:
            self._break(e)
            return Status.EMPTY
        self._busy = status is Status.STILL_BUSY
        self._measure()
        if self._ring.produced() - self._ring.released > self._ring.ring_bytes // _FULL_SHARE:
            self._release(Anchor(self._ring.position, self._stretches.read))
        return status

    def _seal(self) -> None:
        self._stretches.seal()
        if not self._broken:
            self._held.append(Anchor(self._ring.position, self._stretches.read))

    # The anchor first: whatever position the ring has when this process dies, one slot fits it.
    def _release(self, until: Anchor) -> None:
        if self._broken or until.ring_position == self._ring.released:
            return
        self._anchors.note(until)
        before = self._ring.released
        try:
            self._ring.release_until(until.ring_position)
        except BadInputError as e:
            self._break(e)
            return
        # Its writers may have gone on up to now, with the room that there was before.
        self._fill_bytes_max = max(self._fill_bytes_max, min(self._ring.produced() - before, self._ring.ring_bytes))

    def _measure(self) -> None:
        if not self._broken:
            self._fill_bytes_max = max(self._fill_bytes_max, self._ring.produced() - self._ring.released)

    def _break(self, why: BadInputError) -> None:
        detail = why.detail
        if why.reason == "reader":
            pids = readers.others(self._ring_id, self._ring.ring_bytes)
            detail += f"; {readers.named(pids)} has it mapped" if pids else ""
        log.error("bpf %s: its ring is read no more: %s", self.stream.instance, detail)
        self._broken = True
        reason = "read-by-another" if why.reason == "reader" else "ring-broken"
        self._stretches.lose(LossKind.DROP if reason == "ring-broken" else LossKind.GAP, None, reason)
