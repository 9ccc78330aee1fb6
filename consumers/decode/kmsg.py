"""Frames of the kernel log to rows of the table `kmsg`, column by column.

The usual record costs no Python object: its header is parsed by `kmsg_header`, its text is a slice of the bodies. Only
records with escapes, dictionary lines, unknown fields or bad headers are looked at more closely.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from consumers.decode import kmsg_fields, kmsg_header, kmsg_text
from consumers.decode.base import Admit, BadRecord, Decoded, FrameIn, every_kind
from consumers.decode.slices import Bytes, Ints, Mask, between, firsts, spread
from consumers.lake.tables import WORD, TableSpec
from schemas import kmsg
from schemas.errors import BadInputError
from schemas.frame import Frame
from schemas.stream import Stream

SCHEMA: Final = pa.schema(
    [
        *(pa.field(name, WORD) for name in Stream._fields),
        pa.field("seq", pa.int64()),
        pa.field("ts_ns", pa.int64()),
        pa.field("facility", pa.int16()),
        pa.field("level", pa.int8()),
        pa.field("flags", pa.string()),
        pa.field("caller", pa.string()),
        pa.field("message", pa.string()),
        pa.field("fields", kmsg_fields.TYPE),
        pa.field("extra", pa.string()),
        pa.field("message_raw", pa.binary()),
        pa.field("captured_ns", pa.int64()),
        pa.field("arrival_ns", pa.int64()),
    ]
)
SPEC: Final = TableSpec(
    "kmsg",
    SCHEMA,
    sort_keys=(*Stream._fields, "seq"),
    dictionary_columns=(*Stream._fields, "level", "facility", "flags", "caller"),
    delta_columns=("seq", "ts_ns", "captured_ns", "arrival_ns"),
)
TABLES: Final = (SPEC,)
POSITION: Final = "seq"
ONE_ROW_EACH: Final = True
_NONE: Final[Mapping[bytes, bytes]] = MappingProxyType({})
_LEVELS: Final = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")  # syslog(3)
_FACILITIES: Final = (
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
)
# Decoded in one go: columns of this many bytes of records stay in the processor's cache.
_GROUP_BYTES: Final = 2 << 20


class _Group(NamedTuple):
    """Some frames' records in one padded buffer; `frames` and `counts` go together, the columns are by record."""

    frames: list[FrameIn]
    counts: list[int]
    data: bytes
    starts: Ints
    sizes: Ints
    expected: Ints


class _Odd(NamedTuple):
    """What the slow way found, by record: the headers it read, and the records that nobody can read."""

    headers: dict[int, kmsg_header.Header]
    bad: dict[int, tuple[str, str]]


def owns(table: str) -> bool:
    """Return whether `table` is `kmsg`."""
    return table == SPEC.name


def spec(table: str, schema: pa.Schema) -> TableSpec:  # noqa: ARG001 - every decoder has this signature
    """Return the layout of `kmsg`."""
    return SPEC


def columns_sql(table: str, names: Sequence[str]) -> str:  # noqa: ARG001 - every decoder has this signature
    """Return `*`: the table is queried as it is stored."""
    return "*"


def time_order(table: str) -> str:  # noqa: ARG001 - every decoder has this signature
    """Return nothing: within a stream positions are in the order of time."""
    return ""


def check(frame: Frame) -> None:
    """Verify that the body holds exactly one record for each position.

    Raises:
        BadInputError: `reason` is `body`.
    """
    _unpack(frame)


def head(frame: Frame, end: int) -> Frame:
    """Return the part of `frame` before position `end`.

    Raises:
        BadInputError: as `check`.
    """
    return _cut(frame, 0, end - frame.first)


def trim(frame: Frame, start: int) -> Frame:
    """Return the part of `frame` from position `start` on.

    Raises:
        BadInputError: as `check`.
    """
    return frame if start <= frame.first else _cut(frame, start - frame.first, frame.next - frame.first)


def decode_many(
    frames: list[FrameIn],
    descriptors: Mapping[bytes, bytes] = _NONE,  # noqa: ARG001 - every decoder has this signature
    admit: Admit = every_kind,  # noqa: ARG001
) -> Decoded:
    """Return the table `kmsg` of `frames`; `fields` is null for a record without dictionary lines."""
    tags = [list(dict.fromkeys(item.frame.stream[i] for item in frames)) for i in range(len(Stream._fields))]
    bad: list[BadRecord] = []
    batches: list[pa.RecordBatch] = []
    rows: Counter[Stream] = Counter()
    for group in _groups(frames, bad):
        unreadable: list[BadRecord] = []
        batches.append(_decode(group, tags, unreadable))
        for item, count in zip(group.frames, group.counts, strict=True):
            rows[item.frame.stream] += count
        for each in unreadable:
            rows[each.stream] -= each.positions
        bad += unreadable
    return Decoded({SPEC.name: pa.Table.from_batches(batches, SCHEMA)}, bad, rows)


def text_lines(decoded: Decoded) -> Iterator[str]:
    """Yield `machine [seconds.microseconds] facility.level: message`; lines of one message repeat the head."""
    columns = ("machine", "ts_ns", "facility", "level", "message")
    table = decoded.tables[SPEC.name].select(columns)
    for machine, ts_ns, facility, level, message in zip(*(table[name].to_pylist() for name in columns), strict=True):
        name = _FACILITIES[facility] if facility < len(_FACILITIES) else f"facility{facility}"
        head = f"{machine} [{ts_ns // 10**9:5d}.{ts_ns // 1000 % 10**6:06d}] {name}.{_LEVELS[level]}: "
        for line in message.split("\n"):
            yield head + "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in line)


def _unpack(frame: Frame) -> tuple[Any, memoryview]:
    lengths, data = kmsg.unpack(frame.body)
    if not len(lengths) == frame.count == frame.next - frame.first:
        what = f"{len(lengths)} records in the body, {frame.count} stated, for positions [{frame.first}, {frame.next})"
        raise BadInputError("body", what)
    return lengths, data


def _cut(frame: Frame, start: int, end: int) -> Frame:
    lengths, data = _unpack(frame)
    start, end = max(start, 0), min(max(end, start, 0), len(lengths))
    offsets = [0, *accumulate(lengths)]
    body = kmsg.pack([bytes(data[offsets[i] : offsets[i + 1]]) for i in range(start, end)])
    first = frame.first + start
    return dataclasses.replace(frame, first=first, next=frame.first + end, count=end - start, body=body)


def _groups(frames: list[FrameIn], bad: list[BadRecord]) -> Iterator[_Group]:
    kept: list[FrameIn] = []
    parts: list[tuple[Any, memoryview]] = []
    size_bytes = 0
    for item in frames:
        try:
            parts.append(_unpack(item.frame))
        except BadInputError as e:
            bad.append(_bad(item, item.frame.first, (e.reason, e.detail), item.frame.body, item.frame.next))
            continue
        kept.append(item)
        size_bytes += len(parts[-1][1])
        if size_bytes >= _GROUP_BYTES:
            yield _group(kept, parts)
            kept, parts, size_bytes = [], [], 0
    if kept:
        yield _group(kept, parts)


def _group(frames: list[FrameIn], parts: list[tuple[Any, memoryview]]) -> _Group:
    counts = [len(lengths) for lengths, _ in parts]
    sizes = np.concatenate([np.frombuffer(lengths, np.uint32) for lengths, _ in parts]).astype(np.int64)
    ends = np.cumsum(sizes)
    data = b"".join((*(data for _, data in parts), bytes(kmsg_header.PAD_BYTES)))
    before = np.cumsum([0, *counts[:-1]])
    first = np.array([item.frame.first for item in frames], np.int64) - before
    expected = np.repeat(first, counts) + np.arange(len(sizes))
    return _Group(frames, counts, data, ends - sizes, sizes, expected)


def _decode(group: _Group, tags: list[list[str]], bad: list[BadRecord]) -> pa.RecordBatch:
    octets = np.frombuffer(group.data, np.uint8)
    headers = kmsg_header.parse(group.data, group.starts, group.sizes)
    odd = _slow_headers(group, headers)
    columns = _tag_columns(group, tags) | {
        "seq": pa.array(headers.seq),
        "ts_ns": pa.array(headers.ts_us * 1000),
        "facility": pa.array((headers.prio >> 3).astype(np.int16)),
        "level": pa.array((headers.prio & 7).astype(np.int8)),
        "flags": _flags(headers.flag, odd),
        "caller": _callers(group, headers, odd),
        "extra": _sparse({i: header.extra for i, header in odd.headers.items()}, pa.string(), len(group.sizes)),
        "captured_ns": pa.array(_repeat([item.frame.realtime_ns for item in group.frames], group.counts)),
        "arrival_ns": pa.array(_repeat([item.arrival_ns for item in group.frames], group.counts)),
    }
    columns |= _text_columns(group, octets, headers.text_start)
    batch = pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)
    if not odd.bad:
        return batch
    bad += _bad_records(group, odd.bad)
    good = np.ones(len(group.sizes), np.bool_)
    good[list(odd.bad)] = False
    return batch.filter(pa.array(good))


# Reads what the fast way left and enters it into the columns of `headers`; unreadable records get an empty text.
def _slow_headers(group: _Group, headers: kmsg_header.Headers) -> _Odd:
    odd = _Odd({}, {})
    for i in np.flatnonzero(~headers.ok).tolist():
        try:
            header = kmsg_header.parse_one(_record(group, i))
        except BadInputError as e:
            odd.bad[i] = (e.reason, e.detail)
            headers.prio[i], headers.seq[i], headers.ts_us[i] = 0, group.expected[i], 0
            headers.text_start[i] = group.starts[i] + group.sizes[i]
        else:
            odd.headers[i] = header
            headers.prio[i], headers.seq[i], headers.ts_us[i] = header[:3]
            headers.text_start[i] = group.starts[i] + header.size_bytes
        headers.flag[i], headers.caller_start[i] = ord("-"), 0
    for i in np.flatnonzero(headers.seq != group.expected).tolist():
        odd.bad[i] = ("sequence", f"record {group.expected[i]} of the frame says it is {headers.seq[i]}")
    return odd


def _record(group: _Group, i: int) -> bytes:
    start = int(group.starts[i])
    return group.data[start : start + int(group.sizes[i])]


def _bad_records(group: _Group, found: dict[int, tuple[str, str]]) -> Iterator[BadRecord]:
    frame_of = np.repeat(np.arange(len(group.frames)), group.counts)
    for i, why in sorted(found.items()):
        position = int(group.expected[i])
        yield _bad(group.frames[frame_of[i]], position, why, _record(group, i), position + 1)


def _bad(item: FrameIn, position: int, why: tuple[str, str], data: bytes, end: int) -> BadRecord:
    return BadRecord(item.frame.stream, position, *why, data, item.offset, item.arrival_ns, end - position)


def _repeat(values: list[int], counts: list[int]) -> Ints:
    return np.repeat(np.array(values, np.int64), counts)


def _tag_columns(group: _Group, tags: list[list[str]]) -> dict[str, pa.Array]:
    columns = {}
    for i, (name, values) in enumerate(zip(Stream._fields, tags, strict=True)):
        codes = np.zeros(len(group.sizes), np.int32)
        if len(values) > 1:
            code = {value: n for n, value in enumerate(values)}
            codes[:] = _repeat([code[item.frame.stream[i]] for item in group.frames], group.counts)
        columns[name] = pa.DictionaryArray.from_arrays(codes, pa.array(values, pa.string()))
    return columns


def _sparse(values: dict[int, Any], type_: pa.DataType, length: int) -> pa.Array:
    return spread(pa.array(list(values.values()), type_), np.array(list(values), np.int64), length)


# One character each; the few longer ones of the slow way are put in.
def _flags(flag: Bytes, odd: _Odd) -> pa.Array:
    offsets = np.arange(len(flag) + 1, dtype=np.int32)
    short = pa.Array.from_buffers(pa.string(), len(flag), [None, pa.py_buffer(offsets), pa.py_buffer(flag)])
    return _replace(short, [(i, header.flags) for i, header in odd.headers.items()])


def _replace(values: pa.Array, others: list[tuple[int, str]]) -> pa.Array:
    if not others:
        return values
    indices = np.arange(len(values))
    indices[[i for i, _ in others]] = len(values) + np.arange(len(others))
    return pa.concat_arrays([values, pa.array([text for _, text in others], pa.string())]).take(pa.array(indices))


def _callers(group: _Group, headers: kmsg_header.Headers, odd: _Odd) -> pa.Array:
    rows = np.flatnonzero(headers.caller_start)
    slices = between(group.data, headers.caller_start[rows], headers.caller_end[rows], pa.string())
    fast = spread(slices.take(pa.array(2 * np.arange(len(rows)))), rows, len(group.sizes))
    return _replace(fast, [(i, header.caller) for i, header in odd.headers.items() if header.caller is not None])


def _text_columns(group: _Group, octets: Bytes, text_start: Ints) -> dict[str, pa.Array]:
    count = len(group.sizes)
    ends = group.starts + group.sizes
    text_end, with_lines = _text_ends(octets, text_start, ends)
    rows = _rows_to_decode(group.data, octets, text_start, text_end)
    slices = between(group.data, text_start, text_end, pa.binary())
    decoded = kmsg_text.texts(slices.take(pa.array(2 * rows)))
    indices = 2 * np.arange(count)
    plain = between(group.data, text_start, text_end, pa.string())
    if len(rows):
        indices[rows] = len(plain) + np.arange(len(rows))
        plain = pa.concat_arrays([plain, decoded.message])
    fields = kmsg_fields.maps(group.data, text_end[with_lines] + 1, ends[with_lines])
    return {
        "message": plain.take(pa.array(indices)),
        "message_raw": spread(decoded.raw, rows, count),
        "fields": spread(fields, with_lines, count),
    }


# Where each text ends, and which records have dictionary lines: behind a newline that is not the record's last byte.
def _text_ends(octets: Bytes, text_start: Ints, ends: Ints) -> tuple[Ints, Ints]:
    closed = (ends > text_start) & (octets[ends - 1] == ord("\n"))
    text_end = ends - closed
    newlines = octets == ord("\n")
    if np.count_nonzero(newlines) == np.count_nonzero(closed):
        return text_end, np.empty(0, np.int64)
    newlines[ends[closed] - 1] = False
    at = np.flatnonzero(newlines)
    rows = np.searchsorted(ends, at, side="right")
    first = firsts(rows)
    rows, at = rows[first], at[first]
    inside = at >= text_start[rows]
    text_end[rows[inside]] = at[inside]
    return text_end, rows[inside]


# The rows whose text is not simply itself: an escape, or a byte that may be no UTF-8.
def _rows_to_decode(data: bytes, octets: Bytes, text_start: Ints, text_end: Ints) -> Ints:
    ascii_only = data.isascii()
    if ascii_only and b"\\" not in data:
        return np.empty(0, np.int64)
    special: Mask = octets == ord("\\")
    if not ascii_only:
        special |= octets >= 0x80
    at = np.flatnonzero(special)
    rows = np.searchsorted(text_end, at, side="right")
    rows = rows[firsts(rows)]
    rows = rows[rows < len(text_end)]
    inside = np.searchsorted(at, text_start[rows]) < np.searchsorted(at, text_end[rows])
    return rows[inside]
