r"""Lines of text to lines of a kernel log: what consoles, dmesg, journals, syslog and CI put in front is taken off.

Sources: kernel/printk/printk.c (`[%5lu.%06lu][%6s] `, `<prio>`), util-linux sys-utils/dmesg.c (`kern :warn : `, delta,
relative and wall-clock times), RFC 3164 and RFC 5424 (syslog), systemd src/shared/logs-show.c, drivers/net/netconsole.c
(records with their header, in a syslog). Prefixes stack in any order, so they are taken off until nothing more is one.
What a userspace program logged under its own name is no line of the kernel.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

import re2

from consumers.reports.kmsg_record import kmsg_line
from consumers.reports.report import Line

#: Longest line that is looked at, and the most prefixes taken off one.
LINE_BYTES_MAX: Final = 1 << 14
PREFIXES_MAX: Final = 12
#: Most records taken out of one line.
JOINED_MAX: Final = 16

_KERNEL_FACILITY_PRIO_MAX: Final = 7
_NS_DIGITS: Final = 9


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern.encode(), options)


_ANSI: Final = _compiled(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|\][^\x07\x1b]{0,256}\x07|[=>78cDEHMNOZ])")
# printk's time, with the caller that may stand behind it.
_STAMP: Final = (
    r"\[ {0,11}(?P<s>\d{1,11})\.(?P<fraction>\d{3,9})(?: {0,3}<[ \d.+]{1,20}>)?\]"
    r"(?: ?\[ {0,9}(?P<caller>[TC]\d{1,10})\])?[ :]?"
)
_BRACKET: Final = _compiled(r"(?:<(?P<prio>\d{1,3})>)?" + _STAMP)
_MONTH: Final = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK: Final = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_WEEKDAY: Final = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_DATE: Final = (
    rf"(?:(?:{_WEEKDAY},? )?{_MONTH} {{1,2}}\d{{1,2}} (?:\d{{4}} )?{_CLOCK}"
    r"(?: \d{4})?(?: [A-Z]{3,4})?"
    rf"|\pL{{3,5}}\.? {{1,2}}\d{{1,2}} {_CLOCK}"  # months of other languages
    rf"|{_WEEKDAY} \d{{4}}-\d\d-\d\d {_CLOCK} (?:[A-Z]{{3,5}}|[+-]\d\d(?:\d\d)?)"  # journalctl -o short-full
    r"|\d{10}\.\d{6}"  # journalctl -o short-unix
    rf"|\d{{4}}[-/]\d\d[-/]\d\d[T _-]{_CLOCK} ?(?:Z|UTC|[+-]\d\d:?\d\d)?)"
)
_IDENT: Final = r"(?P<ident>[\w./@:-]{1,64}?)(?:\[(?P<pid>\d{1,10})\])?"
# One prefix each; the first that matches is taken off.
_PREFIX: Final = _compiled(
    r"(?:"
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d "  # dmesg's ISO time: no host behind it
    # RFC 5424: version, date, host, program, its number, the sort of message, data
    rf"|<\d{{1,3}}>1 {_DATE} \S{{1,255}} (?P<app>\S{{1,48}}) \S{{1,128}} \S{{1,32}} (?:-|\[[^\]]{{0,512}}\])(?: |$)"
    rf"|(?:<(?P<prio>\d{{1,3}})>)?(?:1 )?{_DATE}:? (?:[\w.-]{{1,64}} )??{_IDENT}: "  # syslog, journal: host and program
    rf"|(?:<\d{{1,3}}>)?{_DATE}:?[ \t|]*"  # a date alone
    rf"|\[(?:{_DATE}|{_CLOCK}| {{0,6}}\d{{1,7}}s)(?: <[ \d.+]{{1,20}}>)?\][ \t]*"  # dmesg -T, CI
    rf"|\[(?:{_MONTH}[ \d]\d \d\d:\d\d| {{0,9}}\+\d{{1,11}}\.\d{{6}}|<[ \d.]{{1,20}}>)\][ \t]*"  # dmesg -H, delta
    rf"|{_CLOCK}[ \t]+"
    r"|(?P<facility>kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local[0-7]) *:"
    r"(?:emerg|alert|crit|err|warn|notice|info|debug) *: ?"
    r"|(?:emerg|alert|crit|err|warn|notice|info|debug) *: {1,3}"
    r"|(?:[\w.-]{1,64} )?kernel: ?"
    r"|<(?P<bare>\d)>"
    r"|\[ {0,6}\d{1,11}\.\]"  # retyped without its microseconds
    r"|\[ {0,9}(?P<caller>[TC]\d{1,10})\]"  # and without its seconds
    r"|\[ {0,12}\]"  # and emptied
    r"|>+ ?"  # quoted mail
    r"|(?:DEBUG|TRACE|WARN|WARNING|ERROR|NOTICE)[ :|-]+"  # of what wrote the file; INFO: is the kernel's too
    r"|[ \t]+"
    r")"
)
# A record with its own header, as netconsole sends it and syslog keeps it, behind the name of who sent it.
_RECORD: Final = _compiled(
    r"(?:[\w.:-]{1,64} )?(?P<record>(?:\d[\w.+-]{1,64},)?\d{1,3},\d{1,15},\d{1,15},[-c+](?:,[\w./=,]{1,64})?;)"
)
# What a program of userspace wrote into the kernel's log, as systemd does, or into a journal, behind its host's name.
_USERSPACE: Final = _compiled(r"[^\s\[\]:][^\[\]:]{0,128}\[\d{1,10}\]: ")
# By number: a pattern makes the table of its names anew each time one is asked for.
_PID, _IDENT_GROUP, _FACILITY, _CALLER, _APP = (
    _PREFIX.groupindex[name] for name in (b"pid", b"ident", b"facility", b"caller", b"app")
)
_R_RECORD: Final = _RECORD.groupindex[b"record"]
_B_PRIO, _B_S, _B_FRACTION, _B_CALLER = (_BRACKET.groupindex[name] for name in (b"prio", b"s", b"fraction", b"caller"))


def text_lines(place: int, raw: bytes) -> Iterator[Line]:
    """Yield the lines of the kernel log in one line of text: none, one, or several that were joined.

    `place` is the line's number in its file. A line whose prefix names a program of userspace, or a facility other than
    the kernel's, yields nothing.
    """
    octets = _ANSI.sub(b"", raw[:LINE_BYTES_MAX]) if b"\x1b" in raw else raw[:LINE_BYTES_MAX]
    octets = octets.replace(b"#011", b"\t").rstrip(b"\r\n")
    left = JOINED_MAX
    for part in octets.split(b"\r", JOINED_MAX):
        for piece in _split(part):
            line = _line(place, piece)
            if line is not None:
                yield line
            left -= 1
            if not left:
                return


# Where printk's times begin is where records begin; what stands before the first is its foreign prefix.
def _split(part: bytes) -> Iterator[bytes]:
    if b"[" not in part:
        yield part
        return
    starts = [found.start() for found in _BRACKET.finditer(part)][: JOINED_MAX + 1]
    if len(starts) < 2:
        yield part
        return
    bounds = [0, *starts[1:], len(part)]
    for begin, end in pairwise(bounds):
        yield part[begin:end]


def _line(place: int, octets: bytes) -> Line | None:
    ts_ns, caller = None, b""
    bracket = _BRACKET.search(octets) if b"[" in octets else None
    if bracket is not None:
        before = _without_prefixes(octets[: bracket.start()])
        if before is None or int(bracket[_B_PRIO] or 0) > _KERNEL_FACILITY_PRIO_MAX:
            return None
        ts_ns = int(bracket[_B_S]) * 10**9 + int(bracket[_B_FRACTION].ljust(_NS_DIGITS, b"0"))
        caller = bracket[_B_CALLER] or b""
        octets = octets[bracket.end() :]
    bare = _without_prefixes(octets)
    if bare is None or _USERSPACE.match(bare.text) is not None:
        return None
    record = _RECORD.match(bare.text) if bracket is None and b";" in bare.text else None
    if record is not None:
        line = kmsg_line(bare.text[record.start(_R_RECORD) :], place)
        return None if line is None else line._replace(structured=False)
    text = bare.text.decode("utf-8", "replace")
    return Line(place, ts_ns, (caller or bare.caller).decode(), text, structured=False)


class _Bare(NamedTuple):
    text: bytes
    caller: bytes


# None: the prefix is that of a program of userspace.
def _without_prefixes(octets: bytes) -> _Bare | None:
    caller = b""
    for _ in range(PREFIXES_MAX):
        found = _PREFIX.match(octets)
        if found is None or not found.end():
            break
        ident = found[_IDENT_GROUP]
        if ident != b"kernel" and found[_PID] is not None:
            return None
        if found[_FACILITY] not in (None, b"kern") or found[_APP] not in (None, b"kernel"):
            return None
        caller = found[_CALLER] or caller
        # A name without a number may be the host's, or the kernel's own (`watchdog: `): then only the date goes.
        if ident not in (None, b"kernel"):
            octets = octets[found.start(_IDENT_GROUP) :]
            break
        octets = octets[found.end() :]
    return _Bare(octets, caller)
