"""Was a stream really watched between two times? From heartbeats, each of which closes a span of watching.

Times are on CLOCK_BOOTTIME of the stream's own machine, which nobody sets. Where no span lies nobody was looking, or
nobody has said so yet: silence there means nothing.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

import duckdb

from schemas.stream import Stream


class Span(NamedTuple):
    """From `since_ns` up to `until_ns`."""

    since_ns: int
    until_ns: int


class Answer(StrEnum):
    """Whether the whole of what was asked for was watched, nothing of it, or a part."""

    YES = "yes"
    NO = "no"
    PARTLY = "partly"


class Watched(NamedTuple):
    """`seen` and `blind` together are the span that was asked for: in order, and each as long as it can be."""

    answer: Answer
    seen: tuple[Span, ...]
    blind: tuple[Span, ...]


_NAMES: Final = ", ".join(Stream._fields)
# A span began where the heartbeat before it was read, if that closed the span before; else by how long it says it was.
_SPANS: Final = f"""
with beats as (
  select {_NAMES}, boottime_ns as until_ns, case
      when lag(until_realtime_ns) over runs = since_realtime_ns then lag(boottime_ns) over runs
      else boottime_ns - (until_realtime_ns - since_realtime_ns) end as since_ns
  from coverage where machine = ? and boot_id = ?
  window runs as (partition by layer, surface, instance, clock, run order by number)
)
select {_NAMES}, since_ns, until_ns from beats where since_ns <= until_ns and until_ns >= ? and since_ns <= ?
order by all
"""  # noqa: S608


def tells(stream: Stream) -> bool:
    """Return whether heartbeats of `stream` say when it was watched.

    Descriptions are sent once, and nobody watches them. Exchanges of times with a guest are its relay's: the stream
    `relay` of the host whose instance is the guest's name says when somebody was there to have them.
    """
    described = (stream.surface == "ftrace" and "/" not in stream.instance) or stream.instance.endswith("/types")
    return not described and (stream.surface, stream.instance) != ("clocks", "relay")


def watched(spans: Iterable[Span], since_ns: int, until_ns: int) -> Watched:
    """Return how much of the time from `since_ns` up to `until_ns` the `spans`, in any order, were watched.

    With both the same, whether that moment was: it is seen where a span touches it.
    """
    assert since_ns <= until_ns
    seen: list[Span] = []
    for span in merged(spans):
        first, last = max(span.since_ns, since_ns), min(span.until_ns, until_ns)
        if first < last or (first == last and since_ns == until_ns):
            seen.append(Span(first, last))
    edges = [since_ns, *(edge for span in seen for edge in span), until_ns]
    if since_ns == until_ns:
        blind = [] if seen else [Span(since_ns, until_ns)]
    else:
        blind = [Span(*pair) for pair in zip(edges[::2], edges[1::2], strict=True) if pair[0] < pair[1]]
    answer = Answer.NO if not seen else Answer.PARTLY if blind else Answer.YES
    return Watched(answer, tuple(seen), tuple(blind))


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return the same time as `spans` in as few as can be, in order; those without a length are kept."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.since_ns <= found[-1].until_ns:
            found[-1] = Span(found[-1].since_ns, max(found[-1].until_ns, span.until_ns))
        else:
            found.append(span)
    return found


def read_spans(
    connection: duckdb.DuckDBPyConnection, machine: str, boot_id: str, since_ns: int, until_ns: int
) -> dict[Stream, list[Span]]:
    """Return the spans of each stream of one boot that touch the given time, merged; of its CLOCK_BOOTTIME, in ns.

    They come from the table `coverage` of `connection`. A stream without a heartbeat there is left out.
    """
    found: dict[Stream, list[Span]] = {}
    for *names, first_ns, last_ns in connection.execute(_SPANS, [machine, boot_id, since_ns, until_ns]).fetchall():
        found.setdefault(Stream(*names), []).append(Span(first_ns, last_ns))
    return {stream: merged(spans) for stream, spans in found.items()}
