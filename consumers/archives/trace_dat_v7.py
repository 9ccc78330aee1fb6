"""Version 7 of trace.dat: sections, found by options that lie in sections themselves.

    text, text  compression and its version, NUL behind each; `none` for none
    u64         where the first section of options is

and each section

    u16         its number: that of the option that says where it is, 0 one of options
    u16         1: it is compressed
    u32         where its description is among the strings
    u64         bytes of it that follow here

The last option of a section, 0, says where the next section of options is, 0 for nowhere.
Source: trace-cmd.dat.v7(5).
"""

import logging
from typing import Final

from consumers.archives import trace_dat_data, trace_dat_meta
from consumers.archives.octets import Cursor, MemoryOctets
from consumers.archives.trace import SavedTrace
from consumers.archives.trace_dat_data import Decompress, Extent, Part
from consumers.archives.trace_dat_meta import Option, Options
from schemas.errors import BadInputError

log = logging.getLogger(__name__)
_COMPRESSED: Final = 1
_NAME_BYTES_MAX: Final = 64
_CLOCK_BYTES_MAX: Final = 64
_BUFFER_NAME_BYTES_MAX: Final = 255


def read(cursor: Cursor, machine_page_bytes: int) -> tuple[SavedTrace, str]:
    """Return what the file holds from `cursor` on, and the name of its machine.

    Raises:
        BadInputError: it is cut off before the end of its first data, damaged, or text.
    """
    decompress = trace_dat_data.decompressor(cursor.text(_NAME_BYTES_MAX), cursor.what)
    cursor.text(_NAME_BYTES_MAX)
    options = _options(cursor, decompress)
    if Option.BUFFER not in options.found:
        if Option.BUFFER_TEXT in options.found:
            raise BadInputError("format", f"{cursor.what} is of the type latency: text, and no events to decode")
        raise BadInputError("format", f"{cursor.what} has no buffer of pages")
    if Option.BUFFER_TEXT in options.found:
        log.warning("%s: what it has as text is left out", cursor.what)
    header_text, header = trace_dat_meta.read_header(_found(cursor, options, Option.HEADER_INFO, decompress))
    events: dict[str, str] = {}
    for number, reader in (
        (Option.FTRACE_EVENTS, trace_dat_meta.read_ftrace_events),
        (Option.EVENT_FORMATS, trace_dat_meta.read_events),
    ):
        if number in options.found:
            reader(_found(cursor, options, number, decompress), events)
    page_bytes = max(machine_page_bytes, header.data_offset + header.data_bytes)
    parts = [_part(cursor, data, page_bytes, decompress) for data in options.found[Option.BUFFER]]
    found = trace_dat_data.buffers(parts, cursor.octets, header, options, cursor.what)
    size_bytes = sum(extent.size_bytes for part in parts for extent in part.extents)
    printk_formats = ""
    if Option.PRINTK in options.found:
        printk_formats = trace_dat_meta.read_printk_formats(_found(cursor, options, Option.PRINTK, decompress))
    return SavedTrace(header_text, header, events, found, size_bytes, printk_formats), options.node()


# A file whose writer was cut off has what its last whole section of options says.
def _options(cursor: Cursor, decompress: Decompress | None) -> Options:
    options, seen = Options(), {0}
    at = cursor.number(8)
    while at not in seen:
        seen.add(at)
        before = {number: list(found) for number, found in options.found.items()}
        try:
            options.read(_section(cursor, at, Option.DONE, decompress), end_has_data=True)
        except BadInputError as e:
            if Option.BUFFER not in before:
                raise
            log.warning("%s: a buffer that only the missing rest describes is left out", e.detail)
            options.found = before
            break
        at = int.from_bytes(options.last(Option.DONE)[:8], "big" if cursor.big_endian else "little")
    return options


def _found(cursor: Cursor, options: Options, number: int, decompress: Decompress | None) -> Cursor:
    data = options.last(number)
    if len(data) < 8:
        raise BadInputError("format", f"{cursor.what} says nowhere where its section {number} is")
    return _section(cursor, int.from_bytes(data[:8], "big" if cursor.big_endian else "little"), number, decompress)


def _section(cursor: Cursor, at: int, number: int, decompress: Decompress | None) -> Cursor:
    head = Cursor(cursor.octets, cursor.what, at, big_endian=cursor.big_endian)
    found, flags = head.number(2), head.number(2)
    head.skip(4)
    size_bytes = head.number(8)
    if found != number:
        raise BadInputError("format", f"{cursor.what} has a section {found} at byte {at:,} where {number} should be")
    head.need(size_bytes)
    if flags & _COMPRESSED:
        data = trace_dat_data.section(head, decompress)
    elif size_bytes > trace_dat_data.CHUNK_BYTES_MAX:
        raise BadInputError("format", f"{cursor.what} has a section {found} of {size_bytes:,} bytes")
    else:
        data = head.octets_of(size_bytes)
    what = f"{cursor.what}, section {number},"
    return Cursor(MemoryOctets(data), what, big_endian=cursor.big_endian)


def _part(cursor: Cursor, data: bytes, page_bytes: int, decompress: Decompress | None) -> Part:
    option = Cursor(MemoryOctets(data), f"{cursor.what}, an option of a buffer,", big_endian=cursor.big_endian)
    at = option.number(8)
    name, clock = option.text(_BUFFER_NAME_BYTES_MAX), option.text(_CLOCK_BYTES_MAX)
    # The header is that of the top buffer, and knows larger sub-buffers than a writer that states the machine's pages.
    page_bytes = max(option.number(4), page_bytes if not name else 0)
    cpus = option.number(4)
    option.need(20 * cpus)
    extents = [Extent(option.number(4), option.number(8), option.number(8)) for _ in range(cpus)]
    head = Cursor(cursor.octets, cursor.what, at, big_endian=cursor.big_endian)
    found, flags = head.number(2), head.number(2)
    if found != Option.BUFFER:
        raise BadInputError("format", f"{cursor.what} has a section {found} at byte {at:,} where a buffer should be")
    return Part(name, clock, page_bytes, extents, decompress if flags & _COMPRESSED else None)
