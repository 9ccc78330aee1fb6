"""What an export covers: the trace events of one boot on one clock, between two times, and no more than one file holds.

Nothing is guessed: where several machines, boots or clocks are left, the error names them and the flag that chooses.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import duckdb

from consumers.decode import ftrace
from consumers.render import short_ids, utc
from schemas.errors import UsageError

#: A viewer holds a whole file in its memory; sched, irq and syscall events took 41 bytes each as a trace of Perfetto.
EVENTS_MAX: Final = 20_000_000
#: Events that are in memory at once.
WINDOW_EVENTS: Final = 1 << 19
_BUCKETS: Final = 256
_CHOICES: Final = (("machine", "--machine"), ("boot_id", "--boot-id"), ("clock", "--clock"))
_NAMED_MAX: Final = 8


class When(NamedTuple):
    """One end of a range: `ns` in the column `ts_ns`, or in `arrival_ns` for a time in UTC."""

    column: str
    ns: int


class Choice(NamedTuple):
    """What a user asked for; a machine or boot may be the beginning of its id, `instance` a set or one ring of it."""

    machine: str | None = None
    boot_id: str | None = None
    clock: str | None = None
    instance: str | None = None
    since: When | None = None
    until: When | None = None


class Ring(NamedTuple):
    """One CPU's ring: its stream's instance, the events in scope, and the times of the first and last (ns)."""

    instance: str
    cpu: int
    rows: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Scope:
    """The events to export: `where` with `params` selects them in every table of `tables`, which has their numbers.

    `from_start` and `to_end` say that no flag cut off what came before, or after; `twice` names kinds of events that
    several sets recorded of one CPU at a time, each with the sets: what more than one recorded is there more than once.
    """

    machine: str
    boot_id: str
    clock: str
    rings: tuple[Ring, ...]
    tables: dict[str, int]
    where: str
    params: tuple[Any, ...]
    from_start: bool
    to_end: bool
    twice: dict[str, tuple[str, ...]]

    @property
    def first_ns(self) -> int:
        """Return the time of the first event."""
        return min(ring.first_ns for ring in self.rings)

    @property
    def last_ns(self) -> int:
        """Return the time of the last event."""
        return max(ring.last_ns for ring in self.rings)


class Window(NamedTuple):
    """The events with `since_ns <= ts_ns < until_ns`; `tables` has the number in each table that has any."""

    since_ns: int
    until_ns: int
    tables: dict[str, int]


def when(text: str) -> When:
    """Return what --since or --until says: a whole number, or a time in UTC such as 2026-03-02T09:00:00.5.

    Raises:
        ValueError: it is neither.
    """
    if text.removeprefix("-").isdecimal() and text.isascii():
        return When("ts_ns", _int64(int(text)))
    at = dt.datetime.fromisoformat(text)
    at = at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at
    since = at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return When("arrival_ns", _int64((since // dt.timedelta(microseconds=1)) * 1000))


def find(connection: duckdb.DuckDBPyConnection, choice: Choice, *, events_max: int = EVENTS_MAX) -> Scope:
    """Return what `choice` selects in the lake behind `connection`.

    Raises:
        UsageError: nothing, too much, or several machines, boots or clocks; the text says how to choose.
    """
    tables = [name for (name,) in connection.execute("show tables").fetchall() if ftrace.owns(name)]
    where, params = _conditions(choice)
    found = _streams(connection, tables, where, params)
    if not found:
        raise UsageError(_nothing(connection, tables, choice))
    chosen: dict[str, str] = {}
    for at, (name, flag) in enumerate(_CHOICES):
        chosen[name] = _one([row[at] for row in found], name, flag, getattr(choice, name))
        found = [row for row in found if row[at] == chosen[name]]
    rows: Counter[str] = Counter()
    rings: dict[tuple[str, int], Ring] = {}
    for *_, instance, cpu, table, count, first_ns, last_ns in found:
        rows[table] += count
        known = rings.get((instance, cpu), Ring(instance, cpu, 0, first_ns, last_ns))
        ends = min(known.first_ns, first_ns), max(known.last_ns, last_ns)
        rings[instance, cpu] = Ring(instance, cpu, known.rows + count, *ends)
    if rows.total() > events_max:
        raise UsageError(
            f"{rows.total():,} events are too many for one file, which takes {events_max:,}: "
            "narrow it with --since, --until or --instance"
        )
    return Scope(
        **chosen,
        rings=tuple(sorted(rings.values(), key=lambda ring: (ring.cpu, ring.instance))),
        tables=dict(rows),
        where=" and ".join((where, *(f"{name} = ?" for name, _ in _CHOICES))),
        params=(*params, *chosen.values()),
        from_start=choice.since is None,
        to_end=choice.until is None,
        twice=_twice(found),
    )


def windows(
    connection: duckdb.DuckDBPyConnection, scope: Scope, *, events_max: int = WINDOW_EVENTS
) -> Iterator[Window]:
    """Yield windows that hold all events of `scope`, in the order of time, each with at most `events_max` of them.

    Only events of one and the same time can be more.
    """
    held: Window | None = None
    for each in _split(connection, scope, scope.first_ns, scope.last_ns + 1, events_max):
        if held and sum(held.tables.values()) + sum(each.tables.values()) <= events_max:
            held = Window(held.since_ns, each.until_ns, dict(Counter(held.tables) + Counter(each.tables)))
            continue
        if held:
            yield held
        held = each
    if held:
        yield held


def literal(text: str) -> str:
    """Return `text` as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def _split(
    connection: duckdb.DuckDBPyConnection, scope: Scope, since_ns: int, until_ns: int, events_max: int
) -> Iterator[Window]:
    width = max(1, -(-(until_ns - since_ns) // _BUCKETS))
    # Times may be as far apart as their type allows.
    bucket = f"(ts_ns::hugeint - {since_ns}) // {width}"
    parts = [
        f'select {literal(name)} as name, {bucket} as bucket from "{name}" '  # noqa: S608
        f"where {scope.where} and ts_ns >= {since_ns} and ts_ns < {until_ns}"
        for name in scope.tables
    ]
    sql = f"select bucket, name, count(*) from ({' union all '.join(parts)}) group by all order by bucket, name"  # noqa: S608
    buckets: dict[int, dict[str, int]] = {}
    for bucket, name, count in connection.execute(sql, [*scope.params * len(parts)]).fetchall():
        buckets.setdefault(int(bucket), {})[name] = count
    for at, tables in buckets.items():
        low, high = since_ns + at * width, min(until_ns, since_ns + (at + 1) * width)
        if sum(tables.values()) > events_max and width > 1:
            yield from _split(connection, scope, low, high, events_max)
        else:
            yield Window(low, high, tables)


def _conditions(choice: Choice) -> tuple[str, list[Any]]:
    where, params = ["true"], []
    for name, _ in _CHOICES[:2]:
        if getattr(choice, name) is not None:
            where.append(f"starts_with({name}, ?)")
            params.append(getattr(choice, name))
    if choice.clock is not None:
        where.append("clock = ?")
        params.append(choice.clock)
    if choice.instance is not None:
        where.append("(instance = ? or starts_with(instance, ? || '/'))")
        params += [choice.instance] * 2
    for end, sign in ((choice.since, ">="), (choice.until, "<")):
        if end is not None:
            where.append(f"{end.column} {sign} {end.ns}")
    return " and ".join(where), params


# (machine, boot, clock, instance, cpu, table, rows, first time, last time), of all rings and tables.
def _streams(
    connection: duckdb.DuckDBPyConnection, tables: list[str], where: str, params: list[Any]
) -> list[tuple[Any, ...]]:
    parts = [
        f"select machine, boot_id, clock, instance, cpu, {literal(name)}, count(*), min(ts_ns), max(ts_ns) "  # noqa: S608
        f'from "{name}" where {where} group by all'
        for name in tables
    ]
    return connection.execute(" union all ".join(parts), params * len(parts)).fetchall() if parts else []


# Of each table the sets whose rings of one CPU have rows of it at times that overlap.
def _twice(found: list[tuple[Any, ...]]) -> dict[str, tuple[str, ...]]:
    sets: dict[str, set[str]] = {}
    last: dict[tuple[str, int], tuple[int, str]] = {}
    for *_, instance, cpu, table, _, first_ns, last_ns in sorted(found, key=lambda row: row[-2:]):
        name = instance.partition("/")[0]
        end_ns, before = last.get((table, cpu), (first_ns - 1, name))
        if end_ns >= first_ns and before != name:
            sets.setdefault(table, set()).update((before, name))
        last[table, cpu] = max((end_ns, before), (last_ns, name))
    return {table: tuple(sorted(names)) for table, names in sorted(sets.items())}


def _one(values: list[str], name: str, flag: str, given: str | None) -> str:
    different = sorted(set(values))
    if len(different) == 1 or given in different:
        return given if given in different else different[0]
    short = short_ids(different)
    listed = ", ".join(short[each] for each in different[:_NAMED_MAX]) + (
        ", ..." if len(different) > _NAMED_MAX else ""
    )
    what = {"machine": "machines", "boot_id": "boots", "clock": "clocks"}[name]
    raise UsageError(
        f"there are trace events of {len(different)} {what}, a file takes one: give {flag}, one of {listed}"
    )


def _nothing(connection: duckdb.DuckDBPyConnection, tables: list[str], choice: Choice) -> str:
    where, params = _conditions(choice._replace(since=None, until=None))
    found = _streams(connection, tables, where, params)
    if found:
        parts = [f'select arrival_ns from "{name}" where {where}' for name in tables]  # noqa: S608
        sql = f"select min(arrival_ns), max(arrival_ns) from ({' union all '.join(parts)})"  # noqa: S608
        first, last = map(utc, connection.execute(sql, params * len(parts)).fetchall()[0])
        span = f"ts_ns are {min(row[-2] for row in found)} to {max(row[-1] for row in found)}"
        return f"no trace event lies there: {span}, and they came from {first} to {last} UTC"
    rings = sorted({(*row[:2], row[3].partition("/")[0], row[2]) for row in _streams(connection, tables, "true", [])})
    if rings:
        listed = ", ".join(" ".join(ring) for ring in rings[:_NAMED_MAX])
        return f"no trace event is of that; there are (machine, boot, set, clock): {listed}"
    return "the lake has no trace events: record some with `hypocenter-agent run --surface ftrace`"


def _int64(number: int) -> int:
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(number)
    return number
