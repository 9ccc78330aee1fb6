"""Merge the small files of past hours into large sorted ones, and delete what nothing names any more.

With a retention whole hours leave the lake first, the oldest ones of all tables; descriptions (`artifacts`,
`topology_*`) and `incidents` stay. What has left is in no query any more; its files go as those that were replaced.

Refuses to replace files unless row counts and an order-independent digest of the rows agree. A damaged file stays as it
is, until its time is over, and the exit code is 74.
"""

import argparse
import dataclasses
import time

from consumers.cli import add_lake
from consumers.lake.compact import CompactReport, compact, expire
from consumers.lake.layout import HOUR_NS, hour_text, open_lake
from consumers.lake.retire import UNLIMITED, Retention, RetireReport, retire
from schemas.command_line import float_from_0
from schemas.config import CollectConfig
from schemas.errors import DamagedError


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_lake(sub)
    sub.add_argument(
        "--lateness-s",
        type=float_from_0,
        default=600.0,
        metavar="SECONDS",
        help="an hour is past so long after its end [600]",
    )
    sub.add_argument(
        "--grace-s",
        type=float_from_0,
        default=3600.0,
        metavar="SECONDS",
        help="keep what is replaced so long for those who still read it [3600]",
    )

    retention = sub.add_argument_group("retention (none by default)")
    retention.add_argument(
        "--retention-hours",
        type=float,
        metavar="HOURS",
        help="let hours go that ended so long ago [collect.retention_hours]",
    )
    retention.add_argument(
        "--retention-bytes",
        type=int,
        metavar="N",
        help="let the oldest go while the lake's files have more bytes [collect.retention_bytes]",
    )


def run(args: argparse.Namespace) -> int:
    """Retire, compact, expire, and say what was done."""
    limits = CollectConfig(retention_hours=args.retention_hours, retention_bytes=args.retention_bytes)
    retention = Retention(limits.retention_hours, limits.retention_bytes)
    storage = open_lake(args.lake, create=False)
    retired = retire(storage, time.time_ns(), retention)
    if retention != UNLIMITED:
        print(_retired(retired))
    merged = compact(storage, time.time_ns(), lateness_ms=int(args.lateness_s * 1000), again=True)
    print(_merged(merged))
    expired = expire(storage, time.time_ns(), grace_ms=int(args.grace_s * 1000))
    deleted = {name: count for name, count in dataclasses.asdict(expired).items() if count}
    print("deleted: " + (", ".join(f"{count} {name}" for name, count in deleted.items()) or "nothing is old enough"))
    return DamagedError.exit_code if merged.damaged or retired.staying else 0


def _retired(report: RetireReport) -> str:
    if not report.manifest:
        return "retired: nothing, " + (
            "files cannot be read, the log says which" if report.staying else "no past hour is over the retention"
        )
    damaged = f", {report.damaged:,} of them damaged" if report.damaged else ""
    return (
        f"retired: what came before {hour_text(report.before_ns // HOUR_NS)}: {report.rows:,} rows in "
        f"{report.files:,} files{damaged}, {report.size_bytes:,} bytes; manifest {report.manifest}"
    )


def _merged(report: CompactReport) -> str:
    left_out = f"damaged files left out: {report.damaged:,}, `hypocenter audit` says which" if report.damaged else ""
    if not report.files_out:
        return "merged: nothing, " + (left_out or "no past hour has several small files")
    return (
        f"merged: {report.files_in:,} files into {report.files_out:,}, {report.rows:,} rows, "
        f"{report.bytes_in:,} bytes into {report.bytes_out:,}; manifest {report.manifest}"
        + (f"; {left_out}" if left_out else "")
    )
