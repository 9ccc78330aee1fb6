r"""Records of /dev/kmsg to lines: `prio,seq,usec,flags[,caller=X];text`, and what netconsole makes of them.

Source: Documentation/ABI/testing/dev-kmsg, Documentation/networking/netconsole.rst, drivers/net/netconsole.c (a release
in front, `ncfrag=off/len` among the fields). Only facility 0 is the kernel's, and nobody else can write it.
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
    __slots__ = ("caller", "fragment", "prio", "seq", "text", "ts_us")

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
        self.fragment = extra.get(b"ncfrag", b"")


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


class NetconsoleLines:
    """Joins the fragments of extended netconsole messages and makes lines of them; does no input itself.

    Datagrams may come in any order; at most `FRAGMENTED_MAX` messages are incomplete at a time, the oldest is given up
    and counted in `lost`.
    """

    FRAGMENTED_MAX: Final = 64
    FRAGMENTS_MAX: Final = 32

    def __init__(self) -> None:
        self.lost = 0
        self._parts: dict[int, dict[int, bytes]] = {}

    def feed(self, datagram: bytes) -> Line | None:
        """Take one datagram and return its line, or that which it completes.

        Raises:
            BadInputError: `reason` is `record`: no header, or a number out of bounds.
        """
        header = _Header(datagram)
        if not header.fragment:
            return kmsg_line(datagram)
        offset, _, size = header.fragment.partition(b"/")
        at, whole_bytes = _number(offset, datagram), _number(size, datagram)
        parts = self._parts.setdefault(header.seq, {})
        parts[at] = header.text
        if len(self._parts) > self.FRAGMENTED_MAX:
            self._give_up(next(iter(self._parts)))
        if len(parts) > self.FRAGMENTS_MAX:
            self._give_up(header.seq)
            return None
        text = b"".join(parts[key] for key in sorted(parts))
        if len(text) < min(whole_bytes, RECORD_BYTES_MAX):
            return None
        self._parts.pop(header.seq, None)
        caller = f",caller={header.caller}" if header.caller else ""
        return kmsg_line(f"{header.prio},{header.seq},{header.ts_us},-{caller};".encode() + text)

    def _give_up(self, seq: int) -> None:
        self._parts.pop(seq, None)
        self.lost += 1


def _number(field: bytes, record: bytes) -> int:
    if not field.isdigit() or len(field) > _NUMBER_DIGITS_MAX or int(field) > INT64_MAX // 1000:
        raise BadInputError("record", f"a number is out of bounds in {record[:60]!r}")
    return int(field)
