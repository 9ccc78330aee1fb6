"""Events of many kinds to columns of numbers: what is wanted of each event is cut out in one pass over their pages.

The loop is in `ftrace_cut_loops`. It takes some thousand events at a time, puts them into the order of their kinds and
fills every column of each: the bytes of a page come into the cache once, whatever is wanted of them. Short texts, as
names of tasks are, become numbers in that pass.
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from consumers.decode.ftrace_pages import IDS, Space, Walked
from consumers.decode.memory import taken
from consumers.decode.slice_columns import SEEDS, Codes, Numbers, from_each_byte
from consumers.decode.slices import Bytes, Ints

#: A text that is cut out has so many bytes.
TEXT_BYTES: Final = range(8, 17)
_INT: Final = np.int64
_TYPES: Final = (np.uint8, np.uint16, np.uint32, np.uint64)
_TYPE_OF: Final = {1: 0, 2: 1, 4: 2, 8: 3}
# Columns begin where numbers of any size may.
_ALIGNED_BYTES: Final = 8
_TEXT_SLOTS: Final = 256


class Wanted(NamedTuple):
    """What is cut out of each event of one kind, which is a whole one from `least_bytes` on.

    `numbers` are (offset in the payload, size), of 1, 2, 4 or 8 bytes, and so are `texts` by name, of `TEXT_BYTES`; all
    lie within the least. `rooms` is for how many columns of int32() there shall be room. `payloads` says whether it is
    wanted where the payload is.
    """

    least_bytes: int
    numbers: tuple[tuple[int, int], ...]
    texts: dict[str, tuple[int, int]]
    rooms: int
    payloads: bool


class Text:
    """The different texts of one field of the events of one kind, numbered in order of first sight."""

    def __init__(self, size: int) -> None:
        self.slots = np.full(_TEXT_SLOTS, -1, np.int32)
        self.first, self.last = (np.empty(_TEXT_SLOTS // 2, np.uint64) for _ in range(2))
        self.count = 0
        self._size = size
        self._numbers: list[int] = []

    def numbers(self, number: Callable[[bytes], int]) -> Codes:
        """Return what `number` makes of each text; it is asked once for each, always the same function."""
        known = len(self._numbers)
        heads, tails = self.first[known : self.count].tolist(), self.last[known : self.count].tolist()
        for head, tail in zip(heads, tails, strict=True):
            rest = tail.to_bytes(8, sys.byteorder)[16 - self._size :]
            self._numbers.append(number(head.to_bytes(8, sys.byteorder) + rest))
        return np.array(self._numbers, np.int32)

    def grow(self, loops: Any) -> None:
        """Make room for four times as many."""
        self.slots = np.full(4 * len(self.slots), -1, np.int32)
        for name in ("first", "last"):
            grown = np.empty(len(self.slots) // 2, np.uint64)
            grown[: self.count] = getattr(self, name)[: self.count]
            setattr(self, name, grown)
        loops.index_texts(self.slots, self.first, self.last, self.count, SEEDS)


#: By id of the kind and name of the field; they last as long as numbers shall mean the same.
Texts = dict[tuple[int, str], Text]


class Part(NamedTuple):
    """Whole events of one kind in the order in which they came.

    `number` and `arrival_ns` of the page, `position` in it, `ts`; `numbers` by (offset, size), unsigned and in this
    machine's byte order; by name the number of each text, with the texts; `rooms` of any content. `page` (index) where
    pages are told apart, and `start` and `length` of the payload where they are wanted, are valid until the next cut in
    the same space.
    """

    number: Ints
    arrival_ns: Ints
    position: npt.NDArray[np.int32]
    ts: Ints
    numbers: dict[tuple[int, int], Numbers]
    texts: dict[str, tuple[Codes, Text]]
    rooms: list[Codes]
    page: Ints | None
    start: Ints | None
    length: Ints | None


class Cut(NamedTuple):
    """Events by their kind's id, and the rows of the walk that are of no kind or shorter than theirs, in order.

    `others` is valid until the next cut in the same space.
    """

    parts: dict[int, Part]
    others: Ints


class _Column(NamedTuple):
    """Where the values of a column come from, its first number in the memory of its size, and which text it has."""

    source: int
    offset: int
    size: int
    place: int
    text: int


class _Plan:
    """Which column of which kind begins where, in memory that is kept and in memory for a while."""

    def __init__(self) -> None:
        self.columns: list[_Column] = []
        self.texts: list[Text] = []
        self.kept_bytes = self.passing_words = 0

    def keep(self, source: int, rows: int, size: int, at: tuple[int, int] = (0, 0)) -> None:
        self.columns.append(_Column(source, at[0], at[1] or size, self.kept_bytes // size, len(self.texts)))
        self.kept_bytes += -(-rows * size // _ALIGNED_BYTES) * _ALIGNED_BYTES

    def pass_on(self, source: int, rows: int) -> None:
        self.columns.append(_Column(source, 0, 8, self.passing_words, 0))
        self.passing_words += rows


def cut(
    octets: Bytes,
    walked: Walked,
    wanted: Mapping[int, Wanted],
    by_page: tuple[Ints, Ints],
    texts: Texts,
    space: Space | None = None,
    *,
    pages: bool = False,
) -> Cut:
    """Return what is `wanted`, by id, of the events in `octets`, of which `walked` says where they are.

    No kind may need fewer bytes than the walk was told. `by_page` are the pages' numbers and times of arrival; `pages`
    says whether events want the index of theirs. What is new of texts comes into `texts`.
    """
    loops, space = import_module("consumers.decode.ftrace_cut_loops"), space or Space()
    ids = [number for number in np.flatnonzero(walked.counts).tolist() if number in wanted]
    least = np.array([wanted[number].least_bytes for number in ids], _INT)
    assert (walked.least_bytes[ids] <= least).all()  # so none is taken that was not counted
    plan, first_columns = _Plan(), [0]
    for number, rows in zip(ids, walked.counts[ids].tolist(), strict=True):
        _add(plan, number, wanted[number], rows, texts, loops, pages=pages)
        first_columns.append(len(plan.columns))
    memory = taken(plan.kept_bytes)
    kept = tuple(memory.view(type_) for type_ in _TYPES)
    passing, others = space.passing(plan.passing_words), space.others(len(walked.page))
    kind_of = np.full(IDS, -1, np.int32)
    kind_of[ids] = np.arange(len(ids))
    views = (octets, *(from_each_byte(octets, type_) for type_ in _TYPES[1:]))
    events = (walked.page, walked.position, walked.ts, walked.event_id, walked.start, walked.length)
    told = tuple(np.array([each[i] for each in plan.columns], _INT) for i in range(len(_Column._fields)))
    while True:
        rows_of, tables = np.zeros(len(ids), _INT), _tables(plan.texts)
        kinds = (kind_of, least, np.array(first_columns, _INT), rows_of)
        found = loops.cut(views, events, by_page, kinds, told, kept, passing, others, tables, SEEDS)
        if not _taken(plan.texts, tables, loops):
            break
    parts = {}
    for kind, (number, rows) in enumerate(zip(ids, rows_of.tolist(), strict=True)):
        if rows:
            own = plan.columns[first_columns[kind] : first_columns[kind + 1]]
            parts[number] = _part(own, plan.texts, wanted[number], rows, kept, passing, pages=pages)
    return Cut(parts, others[:found])


# In the order in which `_part` takes them.
def _add(plan: _Plan, number: int, wanted: Wanted, rows: int, texts: Texts, loops: Any, *, pages: bool) -> None:
    for source, size in ((loops.FROM_NUMBER, 8), (loops.FROM_ARRIVAL, 8), (loops.FROM_POSITION, 4), (loops.FROM_TS, 8)):
        plan.keep(source, rows, size)
    for at in wanted.numbers:
        assert at[1] in _TYPE_OF
        assert 0 <= at[0] <= wanted.least_bytes - at[1]
        plan.keep(loops.FROM_PAYLOAD, rows, at[1], at)
    for name, at in wanted.texts.items():
        assert at[1] in TEXT_BYTES
        assert 0 <= at[0] <= wanted.least_bytes - at[1]
        plan.keep(loops.FROM_TEXT, rows, 4, at)
        if (number, name) not in texts:
            texts[number, name] = Text(at[1])
        plan.texts.append(texts[number, name])
    for _ in range(wanted.rooms):
        plan.keep(loops.FROM_ELSEWHERE, rows, 4)
    if pages:
        plan.pass_on(loops.FROM_PAGE, rows)
    if wanted.payloads:
        plan.pass_on(loops.FROM_START, rows)
        plan.pass_on(loops.FROM_LENGTH, rows)


# As the loop takes them: all behind one another.
def _tables(texts: list[Text]) -> tuple[Any, ...]:
    slot_counts = np.array([len(text.slots) for text in texts], _INT)
    first_slots = np.cumsum(slot_counts) - slot_counts
    counts, full = np.array([text.count for text in texts], _INT), np.zeros(len(texts), np.uint8)
    slots = np.concatenate([np.empty(0, np.int32), *(text.slots for text in texts)])
    firsts, lasts = (
        np.concatenate([np.empty(0, np.uint64), *(getattr(text, name) for text in texts)]) for name in ("first", "last")
    )
    return slots, firsts, lasts, first_slots, slot_counts, first_slots // 2, counts, full


# Whether some were full, which have more room now.
def _taken(texts: list[Text], tables: tuple[Any, ...], loops: Any) -> bool:
    slots, firsts, lasts, first_slots, _, first_entries, counts, full = tables
    for i, text in enumerate(texts):
        if counts[i] > text.count:
            text.slots[:] = slots[first_slots[i] : first_slots[i] + len(text.slots)]
            for own, those in ((text.first, firsts), (text.last, lasts)):
                own[:] = those[first_entries[i] : first_entries[i] + len(own)]
            text.count = int(counts[i])
        if full[i]:
            text.grow(loops)
    return bool(full.any())


def _part(
    columns: list[_Column],
    texts: list[Text],
    wanted: Wanted,
    rows: int,
    kept: tuple[Any, ...],
    passing: npt.NDArray[np.uint64],
    *,
    pages: bool,
) -> Part:
    left = iter(columns)

    def column(type_: Any) -> Any:
        each = next(left)
        return kept[_TYPE_OF[np.dtype(type_).itemsize]][each.place : each.place + rows].view(type_)

    def passed() -> Ints:
        each = next(left)
        return passing[each.place : each.place + rows].view(_INT)

    number, arrival, position, ts = column(_INT), column(_INT), column(np.int32), column(_INT)
    numbers = {at: column(f"u{at[1]}") for at in wanted.numbers}
    first = 4 + len(numbers)
    coded = {
        name: (column(np.int32), texts[each.text])
        for name, each in zip(wanted.texts, columns[first : first + len(wanted.texts)], strict=True)
    }
    rooms = [column(np.int32) for _ in range(wanted.rooms)]
    page = passed() if pages else None
    start, length = (passed(), passed()) if wanted.payloads else (None, None)
    return Part(number, arrival, position, ts, numbers, coded, rooms, page, start, length)
