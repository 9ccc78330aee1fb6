"""Small writers of trace pages, one for each type of record, and a plain reader that says what a page must give.

The reader is written from the kernel's documentation with other means than the loop that it checks: a generator over
struct.unpack_from, Python integers without a width.
"""

import struct
from typing import NamedTuple

MISSED, STORED = 1 << 31, 1 << 30


class Form(NamedTuple):
    """How a machine writes its pages."""

    big: bool = False
    long_bytes: int = 8
    page_bytes: int = 4096

    @property
    def order(self):
        return ">" if self.big else "<"

    @property
    def data_at(self):
        return 8 + self.long_bytes

    @property
    def header_text(self):
        return (
            f"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
            f"\tfield: local_t commit;\toffset:8;\tsize:{self.long_bytes};\tsigned:1;\n"
            f"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
            f"\tfield: char data;\toffset:{self.data_at};\tsize:{self.page_bytes - self.data_at};\tsigned:0;\n"
        )

    def words(self, *values):
        return struct.pack(f"{self.order}{len(values)}I", *values)

    def long(self, value):
        return value.to_bytes(self.long_bytes, "big" if self.big else "little", signed=value < 0)

    def head(self, kind, delta):
        return self.words(kind << 27 | delta if self.big else delta << 5 | kind)

    def payload(self, event_id, rest=b"\0\0"):
        data = struct.pack(f"{self.order}H", event_id) + rest
        return data + bytes(-len(data) % 4)

    def event(self, delta, payload):
        """An event as the kernel writes it: short ones say their length in the type."""
        assert len(payload) % 4 == 0
        if len(payload) <= 28 * 4:
            return self.head(len(payload) // 4, delta) + payload
        return self.long_event(delta, payload)

    def long_event(self, delta, payload):
        return self.head(0, delta) + self.words(len(payload) + 4) + payload

    def discarded(self, delta, payload):
        return self.head(29, delta or 1) + self.words(len(payload)) + payload[4:]

    def extend(self, delta):
        return self.head(30, delta & ((1 << 27) - 1)) + self.words(delta >> 27)

    def stamp(self, ts):
        return self.head(31, ts & ((1 << 27) - 1)) + self.words(ts >> 27 & 0xFFFFFFFF)

    def page(self, ts, *records, missed=None, stored=True, commit=None, tail=b""):
        """A page; `missed` events were lost before it, of a count that is `stored` or not."""
        data = b"".join(records)
        size = len(data) if commit is None else commit
        if missed is not None:
            size |= MISSED | (STORED if stored else 0)
            tail = (self.long(missed) if stored else b"") + tail
            # The flag is a negative int added to a long.
            size |= 0xFFFFFFFF00000000 if self.long_bytes == 8 else 0
        head = struct.pack(f"{self.order}Q", ts) + self.long(size & ((1 << 8 * self.long_bytes) - 1))
        page = head + data + tail
        assert len(page) <= self.page_bytes
        return page + bytes(self.page_bytes - len(page))


class Page(NamedTuple):
    """What one page must give: events (position, ts, id, start in the page, length), lost, fault and where."""

    events: list
    lost: int
    fault: int
    at: int


def read_page(page, form):
    """Return what one page must give."""
    order = form.order
    (ts,) = struct.unpack_from(f"{order}q", page)
    (commit,) = struct.unpack_from(f"{order}{'Q' if form.long_bytes == 8 else 'I'}", page, 8)
    size, lost = commit % (1 << 27), 0
    end = form.data_at + size
    too_much = end > len(page)
    if commit & MISSED:
        lost = -1
        if commit & STORED and not too_much and end + form.long_bytes <= len(page):
            (count,) = struct.unpack_from(f"{order}{'q' if form.long_bytes == 8 else 'I'}", page, end)
            lost = count if count > 0 else -1
    if too_much:
        return Page([], lost, 1, form.data_at)
    records = list(_records(page[:end], form, form.data_at, ts))
    at, fault, _ = records[-1] if records else (form.data_at, 0, None)
    events = [event for *_, event in records if event]
    return Page([(i, *event) for i, event in enumerate(events)], lost, fault, at)


# Yields (where the next record is, fault, event or None) for each record.
def _records(data, form, at, ts):
    def word(i):
        return struct.unpack_from(f"{form.order}I", data, i)[0]

    while at < len(data):
        try:
            first = word(at)
            kind, delta = (first >> 27, first % (1 << 27)) if form.big else (first % 32, first >> 5)
            second = word(at + 4) if kind in (0, 29, 30, 31) else None
        except struct.error:
            yield at, 4, None
            return
        if kind == 30:
            ts, at = ts + (second << 27) + delta, at + 8
            yield at, 0, None
            continue
        if kind == 31:
            ts, at = _restored((second << 27 | delta) % (1 << 59), _signed(ts) % (1 << 64)), at + 8
            yield at, 0, None
            continue
        if kind == 29:
            fault = 5 if delta == 0 else 3 if second < 4 else 0
            total, start, length = 4 + second, None, None
        elif kind == 0:
            fault = 2 if first == second == 0 else 3 if second < 6 else 0
            total, start, length = 4 + second, at + 8, second - 4
        else:
            fault, total, start, length = 0, 4 + 4 * kind, at + 4, 4 * kind
        total = -(-total // 4) * 4
        if not fault and at + total > len(data):
            fault = 4
        if fault:
            yield at, fault, None
            return
        ts += 0 if kind == 29 and delta == 1 else delta
        at += total
        event = start and (_signed(ts), struct.unpack_from(f"{form.order}H", data, start)[0], start, length)
        yield at, 0, event


def _restored(stamp, before):
    top = before >> 59 << 59
    if top:
        stamp |= top
        if stamp < before:
            stamp += 1 << 59
    return _signed(stamp)


def _signed(value):
    value %= 1 << 64
    return value - (1 << 64) if value >> 63 else value
