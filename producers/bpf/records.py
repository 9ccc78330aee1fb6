"""The records of one BPF program, as they lie in its ring, and what the ring refused, as the program counted it.

Source: Documentation/bpf/ringbuf.rst; `bpf_programs/record.h` has the counters.
"""

import contextlib
import logging
import time
from typing import Final

from producers.bpf.program import Counts, Program, Runs
from producers.bpf.ring import Ring, Status
from producers.bpf.stretches import Stretches
from producers.journal import Journal
from producers.source import Batch
from schemas import bpf
from schemas.errors import BadInputError
from schemas.loss import Loss, LossKind
from schemas.stream import Stream

log = logging.getLogger(__name__)
#: Bytes that one drain reads before other sources have their turn.
_DRAIN_BYTES_MAX: Final = 1 << 20
#: How long a program that was detached may still run on some CPU.
_SETTLE_S: Final = 1.0
#: Slots of the journal: the next position, and whether the agent came to its end.
NEXT, ENDED, SLOTS = range(3)
#: Counters of records that were not written, as reasons of a loss.
_REASONS: Final = {"ring_full": "ring-full", "ring_busy": "ring-busy"}


class RecordsSource:
    """What the ring of `program` holds; `position` is the number of the next record, `losses` those known before it.

    A program that is not `watched` writes no records: the source only keeps it running, and says nothing of silence.
    """

    encoding = bpf.RECORDS_ENCODING
    encoding_version = bpf.RECORDS_VERSION

    def __init__(
        self,
        stream: Stream,
        program: Program,
        ring: Ring,
        descriptor: bytes,
        position: int,
        losses: list[Loss],
        tick_s: float,
        noted: Journal | None,
        *,
        watched: bool = True,
    ) -> None:
        self.stream = stream
        self.tick_s: float | None = tick_s
        self._program = program
        self._ring = ring
        self._begin = position
        self._watched = watched
        self._stretches = Stretches(ring, descriptor, position, losses, timed=True)
        self._journal = noted
        self._parts = {f"has_{name}": 1 for name in program.active} | {f"has_{name}": 0 for name in program.missing}
        self._counts = [Counts(0, 0, 0, 0)] * len(program.counts())
        self._runs = Runs(0, 0, 0)
        self._busy = False
        self._broken = False
        self._stopped_s: float | None = None

    def fileno(self) -> int:
        """Return the ring's descriptor, readable while it holds anything; -1 while only the tick counts."""
        # Behind a record that is not committed nothing can be read, and the descriptor would say so again and again.
        return -1 if self._busy or self._broken else self._program.ring_fd

    def alive(self) -> bool:
        """Return whether records come and the ring can be read."""
        return self._watched and not self._broken

    def drain(self) -> bool:
        """Read until the ring is empty, or a bounded number of bytes; True where there may be more at once."""
        read_bytes = 0
        if self._stopped_s is None and not self._broken:
            self._program.run_own(time.monotonic())
            if self._ring.is_read() and not self._busy:
                return False  # at most ticks, by which time all code is cold: so there is to be little of it
        while not self._broken and read_bytes < _DRAIN_BYTES_MAX:
            status = self._read_some()
            read_bytes += self._ring.taken.bytes
            if status is Status.EMPTY or status is Status.STILL_BUSY:
                return self._unsettled()
            self._stretches.seal()
        return not self._broken

    def pending_bytes(self) -> int:
        """Return the bytes of ring that were read and not yet cut."""
        return self._stretches.pending_bytes()

    def cut(self) -> list[Batch]:
        """Return what was read as batches; one without a record where losses are left over."""
        self._stretches.seal()
        self._sample()
        return self._stretches.cut()

    def next_position(self) -> int:
        """Return the number of the next record to be cut."""
        return self._stretches.next

    def counters(self) -> dict[str, int]:
        """Return records read and discarded ones passed over, and what the program counted on all CPUs since its load.

        `attempts` = records ever in the ring + `ring_full` + `ring_busy` (not written: `bpf_programs/record.h`).
        `untracked` is what the program could not follow; `run_ns`, `runs` and `recursion_misses` are the kernel's
        (`Runs` of `program.py`); `busy` is how often a record was waited for; `has_TRACEPOINT` is 1 for an optional
        part that is attached and 0 where the kernel has no such tracepoint; `final` is 1 when the program runs no more.
        The sums of this stream's losses are the counters at the last cut.
        """
        self._sample()
        sums = Counts(*(sum(values) for values in zip(*self._counts, strict=True)))
        if self._stopped_s is None and not self._broken:
            self._runs = self._program.runs()
        final = int(self._stopped_s is not None)
        return {**self._stretches.counters, **sums._asdict(), **self._runs._asdict(), **self._parts, "final": final}

    def stop(self) -> None:
        """Let the program run no more; what the ring holds can be drained to its end."""
        self._program.detach()
        self._runs = self._program.runs()
        self._stopped_s = time.monotonic()

    def give_up(self) -> None:
        """Count the records that the ring still holds as dropped: it goes with the program."""
        self._stretches.seal()
        room = self._stretches.room()
        count = 0
        with contextlib.suppress(BadInputError):
            while not self._broken and self._ring.read(*room) not in (Status.EMPTY, Status.STILL_BUSY):
                if not self._ring.taken.bytes:
                    break
                count += self._ring.taken.records
            count += self._ring.taken.records
        if count:
            self._stretches.lose(LossKind.DROP, count, "stopped-before-read")

    def close(self) -> None:
        """Detach and unload the program; idempotent."""
        self._program.detach()
        self._ring.close()
        self._broken = True
        self._program.close()
        noted, self._journal = self._journal, None
        if noted is not None and self._stopped_s is not None:
            noted.note(ENDED, 1, 1)

    # One stretch into the buffer. Its room in the ring is given back at once: the ring goes with this process, so what
    # waited there would be no safer than here, and what finds no room is lost for certain.
    def _read_some(self) -> Status:
        before = self._stretches.read
        if self._journal is not None:
            self._journal.note(NEXT, before, before + self._stretches.records_max())
        try:
            status = self._stretches.take()
        except BadInputError as e:
            self._break(e.detail)
            return Status.EMPTY
        if self._journal is not None:
            self._journal.note(NEXT, self._stretches.read, self._stretches.read)
        self._ring.release()
        self._busy = status is Status.STILL_BUSY
        return status

    # Which records of the ring the refused ones stood between, their numbers on each CPU say; here they are behind all
    # that was read.
    def _sample(self) -> None:
        if self._broken:
            return
        counts = self._program.counts()
        for cpu, (now, before) in enumerate(zip(counts, self._counts, strict=True)):
            if now == before:
                continue
            for name, reason in _REASONS.items():
                count = getattr(now, name) - getattr(before, name)
                if count:
                    self._stretches.lose(LossKind.DROP, count, f"{reason}-cpu{cpu}")
        self._counts = counts

    # A program that was detached may be at work on another CPU: everything that it attempted is waited for.
    def _unsettled(self) -> bool:
        if self._stopped_s is None or time.monotonic() > self._stopped_s + _SETTLE_S:
            return False
        self._sample()
        attempts = sum(each.attempts for each in self._counts)
        refused = sum(each.ring_full + each.ring_busy for each in self._counts)
        read = self._stretches.read - self._begin
        return attempts != read + self._stretches.counters["discarded"] + refused

    def _break(self, why: str) -> None:
        log.error("bpf %s: its ring is read no more: %s", self.stream.instance, why)
        self._sample()
        self._broken = True
        self._stretches.lose(LossKind.DROP, None, "ring-broken")
        self._program.detach()
