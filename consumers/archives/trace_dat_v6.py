r"""Version 6 of trace.dat: everything one after the other, then the pages.

    header_page, header_event, formats of ftrace, formats of events, kernel symbols, printk formats, names of threads
    u32        number of CPUs
    10 bytes   "options  \0": options follow, and 10 bytes more
    10 bytes   "flyrecord\0", or "latency  \0" and text
    for each CPU
      u64      where its pages begin
      u64      their size, 0 where it has none
    u64, text  `trace_clock`, where the options say so

A buffer beside the top one has its last three parts elsewhere, where its option says.
Source: trace-cmd.dat.v6(5).
"""

from typing import Final

from consumers.archives import trace_dat_meta, trace_texts
from consumers.archives.octets import Cursor
from consumers.archives.trace import UNKNOWN_CLOCK, SavedTrace
from consumers.archives.trace_dat_data import Extent, Part, buffers
from consumers.archives.trace_dat_meta import Option, Options
from schemas.errors import BadInputError

_TYPE_BYTES: Final = 10
_OPTIONS: Final = b"options  \0"
_FLYRECORD: Final = b"flyrecord\0"
_LATENCY: Final = b"latency  \0"
_CLOCK_BYTES_MAX: Final = 4096
_NAME_BYTES_MAX: Final = 255


def read(cursor: Cursor, machine_page_bytes: int) -> tuple[SavedTrace, str]:
    """Return what the file holds from `cursor` on, and the name of its machine.

    Raises:
        BadInputError: it is cut off before the pages, damaged, or text.
    """
    header_text, header = trace_dat_meta.read_header(cursor)
    events: dict[str, str] = {}
    trace_dat_meta.read_ftrace_events(cursor, events)
    trace_dat_meta.read_events(cursor, events)
    cursor.skip(cursor.number(4))
    printk_formats = trace_dat_meta.read_printk_formats(cursor)
    cursor.skip(cursor.number(8))
    cpus = cursor.number(4)
    options = Options()
    _to_the_pages(cursor, options)
    if count := options.last(Option.CPUCOUNT)[:4]:
        cpus = int.from_bytes(count, "big" if cursor.big_endian else "little")
    page_bytes = max(machine_page_bytes, header.data_offset + header.data_bytes)
    clock = trace_texts.current_clock(options.last(Option.TRACECLOCK).decode("utf-8", "replace"))
    parts = [_part(cursor, "", cpus, clock, page_bytes, options)]
    for data in options.found.get(Option.BUFFER, []):
        cursor.at = int.from_bytes(data[:8], "big" if cursor.big_endian else "little")
        _to_the_pages(cursor, Options())
        name = data[8 : 8 + _NAME_BYTES_MAX].partition(b"\0")[0].decode("utf-8", "replace")
        parts.append(_part(cursor, name, cpus, clock, page_bytes, options))
    found = buffers(parts, cursor.octets, header, options, cursor.what)
    size_bytes = sum(extent.size_bytes for part in parts for extent in part.extents)
    return SavedTrace(header_text, header, events, found, size_bytes, printk_formats), options.node()


def _to_the_pages(cursor: Cursor, options: Options) -> None:
    kind = cursor.octets_of(_TYPE_BYTES)
    if kind == _OPTIONS:
        options.read(cursor, end_has_data=False)
        kind = cursor.octets_of(_TYPE_BYTES)
    if kind == _LATENCY:
        raise BadInputError("format", f"{cursor.what} is of the type latency: text, and no events to decode")
    if kind != _FLYRECORD:
        raise BadInputError("format", f"{cursor.what} has data of an unknown type, {kind!r}")


def _part(cursor: Cursor, name: str, cpus: int, clock: str, page_bytes: int, options: Options) -> Part:
    cursor.need(16 * cpus)
    extents = [Extent(cpu, cursor.number(8), cursor.number(8)) for cpu in range(cpus)]
    if Option.TRACECLOCK in options.found:
        clock = _clock(cursor) or clock
    return Part(name, clock, page_bytes, extents)


# Some writers left rubbish there, or nothing.
def _clock(cursor: Cursor) -> str | None:
    try:
        size_bytes = cursor.number(8)
        text = cursor.octets_of(size_bytes).decode("utf-8", "replace") if size_bytes <= _CLOCK_BYTES_MAX else ""
    except BadInputError:
        return None
    found = trace_texts.current_clock(text)
    return None if found == UNKNOWN_CLOCK else found
