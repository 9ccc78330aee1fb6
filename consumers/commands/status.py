"""Say how far each partition is stored: frontier, lag, last commit; and until when each stream was watched.

The lag needs the log: give --log or --kafka, or a config file that names one. `null` is what nobody knows. `frontier`
is the next offset to store, `lag` how many offsets the log holds from there on; both count messages, not records. A lag
below 0: the log went back, which its collector will see. A log whose newest append time is ahead of the clock is named.
"""

import argparse
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

from consumers import render
from consumers.commands.sources import add_source, lake_of, names_source, open_reader, read_config
from consumers.commands.streams import SHOWN, shown
from consumers.lake.damage import exit_code
from consumers.lake.layout import ALERTS, open_lake
from consumers.lake.tip import Tip, tips
from consumers.views import run_query
from schemas.config import Config
from schemas.stream import Stream
from schemas.surfaces import TOPICS

log = logging.getLogger(__name__)
_AHEAD_NS = 60 * 10**9
_NAMES = ", ".join(Stream._fields)
# How long each stream was watched in all, until when, and the position it had then.
_COVERAGE = f"""
select {_NAMES}, max(until_realtime_ns), sum(until_realtime_ns - since_realtime_ns), max(next_position)
from coverage group by all order by all
"""  # noqa: S608
_CHAIN_COLUMNS = ("partition", "frontier", "lag", "commits", "rows", "last_commit_s_ago", "last_writer")
_STREAM_COLUMNS = (*SHOWN, "next_position", "watched_s", "last_heartbeat_s_ago")


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("--lake", type=Path, metavar="DIR", help="the lake's directory [collect.lake]")
    add_source(sub)
    sub.add_argument("--json", action="store_true", help="one JSON object, with whole names")


def run(args: argparse.Namespace) -> int:
    """Print chains, then streams."""
    config = read_config(args)
    storage = open_lake(lake_of(args, config), create=False)
    ends = _ends(args, config)
    now_ns = time.time_ns()
    found = tips(storage)
    chains = [_chain(each, ends, now_ns) for each in found]
    _warn_ahead(found, ends, now_ns)
    _, covered = run_query(storage, _COVERAGE)
    streams = [_stream(row, now_ns) for row in covered]
    if args.json:
        render.print_json({"partitions": chains, "streams": streams})
    else:
        _print_chains(chains)
        print()
        _print_streams(streams)
    return exit_code(storage)


# End offsets by "log id, topic id, partition", so that the chain of a topic since deleted shows no lag.
def _ends(args: argparse.Namespace, config: Config) -> dict[tuple[str, str, str, int], int]:
    if not names_source(args, config):
        return {}
    reader = open_reader(args, config)
    try:
        log_id = reader.log_id()
        return {
            (log_id, reader.topic_id(each.topic), each.topic, each.number): reader.end_offset(each)
            for each in reader.partitions(list(TOPICS))
        }
    finally:
        reader.close()


def _log_of(at: Tip) -> tuple[str, str, str, int]:
    return at.log_id, at.topic_id, at.topic.removeprefix(ALERTS), at.partition


# Of logs that are still there, where somebody named one. Their times never go back.
def _warn_ahead(found: list[Tip], ends: dict[tuple[str, str, str, int], int], now_ns: int) -> None:
    for at in found:
        if at.seen_ns - now_ns > _AHEAD_NS and not at.closed and (not ends or _log_of(at) in ends):
            log.warning(
                "%s-%d: the newest message came %d s ahead of this clock: the log's was or is wrong, and until then"
                " all that comes may have that time",
                at.topic, at.partition, (at.seen_ns - now_ns) // 10**9,
            )  # fmt: skip


def _chain(at: Tip, ends: dict[tuple[str, str, str, int], int], now_ns: int) -> dict[str, Any]:
    end = None if at.closed else ends.get(_log_of(at))
    return {
        "partition": f"{at.topic}-{at.partition}",
        "topic": at.topic,
        "number": at.partition,
        "log_id": at.log_id,
        "topic_id": at.topic_id,
        "frontier": at.frontier,
        "lag": None if end is None else end - at.frontier,
        "commits": at.commits,
        "rows": at.rows,
        "last_commit_s_ago": None if at.wall_ns is None else round((now_ns - at.wall_ns) / 1e9, 1),
        "last_writer": at.writer,
    }


def _stream(row: tuple[Any, ...], now_ns: int) -> dict[str, Any]:
    *names, until_ns, watched_ns, position = row
    return {
        **Stream(*names)._asdict(),
        "next_position": position,
        "watched_s": round(watched_ns / 1e9, 1),
        "watched_until_ns": until_ns,
        "last_heartbeat_s_ago": round((now_ns - until_ns) / 1e9, 1),
    }


def _print_chains(chains: list[dict[str, Any]]) -> None:
    # The same partition of another log, or of a topic made anew, has a chain of its own.
    again = max(Counter(chain["partition"] for chain in chains).values(), default=1) > 1
    columns = ("log_id", *_CHAIN_COLUMNS) if again else _CHAIN_COLUMNS
    logs = render.short_ids(chain["log_id"] for chain in chains)
    rows = [[{**chain, "log_id": logs[chain["log_id"]]}[name] for name in columns] for chain in chains]
    render.print_rows(columns, rows, "table", whole="--json")


def _print_streams(streams: list[dict[str, Any]]) -> None:
    names = shown([Stream(*(stream[name] for name in Stream._fields)) for stream in streams])
    numbers = [[stream[name] for name in _STREAM_COLUMNS[len(SHOWN) :]] for stream in streams]
    rows = [(*first, *rest) for first, rest in zip(names, numbers, strict=True)]
    render.print_rows(_STREAM_COLUMNS, rows, "table", whole="--json")
