"""What the kernel says of its trace pages and events: `events/header_page` and `events/SYSTEM/EVENT/format`.

The text comes from the machine that is observed, so everything in it has a limit and nothing of it is believed further
than that: a field lies within `PAYLOAD_BYTES_MAX`, a name is a name.

Source: kernel/trace/trace_events.c (`f_show`), kernel/trace/ring_buffer.c (`ring_buffer_print_page_header`),
include/trace/stages/, Documentation/trace/events.rst.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Final

from consumers.decode import ftrace_print
from consumers.decode.ftrace_expression import CType
from schemas import limits
from schemas.errors import BadInputError

#: Longest format text, most fields in it, longest name or type, and the largest sub-buffer that a kernel can have.
FORMAT_BYTES_MAX: Final = limits.TRACE_FORMAT_BYTES_MAX
FIELDS_MAX: Final = 256
NAME_CHARS_MAX: Final = 128
TYPE_CHARS_MAX: Final = 256
PAYLOAD_BYTES_MAX: Final = 1 << 16
EVENTS_MAX: Final = limits.TRACE_EVENTS_MAX
ID_MAX: Final = (1 << 16) - 1
# Of 255 bytes of a file's name, some of which a commit needs.
_TABLE_CHARS_MAX: Final = 150
_DIGEST_CHARS: Final = 8
# Most texts in an array of them, as in the kernel (kernel/trace/trace_probe.h, MAX_ARRAY_LEN).
_TEXTS_MAX: Final = 64
# Texts of which only the beginning is known.
_ENDLESS_MAX: Final = 8
# The system of the events that the tracer itself writes.
_KERNELS_OWN: Final = "ftrace"
#: The table of what no format describes; an event of this name gets its system's name in front.
UNKNOWN_TABLE: Final = "trace_unknown"
_LINE: Final = re.compile(
    r"\s*field(?: special)?:(?P<what>[^;]*);\s*offset:\s*(?P<offset>[0-9]{1,6});"
    r"\s*size:\s*(?P<size>[0-9]{1,6});(?:\s*signed:\s*(?P<signed>[01]);)?\s*"
)
_DECLARATION: Final = re.compile(r"(?P<type>.*[^\w])(?P<name>[A-Za-z_]\w*)\s*(?P<array>(?:\[[^\]]*\])*)(?P<bits>:\d+)?")
_EVENT_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]+")
_DYNAMIC: Final = re.compile(
    r"__(?P<how>data|rel)_loc\s+(?P<element>.*?)\s*(?:\[\s*\](?:\s*\[\s*(?P<count>\d{1,6})\s*\])?)?"
)
# Sizes of the C types that arrays of unstated length are made of; 0 is the machine's `long`.
_SIZES: Final = {
    **dict.fromkeys(
        ("char", "unsigned char", "signed char", "u8", "s8", "__u8", "__s8", "uint8_t", "int8_t", "bool"), 1
    ),
    **dict.fromkeys(("short", "unsigned short", "u16", "s16", "__u16", "__s16", "uint16_t", "int16_t", "umode_t"), 2),
    **dict.fromkeys(("int", "unsigned int", "unsigned", "u32", "s32", "__u32", "__s32", "uint32_t", "int32_t"), 4),
    **dict.fromkeys(("pid_t", "dev_t", "gfp_t", "__le32", "__be32", "uid_t", "gid_t"), 4),
    **dict.fromkeys(("long long", "unsigned long long", "u64", "s64", "__u64", "__s64", "uint64_t", "int64_t"), 8),
    **dict.fromkeys(("__le64", "__be64", "sector_t", "loff_t", "dma_addr_t"), 8),
    **dict.fromkeys(("long", "unsigned long", "size_t", "ssize_t", "uintptr_t", "cpumask_t"), 0),
}
_INTEGER_SIZES: Final = (1, 2, 4, 8)


class Kind(StrEnum):
    """How the bytes of a field are read.

    `bits` is the storage unit of a bit field as an unsigned integer: the kernel does not say where in it the bits are.
    `texts` are as many as the field has words that say where one is, as an argument `string[2]` of a probe has two.
    """

    INTEGER = "integer"
    BOOL = "bool"
    POINTER = "pointer"
    TEXT = "text"
    TEXTS = "texts"
    INTEGERS = "integers"
    BITS = "bits"
    RAW = "raw"


class Place(StrEnum):
    """Where the bytes of a field are.

    Within the fixed part; behind it up to the event's end (an array of size 0); or where a word of the fixed part
    says, `len << 16 | offset` from the event's start (`__data_loc`) or from behind the word (`__rel_loc`).
    """

    FIXED = "fixed"
    TAIL = "tail"
    DATA_LOC = "data_loc"
    REL_LOC = "rel_loc"


@dataclass(slots=True)
class Field:
    """One field; `offset` and `size` are bytes of the event's payload, `element_size` those of one integer.

    `count` is the number of the fixed part that says of how many elements a field up to the event's end is at most.
    """

    name: str
    type: str
    offset: int
    size: int
    signed: bool
    kind: Kind
    place: Place
    element_size: int
    count: "Field | None" = None


@dataclass(slots=True)
class Format:
    """One event: `common` and `fields` as in its format file, `size` the bytes that every event of it has at least."""

    id: int
    system: str
    name: str
    common: list[Field]
    fields: list[Field]
    names: list[ftrace_print.Names | ftrace_print.Choice]
    size: int


@dataclass(slots=True)
class PageHeader:
    """Where a page's parts are: the time at 0, `commit` (also the size of a `long`), and the records from `data`."""

    commit_offset: int
    commit_bytes: int
    data_offset: int
    data_bytes: int
    big_endian: bool = False


@dataclass(slots=True)
class Formats:
    """All that decoding the pages of one boot needs.

    `table_names` gives the table of each event id, `columns_ids` a name for its columns (`unify.columns_id`) where
    somebody has asked for it.
    """

    header: PageHeader
    events: dict[int, Format]
    table_names: dict[int, str] = field(default_factory=dict)
    columns_ids: dict[int, str] = field(default_factory=dict)


def formats(header: PageHeader, events: Iterable[Format]) -> Formats:
    """Return `events` by id, with the names of their tables: `trace_EVENT`, or `trace_SYSTEM_EVENT` for one of several.

    Of two events of one system and name one has no format, of those of one id none, because nobody knows whose it is.

    Raises:
        BadInputError: `reason` is `format`: there are too many.
    """
    events = list({(each.system, each.name): each for each in events}.values())
    if len(events) > EVENTS_MAX:
        raise _bad(f"more than {EVENTS_MAX} events")
    claims = Counter(each.id for each in events)
    by_id = {each.id: each for each in events if claims[each.id] == 1}
    return Formats(header, by_id, _table_names(by_id))


# In lower case, because SQL knows no other; a name that others have too gets its system's in front, and where that does
# not help either, or is too long for a file's name, a digest of both behind it, the same on every machine.
def _table_names(events: dict[int, Format]) -> dict[int, str]:
    short = {number: f"trace_{_word(event.name)}" for number, event in events.items()}
    several = Counter([*short.values(), UNKNOWN_TABLE])
    names = {
        number: f"trace_{_word(events[number].system)}_{name.removeprefix('trace_')}" if several[name] > 1 else name
        for number, name in short.items()
    }
    several = Counter([*names.values(), UNKNOWN_TABLE])
    return {
        number: _distinct(name, events[number]) if several[name] > 1 or len(name) > _TABLE_CHARS_MAX else name
        for number, name in names.items()
    }


def _distinct(name: str, event: Format) -> str:
    digest = hashlib.sha256(f"{event.system}:{event.name}".encode()).hexdigest()[:_DIGEST_CHARS]
    return f"{name[:_TABLE_CHARS_MAX]}_{digest}"


def parse_header(text: str, *, big_endian: bool = False) -> PageHeader:
    """Return what `events/header_page` says.

    Raises:
        BadInputError: `reason` is `format`.
    """
    found = {each.name: each for each in _fields(text, 8, limits.TRACE_PAGE_BYTES_MAX)}
    try:
        stamp, commit, data = found["timestamp"], found["commit"], found["data"]
    except KeyError as e:
        raise _bad(f"header_page has no {e}") from None
    apart = commit.offset >= 8 and commit.offset + commit.size <= data.offset
    if (stamp.offset, stamp.size) != (0, 8) or commit.size not in (4, 8) or not apart or data.size < 16:
        raise _bad("header_page is of another form than time, commit, data")
    return PageHeader(commit.offset, commit.size, data.offset, data.size, big_endian)


def parse(text: str, system: str, long_bytes: int = 8, texts: Mapping[int, str] | None = None) -> Format:
    """Return the event that the text of a `format` file describes; a `long` has `long_bytes` on its machine.

    `texts` are those at which its constant pointers point, by address.

    Raises:
        BadInputError: `reason` is `format`.
    """
    if len(text) > FORMAT_BYTES_MAX:
        raise _bad(f"{len(text)} characters, at most {FORMAT_BYTES_MAX}")
    head, _, print_fmt = text.partition("print fmt:")
    values = dict(re.findall(r"^(name|ID):[ \t]*(\S+)[ \t]*$", head, re.MULTILINE))
    name, number = values.get("name", ""), values.get("ID", "")
    for what, each in (("event", name), ("system", system)):
        if not _EVENT_NAME.fullmatch(each) or len(each) > NAME_CHARS_MAX:
            raise _bad(f"no name of an {what}: {each[:60]!r}")
    if not number.isascii() or not number.isdigit() or len(number) > 5 or int(number) > ID_MAX:
        raise _bad(f"event {name} has no id: {number[:60]!r}")
    fields = _fields(head, long_bytes)
    if system == _KERNELS_OWN:
        _put_right(name, fields)
    kind = next((each for each in fields if each.name == "common_type"), None)
    if kind is None or (kind.offset, kind.size) != (0, 2):
        raise _bad(f"event {name} does not begin with a common_type of two bytes")
    size = max(each.offset + each.size for each in fields)
    common = [each for each in fields if each.name.startswith("common_")]
    own = [each for each in fields if not each.name.startswith("common_")]
    _verify_apart(name, fields, size)
    types = {
        each.name: CType(8 * each.size, each.signed)
        for each in own
        if each.place == Place.FIXED and each.kind in (Kind.INTEGER, Kind.BOOL)
    }
    pointers = [each.name for each in own if each.place == Place.FIXED and _is_to_text(each)]
    names = [
        *ftrace_print.tables(print_fmt, types, long_bytes),
        *ftrace_print.pointed(print_fmt.strip(), pointers, texts or {}),
    ]
    return Format(int(number), system, name, common, own, names, size)


def _is_to_text(field: Field) -> bool:
    return field.kind == Kind.POINTER and re.fullmatch(r"(?:const )?char ?\*", field.type) is not None


# Formats state the kernel's own events by what text can show of them (kernel/trace/trace_entries.h): of a stack eight
# callers, where the ring has as many as `size` says; of what was written to trace_marker_raw text, where any bytes are.
def _put_right(event: str, fields: list[Field]) -> None:
    last = max(fields, key=lambda each: each.offset, default=None)
    if last is None:
        return
    here = last.place in (Place.FIXED, Place.TAIL)
    if here and (event, last.name, last.kind) == ("kernel_stack", "caller", Kind.INTEGERS):
        last.count = next((each for each in fields if each.name == "size" and each.kind == Kind.INTEGER), None)
        if last.count is not None:
            last.place, last.size = Place.TAIL, 0
    if here and (event, last.name, last.kind) == ("raw_data", "buf", Kind.TEXT):
        last.kind = Kind.RAW


# What lies over each other would be stored many times; no kernel's does, but for bit fields of one unit.
def _verify_apart(event: str, fields: list[Field], size: int) -> None:
    placed = sorted((each for each in fields if each.size and each.kind != Kind.BITS), key=lambda each: each.offset)
    for before, after in pairwise(placed):
        if before.offset + before.size > after.offset:
            raise _bad(f"fields {before.name} and {after.name} of event {event} lie over each other")
    if sum(each.size for each in fields if each.kind == Kind.BITS) > 8 * size:
        raise _bad(f"event {event} has more bit fields than bits")
    if sum(each.place in (Place.DATA_LOC, Place.REL_LOC) and each.size < 4 for each in fields) > _ENDLESS_MAX:
        raise _bad(f"event {event} has more than {_ENDLESS_MAX} texts of unstated length")
    if sum(each.place == Place.TAIL for each in fields) > 1:
        raise _bad(f"several fields of event {event} reach to its end")


def _fields(text: str, long_bytes: int, end_max: int = PAYLOAD_BYTES_MAX) -> list[Field]:
    fields: dict[str, Field] = {}
    for line in text.split("\n"):
        if "field" not in line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            if line.lstrip().startswith("field"):
                raise _bad(f"no field: {line[:80]!r}")
            continue
        found = _field(
            match["what"].strip(), int(match["offset"]), int(match["size"]), match["signed"] == "1", long_bytes
        )
        if found.offset + found.size > end_max:
            raise _bad(f"field {found.name} is at {found.offset} with {found.size} bytes")
        if fields.setdefault(found.name, found) is not found:
            raise _bad(f"field {found.name} is there twice")
        if len(fields) > FIELDS_MAX:
            raise _bad(f"more than {FIELDS_MAX} fields")
    return list(fields.values())


def _field(what: str, offset: int, size: int, signed: bool, long_bytes: int) -> Field:
    match = _DECLARATION.fullmatch(what) if len(what) <= TYPE_CHARS_MAX + NAME_CHARS_MAX else None
    if match is None or len(match["name"]) > NAME_CHARS_MAX:
        raise _bad(f"no declaration of a field: {what[:80]!r}")
    type_ = match["type"].strip()
    kind, place, element = _kind(type_, match["array"], bool(match["bits"]), size, long_bytes)
    return Field(
        match["name"], type_ + match["array"] + (match["bits"] or ""), offset, size, signed, kind, place, element
    )


def _kind(type_: str, array: str, bits: bool, size: int, long_bytes: int) -> tuple[Kind, Place, int]:
    dynamic = _DYNAMIC.fullmatch(type_)
    if dynamic is not None:
        return _kind_elsewhere(dynamic, size, long_bytes)
    if array:
        count = re.fullmatch(r"\[\s*(\d{1,6})\s*\]", array)
        stated = size // int(count[1]) if count and int(count[1]) else 0
        return (
            _array(type_, stated, long_bytes)[0],
            Place.FIXED if size else Place.TAIL,
            _array(type_, stated, long_bytes)[1],
        )
    if type_.endswith("*") and size in (4, 8):
        return Kind.POINTER, Place.FIXED, size
    if size not in _INTEGER_SIZES or (type_.startswith(("struct ", "union ")) and not type_.endswith("*")):
        return Kind.RAW, Place.FIXED, 0
    if bits:
        return Kind.BITS, Place.FIXED, size
    return Kind.BOOL if type_ in ("bool", "_Bool") and size == 1 else Kind.INTEGER, Place.FIXED, size


def _kind_elsewhere(dynamic: re.Match[str], size: int, long_bytes: int) -> tuple[Kind, Place, int]:
    place = Place.DATA_LOC if dynamic["how"] == "data" else Place.REL_LOC
    kind, element = _array(dynamic["element"], 0, long_bytes)
    if dynamic["count"] is not None:
        count = int(dynamic["count"])
        texts = kind == Kind.TEXT and place == Place.DATA_LOC
        known = texts and 0 < count <= _TEXTS_MAX and size == 4 * count
        kind = Kind.TEXTS
    else:
        # Of two bytes, as some old kernels say, only the offset is known: enough for text, which ends with a NUL.
        known = size == 4 or (size == 2 and kind == Kind.TEXT)
    return (kind, place, element) if known else (Kind.RAW, Place.FIXED, 0)


# Text, integers, or just bytes: so are single octets, which are addresses and identifiers.
def _array(element: str, stated: int, long_bytes: int) -> tuple[Kind, int]:
    element = element.removeprefix("const ").strip()
    if element == "char":
        return Kind.TEXT, 1
    known = long_bytes if element.endswith("*") else _SIZES.get(element, -1)
    size = stated or (known or long_bytes)
    integers = size in (2, 4, 8) and not element.startswith(("struct ", "union "))
    return (Kind.INTEGERS, size) if integers else (Kind.RAW, 1)


def _word(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII).lower()


def _bad(detail: str) -> BadInputError:
    return BadInputError("format", detail)
