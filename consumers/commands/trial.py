"""Run agent, collector and audit together on this machine for some seconds, and show what came of it.

The agent reads the real kernel log. With --log (the default) nothing else is needed; with --kafka it goes through a
broker, whose topics are created where they are missing, into a lake of its own: the same records that come through
two logs are stored twice.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from consumers import render
from consumers.commands.audit import print_books
from consumers.commands.sources import kafka_config, open_reader, read_config
from consumers.follow import Follower
from consumers.lake.audit import audit
from consumers.lake.layout import open_lake
from consumers.lake.storage import Storage
from consumers.topics import create_topics, verify_topics
from consumers.views import run_query
from schemas.command_line import positive_float
from schemas.config import CollectConfig
from schemas.errors import UnavailableError

_QUERY: Final = """\
select make_timestamp_ns(captured_ns) as captured_utc, ts_ns / 1e9 as kernel_s, level, message
from kmsg order by captured_ns desc, seq desc limit 5"""
_LOSSES: Final = """\
select surface, kind, reason, count(*) as entries, sum(count) as positions from losses group by all order by all"""
_LAKE: Final = Path("var/lake")
_LAKE_KAFKA: Final = Path("var/lake-kafka")
_STARTED_S: Final = 20.0
_HEARTBEAT_S: Final = 2.0
_CUT_AGE_S: Final = 1.0


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("--lake", type=Path, metavar="DIR", help=f"the lake [{_LAKE}, with --kafka {_LAKE_KAFKA}]")
    source = sub.add_mutually_exclusive_group()
    source.add_argument("--log", type=Path, default=Path("var/log"), metavar="DIR", help="the embedded log [var/log]")
    source.add_argument("--kafka", metavar="HOST:PORT", help="go through this Kafka instead")
    sub.add_argument("--spool", type=Path, default=Path("var/spool"), metavar="DIR", help="spool for Kafka [var/spool]")
    sub.add_argument("--for", dest="for_s", type=positive_float, default=10.0, metavar="SECONDS", help="how long [10]")
    sub.set_defaults(config=None)


def run(args: argparse.Namespace) -> int:
    """Run the pipeline, print the account; the agent's exit code if that failed, 1 when a book does not close."""
    args.lake = args.lake or (_LAKE_KAFKA if args.kafka else _LAKE)
    if args.kafka:
        args.log = None
        kafka = kafka_config(args, read_config(args))
        assert kafka is not None
        made = create_topics(kafka, partitions=1, replication=1)
        # They outlast the trial, on a broker that may be somebody's.
        if made:
            print(f"created on {args.kafka}, with 1 partition and 1 replica: {', '.join(made)}")
        verify_topics(kafka)
    storage = open_lake(args.lake, create=True)
    if not args.verbose:
        logging.getLogger("consumers.follow").setLevel(logging.WARNING)
    print(f"{args.for_s:g} s of this machine's kernel log, through {args.kafka or args.log}, into {args.lake}")
    agent = _start_agent(args)
    try:
        if _started(args, agent):
            _collect(args, storage, agent)
    finally:
        if agent.poll() is None:
            agent.terminate()
        code = agent.wait()
    if code in (-signal.SIGTERM, -signal.SIGINT):  # it came when all was written
        code = 0
    return code or _account(args, storage)


def _start_agent(args: argparse.Namespace) -> "subprocess.Popen[bytes]":
    target = ["--kafka", args.kafka, "--spool", str(args.spool)] if args.kafka else ["--log", str(args.log)]
    timing = ["--for", str(args.for_s), "--heartbeat-s", str(_HEARTBEAT_S), "--metrics", "off"]
    command = [sys.executable, "-m", "producers.cli", "run", *target, *timing]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})


# False when the agent ended instead of starting; it has said why.
def _started(args: argparse.Namespace, agent: "subprocess.Popen[bytes]") -> bool:
    deadline_s = time.monotonic() + _STARTED_S
    while not args.kafka and not (args.log / "log.json").exists():
        if agent.poll() is not None:
            return False
        if time.monotonic() > deadline_s:
            raise UnavailableError(f"the agent made no log in {args.log} within {_STARTED_S:.0f} s")
        time.sleep(0.05)
    return True


# Follows while the agent lives; it says goodbye at its end, so what it left is then read to the end.
def _collect(args: argparse.Namespace, storage: Storage, agent: "subprocess.Popen[bytes]") -> None:
    config = CollectConfig(lake=args.lake, cut_age_s=_CUT_AGE_S)
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    reader = open_reader(args, read_config(args), config)
    try:
        follower = Follower(reader, storage, config)
        watcher = threading.Thread(target=_progress, args=(agent, follower, args.for_s, stop))
        watcher.start()
        try:
            follower.run(stop, until_end=False)
        finally:
            stop.set()
            watcher.join()
    finally:
        reader.close()
    if agent.poll() is None:
        agent.terminate()
    agent.wait()
    reader = open_reader(args, read_config(args), config)
    try:
        Follower(reader, storage, config).run(threading.Event(), until_end=True)
    finally:
        reader.close()


def _progress(agent: "subprocess.Popen[bytes]", follower: Follower, for_s: float, stop: threading.Event) -> None:
    start_s, terminal, line_s = time.monotonic(), sys.stderr.isatty(), 0.0
    while agent.poll() is None and not stop.is_set():
        passed_s = time.monotonic() - start_s
        if terminal or passed_s >= line_s:
            line_s = passed_s + 2.0
            text = f"collecting: {min(passed_s, for_s):4.1f} of {for_s:g} s, {follower.records:,} records"
            print(f"\r{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)
        stop.wait(0.1)
    if terminal:
        print(file=sys.stderr)
    stop.set()


def _account(args: argparse.Namespace, storage: Storage) -> int:
    report = audit(storage)
    print()
    print_books(report)
    print("\nlosses:")
    names, found = run_query(storage, _LOSSES)
    render.print_rows(names, [(*row[:3], *map(render.grouped, row[3:])) for row in found], "table")
    print(f"\nThe Parquet lies in {args.lake / 'data'}: {report.files} files. An example of a query, and its answer:\n")
    command = sys.argv[0] if Path(sys.argv[0]).name == "hypocenter" else "hypocenter"
    print(f'{command} query --lake {args.lake} "{_QUERY}"\n')
    names, found = run_query(storage, _QUERY)
    render.print_rows(names, found, "table")
    return 0 if report.closes else 1
