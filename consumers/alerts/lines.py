r"""Frames of the kernel log to the lines that reports are assembled from.

Only what the kernel itself has printed counts: facility 0 in the record's header, which writers to /dev/kmsg cannot
give. Source: Documentation/ABI/testing/dev-kmsg; a newline inside of a message is `\x0a` there, and makes two lines.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate

from consumers.decode import kmsg_header, kmsg_text
from consumers.reports.report import Line
from consumers.reports.screen import candidates
from schemas import kmsg
from schemas.errors import BadInputError
from schemas.frame import Frame


def lines(frame: Frame, start: int, reading: Callable[[], bool]) -> Iterator[Line]:
    """Return the kernel's lines in `frame`, whose body is records of the kernel log, from position `start` on.

    While `reading` says yes, which is asked in front of each record, all of them; else those that a row of the grammar
    may be. Records that nobody can read are left out: the collector buries them.

    Raises:
        BadInputError: the body is none.
    """
    lengths, data = kmsg.unpack(frame.body)
    return _lines(frame.first, max(0, start - frame.first), list(accumulate(lengths)), bytes(data), reading)


def _lines(first: int, at: int, ends: list[int], data: bytes, reading: Callable[[], bool]) -> Iterator[Line]:
    hits = (bisect_right(ends, begin) for begin in candidates(data))
    hit = next(hits, len(ends))
    while at < len(ends):
        if not reading():
            while hit < at:
                hit = next(hits, len(ends))
            at = hit
            if at >= len(ends):
                return
        yield from _of_record(first + at, data[ends[at - 1] if at else 0 : ends[at]])
        at += 1


def _of_record(place: int, record: bytes) -> Iterator[Line]:
    try:
        header = kmsg_header.parse_one(record)
    except BadInputError:
        return
    if header.prio >> 3 or header.seq != place:
        return
    text = kmsg_text.unescape(record[header.size_bytes :].partition(b"\n")[0]).decode("utf-8", "replace")
    for line in text.split("\n"):
        yield Line(place, header.ts_us * 1000, header.caller or "", line, structured=True)
