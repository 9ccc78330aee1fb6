"""Say how far each partition is stored: frontier, lag, last commit; and until when each stream was watched.

The lag needs the log: give --log or --kafka (or a config file that names one).
"""

import argparse
import json
import sys
import time
from typing import Any

from consumers import render
from consumers.cli import add_lake
from consumers.commands.sources import add_source, names_source, open_reader, read_config
from consumers.lake.layout import open_lake
from consumers.lake.tip import Tip, tips
from consumers.views import run_query
from schemas.surfaces import TOPICS

# The last span of each stream, and the positions it ended at.
_COVERAGE = """
select machine, boot_id, layer, surface, instance, max(until_realtime_ns) as watched_until_ns,
       sum(until_realtime_ns - since_realtime_ns) as watched_ns, max(next_position) as next_position
from coverage group by all order by all
"""
_CHAIN_COLUMNS = ("partition", "frontier", "lag", "commits", "rows", "last_commit_s_ago", "last_writer")
_STREAM_COLUMNS = ("stream", "next_position", "watched_s", "last_heartbeat_s_ago")


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_lake(sub)
    add_source(sub)
    sub.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print chains, then streams."""
    storage = open_lake(args.lake, create=False)
    ends = _ends(args)
    now_ns = time.time_ns()
    chains = [_chain_row(each, ends, now_ns) for each in tips(storage)]
    _, covered = run_query(storage, _COVERAGE)
    streams = [_stream_row(row, now_ns) for row in covered]
    if args.json:
        value = {
            "partitions": [dict(zip(_CHAIN_COLUMNS, row, strict=True)) for row in chains],
            "streams": [dict(zip(_STREAM_COLUMNS, row, strict=True)) for row in streams],
        }
        json.dump(value, sys.stdout, indent=2)
        print()
        return 0
    render.print_rows(_CHAIN_COLUMNS, chains, "table")
    print()
    render.print_rows(_STREAM_COLUMNS, streams, "table")
    return 0


# End offsets by "log id, topic id, partition", so that the chain of a topic since deleted shows no lag.
def _ends(args: argparse.Namespace) -> dict[tuple[str, str, str, int], int]:
    config = read_config(args)
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


def _chain_row(at: Tip, ends: dict[tuple[str, str, str, int], int], now_ns: int) -> tuple[Any, ...]:
    end = ends.get((at.log_id, at.topic_id, at.topic, at.partition))
    lag = None if end is None else max(0, end - at.frontier)
    ago_s = None if at.wall_ns is None else round((now_ns - at.wall_ns) / 1e9, 1)
    return (f"{at.topic}-{at.partition}", at.frontier, lag, at.commits, at.rows, ago_s, at.writer)


def _stream_row(row: tuple[Any, ...], now_ns: int) -> tuple[Any, ...]:
    *names, until_ns, watched_ns, position = row
    stream = "/".join(name for name in names if name)
    return (stream, position, round(watched_ns / 1e9, 1), round((now_ns - until_ns) / 1e9, 1))
