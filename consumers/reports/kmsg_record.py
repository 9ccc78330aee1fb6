"""Records of /dev/kmsg to lines: `prio,seq,usec,flags[,caller=X];text`, also as extended netconsole sends them.

Source: Documentation/ABI/testing/dev-kmsg, Documentation/networking/netconsole.rst, drivers/net/netconsole.c (a release
in front; of a line above a datagram's size each part, `ncfrag` among its fields, is a line of its own). Only facility 0
is the kernel's, and nobody else can write it.
"""

from typing import Final

from consumers.decode.kmsg_text import unescape
from consumers.reports.report import Line
from schemas.errors import BadInputError
from schemas.limits import INT64_MAX

#: Longest record that is read; the rest of a longer one is left out.
RECORD_BYTES_MAX: Final = 1 << 14
_FACILITY_SHIFT: Final = 3
_NUMBER_DIGITS_MAX: Final = 19


class _Header:
    __slots__ = ("caller", "prio", "seq", "text", "ts_us")

    def __init__(self, record: bytes) -> None:
        head, mark, self.text = record[:RECORD_BYTES_MAX].partition(b";")
        fields = head.split(b",")
        # netconsole's `release` option: the kernel's name comes before the record's own header.
        if len(fields) > 3 and not fields[0].isdigit():
            fields = fields[1:]
        if not mark or len(fields) < 4:
            raise BadInputError("record", f"no header in {record[:60]!r}")
        self.prio, self.seq, self.ts_us = (_number(field, record) for field in fields[:3])
        extra = dict(field.partition(b"=")[::2] for field in fields[4:])
        self.caller = extra.get(b"caller", b"").decode("ascii", "replace")[:16]


def kmsg_line(record: bytes, place: int | None = None) -> Line | None:
    """Return the line of one record, or None for a record that the kernel did not write.

    `place` is the record's own sequence number where None is given. Continuation lines (` KEY=value`) are left out.

    Raises:
        BadInputError: `reason` is `record`: no header, or a number out of bounds.
    """
    header = _Header(record)
    if header.prio >> _FACILITY_SHIFT:
        return None
    text = unescape(header.text.partition(b"\n")[0]).decode("utf-8", "replace")
    return Line(header.seq if place is None else place, header.ts_us * 1000, header.caller, text, structured=True)


def is_kmsg(head: bytes) -> bool:
    """Return whether `head`, the beginning of a file or of a line, is a dump of /dev/kmsg rather than text."""
    try:
        _Header(head.partition(b"\n")[0])
    except BadInputError:
        return False
    return True


def _number(field: bytes, record: bytes) -> int:
    if not field.isdigit() or len(field) > _NUMBER_DIGITS_MAX or int(field) > INT64_MAX // 1000:
        raise BadInputError("record", f"a number is out of bounds in {record[:60]!r}")
    return int(field)
