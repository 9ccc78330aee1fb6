"""The kernel's own counts of the events that were read from trace rings, held against the rows.

`read_events` in the counters of a ring is what was read from it by whomever, since it was made or last emptied. An
agent sees pages and no events, so only here it shows that somebody else has read of its ring, or has emptied it
between two looks.

Source: kernel/trace/trace.c (`tracing_stats_read`), kernel/trace/ring_buffer.c (`ring_buffer_read_events_cpu`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from consumers.lake.counts import rows_of
from consumers.lake.snapshot import Snapshot
from consumers.lake.storage import Storage
from schemas.stream import Stream

_SURFACE: Final = "ftrace"
_NAMES: Final = ", ".join(Stream._fields)
_RUNS: Final = f"""
select {_NAMES}, max("offset") as latest, arg_max(counters, number), min(arrival_ns)
from read_parquet(?, hive_partitioning=false)
where surface = '{_SURFACE}' and instance like '%/cpu%' and counters is not null group by {_NAMES}, run order by latest
"""  # noqa: S608
# Events that were read and are no rows, or were not read by this kernel's count: nobody knows how many.
_UNSURE: Final = f"""
select distinct {_NAMES} from read_parquet(?, hive_partitioning=false)
where surface = '{_SURFACE}' and count is null and reason <> 'ring-overrun'
"""  # noqa: S608
_FAULTY: Final = f"""
select distinct {_NAMES} from read_parquet(?, hive_partitioning=false) where surface = '{_SURFACE}'
"""  # noqa: S608


class _Run(NamedTuple):
    read: int
    left_over: int | None
    final: bool


def mismatches(
    storage: Storage, taken: Snapshot, books: Mapping[Stream, list[dict[str, Any]]], retired_before_ns: int
) -> Iterator[tuple[Stream, str]]:
    """Yield each stream of a ring whose rows are not as many as the kernel counted, and what that means.

    Only where both are known: the agent has ended, and nothing is lost, dead, damaged or retired.

    Raises:
        StorageError: the files cannot be read.
    """
    unsure = {Stream(*row) for table, sql in (("losses", _UNSURE), ("dead_letters", _FAULTY))
              for row in rows_of(storage, taken, table, sql)}  # fmt: skip
    runs: dict[Stream, list[_Run]] = {}
    heard_ns: dict[Stream, int] = {}
    for *names, _, counters, first_ns in rows_of(storage, taken, "coverage", _RUNS):
        run = _Run(counters.get("read_events", 0), counters.get("left_over_read_events"), counters.get("final") == 1)
        stream = Stream(*names)
        runs.setdefault(stream, []).append(run)
        heard_ns[stream] = min(heard_ns.get(stream, first_ns), first_ns)
    for stream, lives in sorted(runs.items()):
        known = books.get(stream, [])
        if stream in unsure or len(known) != 1 or not _whole(known[0], retired_before_ns):
            continue
        if heard_ns[stream] < known[0].get("opened_ns", 0):
            continue  # it had a book before, which was closed
        counted, rows = _counted(lives), known[0]["rows"]
        if counted is not None and counted != rows:
            why = "somebody else has read the ring" if rows < counted else "the ring was emptied, with what was in it"
            yield stream, f"{rows} events are here, the kernel counted {counted} as read: {why}"


def _whole(book: Mapping[str, Any], retired_before_ns: int) -> bool:
    missing = sum(book["lost"].values()) + book["dead"] + book["contradicted"]
    return not missing and book.get("opened_ns", 0) >= retired_before_ns


# A left-over ring's count has what the run before it had read of it. None where that is not so plain.
def _counted(lives: Iterable[_Run]) -> int | None:
    total, died = 0, False
    for run in lives:
        if died is not (run.left_over is not None):
            return None
        died = not run.final
        total += (run.left_over or 0) + (0 if died else run.read)
    return None if died else total
