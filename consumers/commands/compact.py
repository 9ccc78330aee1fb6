"""Merge the small files of past hours into large sorted ones, and delete what nothing names any more.

Refuses to replace files unless row counts and an order-independent digest of the rows agree.
"""

import argparse
import time

from consumers.cli import add_lake
from consumers.lake.compact import compact, expire
from consumers.lake.layout import open_lake


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_lake(sub)
    sub.add_argument(
        "--lateness-s", type=float, default=600.0, metavar="S", help="an hour is past so long after its end [600]"
    )
    sub.add_argument(
        "--grace-s", type=float, default=3600.0, metavar="S", help="keep what is replaced so long for readers [3600]"
    )


def run(args: argparse.Namespace) -> int:
    """Compact, expire, and say what was done."""
    storage = open_lake(args.lake, create=False)
    print(compact(storage, time.time_ns(), lateness_ms=int(args.lateness_s * 1000)))
    print(expire(storage, time.time_ns(), grace_ms=int(args.grace_s * 1000)))
    return 0
