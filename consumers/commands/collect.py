"""Store what the log holds into a lake: exactly once, in order, losses as rows.

Follows until stopped, or with --until-end stops at the end that the log has at the start. Stop it by SIGTERM or SIGINT:
what was read is committed first. Killed, it goes on where the last commit ends.
"""

import argparse
import dataclasses
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Final

from consumers.commands.sources import add_source, kafka_config, lake_of, open_reader, read_config
from consumers.follow import Follower
from consumers.lake.layout import open_lake
from consumers.metrics import CollectorMetrics
from consumers.progress import ProgressBar
from consumers.topics import verify_topics
from consumers.transport.kafka import KafkaReader
from schemas import metrics_http
from schemas.config import CollectConfig
from schemas.errors import UsageError

log = logging.getLogger(__name__)
_FLAGS: Final = (
    "lake", "group", "cut_age_s", "cut_rows", "cut_bytes", "metrics", "retention_hours", "retention_bytes",
)  # fmt: skip


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("--lake", type=Path, metavar="DIR", help="the lake's directory, created if absent [collect.lake]")
    add_source(sub)
    sub.add_argument("--until-end", action="store_true", help="stop at the end of the log as it is now")
    sub.add_argument("--group", metavar="NAME", help="share partitions by this Kafka consumer group [collect.group]")
    sub.add_argument(
        "--partitions", metavar="TOPIC:N,...", help="only these partitions; default all [collect.partitions]"
    )
    sub.add_argument(
        "--cut-age-s",
        type=float,
        metavar="SECONDS",
        help="commit at the latest so long after a record came [collect.cut_age_s]",
    )
    sub.add_argument("--cut-rows", type=int, metavar="N", help="commit at so many rows [collect.cut_rows]")
    sub.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="serve metrics there; or PORT; or off; with --until-end only if given [collect.metrics]",
    )
    sub.add_argument("--cut-bytes", type=int, metavar="N", help="commit at so many bytes of frames [collect.cut_bytes]")
    sub.add_argument(
        "--retention-hours",
        type=float,
        metavar="HOURS",
        help="the lake keeps so many, by default all [collect.retention_hours]",
    )
    sub.add_argument(
        "--retention-bytes",
        type=int,
        metavar="N",
        help="its files may have so many, by default any number [collect.retention_bytes]",
    )


def run(args: argparse.Namespace) -> int:
    """Collect until stopped or until the end."""
    config = read_config(args)
    lake = lake_of(args, config)
    collect = _collect_config(args, config.collect)
    kafka = kafka_config(args, config)
    if kafka is not None:
        verify_topics(kafka)
    # Before the lake is made, so that a wrong name of the log leaves nothing behind.
    reader = open_reader(args, config, collect)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics, server = CollectorMetrics(), None
    try:
        follower = Follower(reader, open_lake(lake, create=True), collect, metrics)
        log.info("collecting into %s", lake)
        # A run to the end is over before anybody asks, and its port may be that of one that goes on.
        if args.metrics or not args.until_end:
            server = metrics_http.serve(collect.metrics, metrics.text)
        if isinstance(reader, KafkaReader) and collect.group:
            reader.listen(follower)
        follower.run(stop, until_end=args.until_end, progress=ProgressBar("messages") if args.until_end else None)
    finally:
        if server is not None:
            server.close()
        reader.close()
    log.info("stopped; %d records were read and are committed", follower.records)
    if follower.housekeeping:
        # Its thread would come back out of a library into an interpreter that ends, which aborts the process.
        logging.shutdown()
        os._exit(0)
    return 0


def _collect_config(args: argparse.Namespace, base: CollectConfig) -> CollectConfig:
    flags = {key: getattr(args, key) for key in _FLAGS}
    flags["partitions"] = tuple(args.partitions.split(",")) if args.partitions else None
    collect = dataclasses.replace(base, **{key: value for key, value in flags.items() if value is not None})
    if args.until_end and args.group:
        raise UsageError("--until-end reads a fixed list of partitions; leave out --group")
    # One of the file is for who follows.
    return dataclasses.replace(collect, group=None) if args.until_end else collect
