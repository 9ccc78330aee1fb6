r"""Frames of the kernel log to the lines that reports are assembled from.

Only what the kernel itself has printed counts: facility 0 in the record's header, which writers to /dev/kmsg cannot
give. A record is one line, with the line breaks (`\x0a`) inside of its message: only its beginning is the kernel's for
certain. Source: Documentation/ABI/testing/dev-kmsg.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from consumers.decode import kmsg_header, kmsg_text
from consumers.reports.report import Line
from consumers.reports.screen import candidates
from schemas import kmsg
from schemas.errors import BadInputError
from schemas.frame import Frame

_KERNEL: Final = b"01234567"


class FrameLines:
    """The kernel's lines in `frame`, whose body is records of the kernel log, from position `start` on.

    While `reading` says yes, which is asked in front of each record, all of them; else those that a row of the grammar
    may be. Records that nobody can read are left out: the collector buries them.

    Raises:
        BadInputError: the body is none.
    """

    def __init__(self, frame: Frame, start: int, reading: Callable[[], bool]) -> None:
        lengths, data = kmsg.unpack(frame.body)
        self._first = frame.first
        self._at = max(0, start - frame.first)
        self._ends = ends = list(accumulate(lengths))
        self._data = bytes(data)
        self._reading = reading
        # It must not know `self`: a frame would stay until somebody looks for cycles.
        self._hits = (bisect_right(ends, begin) for begin in candidates(self._data))
        self._hit = -1

    def __iter__(self) -> Iterator[Line]:
        while self._seek():
            at = self._at
            if self._is_kernels(at):
                line = _of_record(self._first + at, self._data[self._begin(at) : self._ends[at]])
                if line is not None:
                    yield line
            self._at = at + 1

    def left_out(self) -> int:
        """Pass over the rest, that of the last line included; return how many records it is that would have come."""
        count = 0
        while self._seek():
            if self._reading():
                count, self._at = count + len(self._ends) - self._at, len(self._ends)
                break
            count += self._is_kernels(self._at)
            self._at += 1
        return count

    # Go to the next record that is to be looked at, if there is one.
    def _seek(self) -> bool:
        if self._at < len(self._ends) and not self._reading():
            while self._hit < self._at:
                self._hit = next(self._hits, len(self._ends))
            self._at = self._hit
        return self._at < len(self._ends)

    # Most that is not the kernel's is known by its first bytes: facility 0 is a single digit.
    def _is_kernels(self, at: int) -> bool:
        begin = self._begin(at)
        return self._data[begin + 1 : begin + 2] == b"," and self._data[begin] in _KERNEL

    def _begin(self, at: int) -> int:
        return self._ends[at - 1] if at else 0


def _of_record(place: int, record: bytes) -> Line | None:
    try:
        header = kmsg_header.parse_one(record)
    except BadInputError:
        return None
    if header.prio >> 3 or header.seq != place:
        return None
    text = kmsg_text.unescape(record[header.size_bytes :].partition(b"\n")[0]).decode("utf-8", "replace")
    return Line(place, header.ts_us * 1000, header.caller or "", text, structured=True)
