"""What the values of fields are called: columns of names, which are numbers of words, from columns of values.

Only different values are looked up, and of those only so many: a table may come from anybody.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumers.decode import slice_columns
from consumers.decode.ftrace_branches import Condition
from consumers.decode.ftrace_expression import ALL_BITS
from consumers.decode.ftrace_print import Choice, Names
from consumers.decode.slice_columns import Codes, Slices, Words
from consumers.decode.slices import Mask

#: A field with more different values than this in one batch has no names there: it is no enumeration.
NAMED_VALUES_MAX: Final = 4096
#: To name all values of some pages may cost so many looks at entries of tables, 30 ns each; then there are no names.
NAMING_LOOKS_MAX: Final = 1 << 21
Values = npt.NDArray[Any]
_RELATIONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip


class Looks:
    """How many looks at tables of names are left of `NAMING_LOOKS_MAX`."""

    def __init__(self) -> None:
        self.left = NAMING_LOOKS_MAX

    def take(self, count: int) -> bool:
        """Tell whether `count` more are left, and use them up."""
        self.left -= count
        return self.left >= 0


def named(values: Values, names: Names, words: Words, looks: Looks, room: Codes) -> pa.Array:
    """Return the numbers of the values' names, int32(); null is what has none. `room` is used up."""
    codes, texts = _called(values, names, looks, room)
    return numbered(codes, texts, None, words)


def chosen(
    values: Values, choice: Choice, tested: Mapping[str, Values], words: Words, looks: Looks, room: Codes
) -> pa.Array:
    """Return what `named` does, by the first table whose conditions hold in the row.

    `tested` are the fields that the conditions are about.
    """
    room[:] = -1
    for conditions, names in reversed(choice.tables):
        here = np.ones(len(values), np.bool_)
        for each in conditions:
            here &= _holds(each, tested[each.field])
        rows = np.flatnonzero(here)
        if len(rows):
            codes, texts = _called(values[rows], names, looks, np.empty(len(rows), np.int32))
            room[rows] = _renumbered(codes, texts, words)
    return pa.array(room, mask=room < 0)


def numbered(codes: Codes, texts: list[str | None], missing: Mask | None, words: Words) -> pa.Array:
    """Return for each row the number in `words` of `texts[codes[i]]`; null is what is None or `missing`.

    Texts may repeat. The codes are used up.
    """
    _renumbered(codes, texts, words)
    # Values that do not come have no name either.
    unnamed = codes < 0 if None in texts else None
    if unnamed is not None and unnamed.any():
        missing = unnamed if missing is None else missing | unnamed
    return pa.array(codes, mask=missing)


def number(text: str, words: Words) -> int:
    """Return the number of a text in `words`."""
    return words.setdefault(text, len(words))


def masked(values: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """Return `bits` of each value; of a signed one those beyond its own are its sign."""
    own = 8 * values.itemsize
    mask = bits & (1 << own) - 1
    if bits >> own and values.dtype.kind == "i":
        mask |= 1 << own - 1
    found: npt.NDArray[Any] = values & np.array(mask, f"u{values.itemsize}").view(values.dtype)
    return found


# Which of the texts each row has.
def _called(values: Values, names: Names, looks: Looks, room: Codes) -> tuple[Codes, list[str | None]]:
    low, high = int(values.min()), int(values.max())
    if names.bits != ALL_BITS and not 0 <= low <= high < NAMED_VALUES_MAX:
        # Two flags may lie beside a time: only what the table looks at tells how many values there are.
        values = masked(values, names.bits)
        low, high = int(values.min()), int(values.max())
    if low >= 0 and high < NAMED_VALUES_MAX:
        room[:] = values
        seen = slice_columns.seen(room, high + 1)
        called: dict[int, str | None] = dict.fromkeys(value & names.bits for value, there in enumerate(seen) if there)
        if not looks.take(names.cost * len(called)):
            return room, [None] * len(seen)
        called = {value: names.name(value) for value in called}
        return room, [called[value & names.bits] if there else None for value, there in enumerate(seen)]
    octets, size = values.view(np.uint8), values.itemsize
    starts = np.arange(0, len(octets), size)
    codes, different = slice_columns.interned(Slices(octets, starts, np.full(len(starts), size)))
    if len(different) > NAMED_VALUES_MAX or not looks.take(names.cost * len(different)):
        return codes, [None] * len(different)
    return codes, [names.name(int(np.frombuffer(data, values.dtype)[0])) for data in different]


def _renumbered(codes: Codes, texts: list[str | None], words: Words) -> Codes:
    slice_columns.renumber(codes, np.array([-1 if text is None else number(text, words) for text in texts], np.int32))
    return codes


def _holds(condition: Condition, values: Values) -> Mask:
    type_ = condition.type
    compared = masked(values, condition.bits).astype(f"{'i' if type_.signed else 'u'}{type_.bits // 8}")
    found = _RELATIONS[condition.relation](compared, compared.dtype.type(condition.constant))
    holds: Mask = found == condition.wanted
    return holds
