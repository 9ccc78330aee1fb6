r"""Frames of the kernel log to the lines that reports are assembled from.

Only what the kernel itself has printed counts: facility 0 in the record's header, which writers to /dev/kmsg cannot
give. Source: Documentation/ABI/testing/dev-kmsg; a newline inside of a message is `\x0a` there, and makes two lines.
"""

from collections.abc import Iterator

from consumers.decode import kmsg_header, kmsg_text
from consumers.reports.report import Line
from schemas import kmsg
from schemas.errors import BadInputError
from schemas.frame import Frame


def lines(frame: Frame, start: int) -> Iterator[Line]:
    """Yield the kernel's lines in `frame`, whose body is records of the kernel log, from position `start` on.

    Records that nobody can read are left out: the collector buries them.

    Raises:
        BadInputError: the body is none.
    """
    lengths, data = kmsg.unpack(frame.body)
    end = 0
    for place, length in enumerate(lengths, frame.first):
        begin, end = end, end + length
        if place < start:
            continue
        record = bytes(data[begin:end])
        try:
            header = kmsg_header.parse_one(record)
        except BadInputError:
            continue
        if header.prio >> 3 or header.seq != place:
            continue
        text = kmsg_text.unescape(record[header.size_bytes :].partition(b"\n")[0]).decode("utf-8", "replace")
        for line in text.split("\n"):
            yield Line(place, header.ts_us * 1000, header.caller or "", line, structured=True)
