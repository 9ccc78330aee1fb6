"""/dev/kmsg: one record per read(2), `prio,seq,ts_us,flags[,...];text`, and dictionary lines.

Source: Documentation/ABI/testing/dev-kmsg and kernel/printk/printk.c. A read that finds its position overwritten fails
with EPIPE and moves to the oldest record; one whose buffer is too small fails with EINVAL after moving past the record.
Both are only signals here: what was lost follows from the sequence numbers.
"""

import errno
import os
from itertools import islice, pairwise, repeat
from typing import Final

from producers.registry import Opening
from producers.source import Batch, Source
from schemas import kmsg, limits
from schemas.errors import AccessError, BadInputError
from schemas.loss import Loss, LossKind
from schemas.stream import Stream
from schemas.surfaces import SURFACES, surface

DEVICE: Final = "/dev/kmsg"
_READ_BYTES: Final = 8192  # CONSOLE_EXT_LOG_MAX: the longest record of today's kernels
_DRAIN_RECORDS_MAX: Final = 4096
_DRAIN_BREAKS_MAX: Final = 64
_FRAME_RECORDS_MAX: Final = 8192
_FOUND_BY: Final = "agent"
# The device's mode is asked first, then the kernel.
_REMEDIES: Final = {
    errno.EACCES: ": run as root, or give the process a group that may read it, or CAP_DAC_READ_SEARCH",
    errno.EPERM: ": run as root, or give the process CAP_SYSLOG, or set kernel.dmesg_restrict=0",
}


class KmsgSource:
    """The kernel log from `position` on (a sequence number of this boot), or from the oldest record held."""

    encoding = SURFACES["kmsg"].encoding
    encoding_version = SURFACES["kmsg"].encoding_version
    tick_s: float | None = None

    def __init__(self, stream: Stream, position: int | None, losses: list[Loss], device: str = DEVICE) -> None:
        self.stream = stream
        self._fd = open_device(device)
        self._next = position or 0
        self._losses = list(losses)
        # The first jump of a boot that we never read is what the ring had overwritten before we came.
        self._jump_reason = "ring-overwritten" if position else "before-first-read"
        self._records: list[bytes] = []
        self._pending_bytes = 0
        # (index into _records, reason): the reads that failed between two records.
        self._breaks: list[tuple[int, str]] = []
        self._read_bytes = _READ_BYTES
        self._counters = {"records": 0, "epipe": 0, "einval": 0}

    def fileno(self) -> int:
        """Return the open device's descriptor."""
        return self._fd

    def alive(self) -> bool:
        """Return True: the kernel log is always there."""
        return True

    def drain(self) -> bool:
        """Read until EAGAIN, or until a bounded number of records."""
        records = self._records
        before = len(records)
        limit, more = before + _DRAIN_RECORDS_MAX, True
        for _ in range(_DRAIN_BREAKS_MAX):
            try:
                # What was read before a read fails stays in the list; no bytecode runs between two records.
                records.extend(map(os.read, repeat(self._fd, limit - len(records)), repeat(self._read_bytes)))
                break
            except BlockingIOError:
                more = False
                break
            except OSError as e:
                if e.errno not in (errno.EPIPE, errno.EINVAL):
                    raise
                self._note_break(e.errno, len(records))
        self._pending_bytes += sum(map(len, islice(records, before, None)))
        return more

    def pending_bytes(self) -> int:
        """Return the bytes of the records drained and not yet cut."""
        return self._pending_bytes

    def next_position(self) -> int:
        """Return the sequence number expected next."""
        return self._next

    def counters(self) -> dict[str, int]:
        """Return new records cut, and reads that failed with EPIPE or EINVAL."""
        return dict(self._counters)

    def cut(self) -> list[Batch]:
        """Return the drained records as batches without a gap inside, losses in front."""
        records, breaks = self._records, self._breaks
        self._records, self._breaks, self._pending_bytes = [], [], 0
        batches: list[Batch] = []
        bounds = [(0, self._jump_reason), *breaks, (len(records), "")]
        for (start, reason), (end, _) in pairwise(bounds):
            if start < end:
                self._jump_reason = reason
                self._cut_run(records[start:end], batches)
        if breaks and breaks[-1][0] == len(records):
            self._jump_reason = breaks[-1][1]
        return batches

    def stop(self) -> None:
        """Do nothing: the kernel log goes on."""

    def give_up(self) -> None:
        """Do nothing: the kernel keeps what was not read."""

    def close(self) -> None:
        """Close the device."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _note_break(self, code: int, index: int) -> None:
        if code == errno.EPIPE:
            self._counters["epipe"] += 1
            # Overtaken before the first record came: that is still what the ring had lost before us.
            if index or self._jump_reason != "before-first-read":
                self._breaks.append((index, "ring-overwritten"))
        else:
            self._counters["einval"] += 1
            self._breaks.append((index, "longer-than-buffer"))
            self._read_bytes = min(self._read_bytes * 2, limits.RECORD_BYTES_MAX)

    # Records between two failed reads. Sequence numbers rise, so equal span and count prove that none is missing.
    def _cut_run(self, records: list[bytes], batches: list[Batch]) -> None:
        try:
            first, last = kmsg.header_seq(records[0]), kmsg.header_seq(records[-1])
            whole = last - first + 1 == len(records)
        except BadInputError:
            whole = False
        if whole:
            self._emit(first, records, batches)
            return
        start, start_seq = 0, self._seq_or_next(records[0], self._next)
        for i in range(1, len(records)):
            expected = start_seq + i - start
            seq = self._seq_or_next(records[i], expected)
            if seq != expected:
                self._emit(start_seq, records[start:i], batches)
                start, start_seq = i, seq
        self._emit(start_seq, records[start:], batches)

    # A record whose own number cannot be read is kept at the position where it came; the decoder names what is wrong.
    def _seq_or_next(self, record: bytes, expected: int) -> int:
        try:
            return kmsg.header_seq(record)
        except BadInputError:
            return expected

    def _emit(self, first: int, records: list[bytes], batches: list[Batch]) -> None:
        if first < self._next:  # already acknowledged before a restart
            records = records[self._next - first :]
            first = self._next
        if not records:
            return
        self._counters["records"] += len(records)
        if first > self._next:
            kind = LossKind.TRUNCATION if self._jump_reason == "longer-than-buffer" else LossKind.OVERWRITE
            self._losses.append(Loss(kind, self._next, first - self._next, self._jump_reason, _FOUND_BY))
        self._jump_reason = "ring-overwritten"
        for start, end in _chunks(records):
            chunk = records[start:end]
            losses, self._losses = self._losses, []
            self._next = first + end
            batches.append(
                Batch(
                    first=first + start,
                    next=self._next,
                    count=len(chunk),
                    body=kmsg.pack(chunk),
                    losses=losses,
                    ts_first_ns=_ts_ns(chunk[0]),
                    ts_last_ns=_ts_ns(chunk[-1]),
                )
            )


def open_device(device: str = DEVICE) -> int:
    """Return a non-blocking descriptor at the oldest record.

    Raises:
        AccessError: the device is absent or forbidden; the message names the remedy.
    """
    try:
        fd = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise AccessError(f"{device} does not exist: is this a container without the host's devices?") from None
    except OSError as e:
        raise AccessError(f"cannot read {device} ({e.strerror}){_REMEDIES.get(e.errno or 0, '')}") from None
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def newest_seq(device: str = DEVICE) -> int | None:
    """Return the sequence number of the newest record held, None where the log is empty."""
    fd = open_device(device)
    newest = None
    try:
        while True:
            try:
                newest = kmsg.header_seq(os.read(fd, limits.RECORD_BYTES_MAX))
            except BlockingIOError:
                return newest
            except BadInputError:
                continue
            except OSError as e:
                if e.errno not in (errno.EPIPE, errno.EINVAL):
                    raise
    finally:
        os.close(fd)


def _chunks(records: list[bytes]) -> list[tuple[int, int]]:
    # Cut by number and by size, so that a body of the longest records still fits its limit.
    chunks, start, size_bytes = [], 0, 0
    if len(records) <= _FRAME_RECORDS_MAX and sum(map(len, records)) + 4 * len(records) < limits.BODY_BYTES_MAX // 2:
        return [(0, len(records))]
    for i, record in enumerate(records):
        if i > start and (i - start >= _FRAME_RECORDS_MAX or size_bytes + len(record) + 4 > limits.BODY_BYTES_MAX // 2):
            chunks.append((start, i))
            start, size_bytes = i, 0
        size_bytes += len(record) + 4
    chunks.append((start, len(records)))
    return chunks


def _ts_ns(record: bytes) -> int:
    try:
        return int(record.split(b",", 3)[2]) * 1000
    except (IndexError, ValueError):
        return 0


def open_sources(opening: Opening) -> list[Source]:
    """Return the one source of the kernel log, behind what `opening.known` says is already stored.

    A boot not seen before starts with a `reset`. Where the kernel's newest number lies below the stored position the
    machine was restored from an older snapshot: the numbering goes on as a new instance, since its positions will come
    twice.
    """
    row, identity, known = surface("kmsg"), opening.identity, opening.known
    mine = [stream for stream in known if stream.machine == identity.machine and stream.surface == row.name]
    this_boot = [stream for stream in mine if stream.boot_id == identity.boot_id]
    stream = Stream(*identity, row.name, f"restore-{len(this_boot) - 1}" if len(this_boot) > 1 else "", row.clock)
    if stream not in known:
        losses = [Loss(LossKind.RESET, 0, 0, "new-boot", _FOUND_BY)] if mine else []
        return [KmsgSource(stream, None, losses)]
    position = known[stream].next
    newest = newest_seq()
    if newest is not None and newest + 1 < position:
        losses = [Loss(LossKind.RESET, 0, 0, "sequence-went-back", _FOUND_BY)]
        return [KmsgSource(stream._replace(instance=f"restore-{len(this_boot)}"), None, losses)]
    return [KmsgSource(stream, position, [])]


def check() -> str:
    """Return what the kernel log holds now."""
    os.close(open_device())
    newest = newest_seq()
    return f"{DEVICE} is readable, newest sequence number {newest}"
