"""Run agent, collector and audit together on this machine for some seconds, and show what came of it.

The agent reads the real kernel log. With --log (the default) nothing else is needed; with --kafka it goes through a broker.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from consumers import render
from consumers.commands.sources import kafka_config, open_reader, read_config
from consumers.follow import Follower
from consumers.lake.audit import audit
from consumers.lake.layout import open_lake
from consumers.topics import create_topics, verify_topics
from consumers.views import run_query
from schemas.config import CollectConfig
from schemas.errors import UnavailableError

_QUERY: Final = """\
select to_timestamp(captured_ns / 1e9)::timestamp(0) as captured_utc, ts_ns / 1e9 as kernel_s, level, message
from kmsg order by captured_ns desc, seq desc limit 5"""
_STARTED_S: Final = 20.0


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("--lake", type=Path, default=Path("var/lake"), metavar="DIR", help="the lake [var/lake]")
    source = sub.add_mutually_exclusive_group()
    source.add_argument("--log", type=Path, default=Path("var/log"), metavar="DIR", help="the embedded log [var/log]")
    source.add_argument("--kafka", metavar="HOST:PORT", help="go through this Kafka instead")
    sub.add_argument("--spool", type=Path, default=Path("var/spool"), metavar="DIR", help="spool for Kafka [var/spool]")
    sub.add_argument("--for", dest="for_s", type=float, default=10.0, metavar="SECONDS", help="how long [10]")
    sub.set_defaults(config=None)


def run(args: argparse.Namespace) -> int:
    """Run the pipeline, print the account; the agent's exit code when it could not start, 1 when a book does not close."""
    if args.kafka:
        args.log = None
        kafka = kafka_config(args, read_config(args))
        assert kafka is not None
        create_topics(kafka, partitions=1, replication=1)
        verify_topics(kafka)
    storage = open_lake(args.lake, create=True)
    agent = _start_agent(args)
    config = CollectConfig(lake=args.lake, cut_age_s=1.0)
    try:
        code = _wait_for_log(args, agent)
        if code is not None:
            return code
        reader = open_reader(args, read_config(args), config)
        try:
            follower = Follower(reader, storage, config)
            stop = threading.Event()
            signal.signal(signal.SIGINT, lambda *_: stop.set())
            watcher = threading.Thread(target=_progress, args=(agent, args.for_s, stop))
            watcher.start()
            follower.run(stop, until_end=False)
            watcher.join()
        finally:
            reader.close()
        # The agent has said goodbye: read to the end of what it left.
        reader = open_reader(args, read_config(args), config)
        try:
            Follower(reader, storage, config).run(threading.Event(), until_end=True)
        finally:
            reader.close()
    finally:
        if agent.poll() is None:
            agent.terminate()
        agent.wait()
    return _account(args, storage)


def _start_agent(args: argparse.Namespace) -> "subprocess.Popen[bytes]":
    target = ["--kafka", args.kafka, "--spool", str(args.spool)] if args.kafka else ["--log", str(args.log)]
    command = [sys.executable, "-m", "producers.cli", "run", *target, "--for", str(args.for_s), "--heartbeat-s", "2"]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})


# Returns the agent's exit code when it ended instead of starting.
def _wait_for_log(args: argparse.Namespace, agent: "subprocess.Popen[bytes]") -> int | None:
    if args.kafka:
        return None
    deadline_s = time.monotonic() + _STARTED_S
    while time.monotonic() < deadline_s:
        if (args.log / "log.json").exists():
            return None
        if agent.poll() is not None:
            return agent.returncode
        time.sleep(0.05)
    raise UnavailableError(f"the agent made no log in {args.log} within {_STARTED_S:.0f} s")


def _progress(agent: "subprocess.Popen[bytes]", for_s: float, stop: threading.Event) -> None:
    start_s = time.monotonic()
    terminal = sys.stderr.isatty()
    while agent.poll() is None and not stop.is_set():
        if terminal:
            print(f"\rcollecting: {time.monotonic() - start_s:4.1f} of {for_s:.0f} s", end="", file=sys.stderr, flush=True)
        time.sleep(0.1)
    if terminal:
        print(file=sys.stderr)
    stop.set()


def _account(args: argparse.Namespace, storage: object) -> int:
    report = audit(storage, deep=False)  # type: ignore[arg-type]
    print("\nThe books (emitted = stored + duplicates + dead letters + losses):\n")
    columns = ("stream", "emitted", "stored", "duplicates", "dead letters", "lost", "closes")
    rows = [
        (
            book.name,
            book.next - book.first + book.duplicates,
            book.stored,
            book.duplicates,
            book.dead,
            sum(book.lost.values()),
            "yes" if book.closes else "NO",
        )
        for book in report.books
    ]
    render.print_rows(columns, rows, "table")
    print("\nLosses by kind:\n")
    names, found = run_query(
        storage,  # type: ignore[arg-type]
        "select kind, reason, count(*) as entries, sum(count) as positions from losses group by all order by 1, 2",
    )
    render.print_rows(names, found, "table")
    print(f"\nEvery book closes: {'yes' if report.closes else 'NO'}. The Parquet lies in {args.lake / 'data'}.\n")
    print(f'Example: .venv/bin/hypocenter query --lake {args.lake} "{_QUERY}"\n')
    names, found = run_query(storage, _QUERY)  # type: ignore[arg-type]
    render.print_rows(names, found, "table")
    return 0 if report.closes else 1
