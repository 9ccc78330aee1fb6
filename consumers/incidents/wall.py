"""Times of a log whose lines have none of printk's: `dmesg -T`, `journalctl -k`, syslog. Only to the second, but times.

Formats: RFC 3164, RFC 5424, util-linux sys-utils/dmesg.c (`[Tue Nov 24 02:12:06 2026] `), systemd
src/shared/logs-show.c.
"""

import datetime as dt
import re
from typing import Final

from consumers.reports.report import Line

#: Times from here on are of a wall clock; no kernel runs for so long.
WALL_NS: Final = 200_000_000_000_000_000
#: syslog has no year: this one has a 29th of February.
_YEAR: Final = 2000
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE: Final = re.compile(
    rb"[ \t]{0,16}(?:<\d{1,3}>)?(?:1 )?\[?(?:"
    rb"(?P<unix>\d{10})\.\d{6} "
    rb"|(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?(?:"
    rb"(?P<year>\d{4})-(?P<number>\d\d)-(?P<day>\d\d)[T ](?P<clock>\d\d:\d\d:\d\d)"
    rb"|(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) {1,2}"
    rb"(?P<mday>\d{1,2}) (?P<mclock>\d\d:\d\d:\d\d)(?: (?P<myear>\d{4})(?:\]| <))?))"
)


class WallClock:
    """Gives lines the time that stands in front of them; lines of one second keep their order in the nanoseconds.

    A line that stands there twice, as two consoles print it, has the same time twice.
    """

    def __init__(self) -> None:
        self._second = 0
        self._count = 0
        self._text = ""

    def stamped(self, line: Line, raw: bytes) -> Line:
        """Return `line` with the time that its raw bytes begin with; without one, with none."""
        second = wall_second(raw)
        if second is None:
            return line._replace(ts_ns=None)
        if second != self._second:
            self._second, self._count, self._text = second, 0, ""
        if line.text != self._text:
            self._count, self._text = self._count + 1, line.text
        return line._replace(ts_ns=second * 1_000_000_000 + min(self._count, 999_999_999))


def wall_second(raw: bytes) -> int | None:
    """Return the date in front of a line as seconds since 1970, as if it were UTC; None if there is none."""
    found = _DATE.match(raw)
    if found is None:
        return None
    if found["unix"]:
        return int(found["unix"])
    year = int(found["year"] or found["myear"] or _YEAR)
    month = int(found["number"]) if found["number"] else _MONTHS.index(found["month"].decode()) + 1
    hour, minute, second = map(int, (found["clock"] or found["mclock"]).split(b":"))
    try:
        date = dt.datetime(
            year, month, int(found["day"] or found["mday"]), hour, minute, min(second, 59), tzinfo=dt.UTC
        )
    except ValueError:
        return None
    return int(date.timestamp()) if year >= _YEAR else None
