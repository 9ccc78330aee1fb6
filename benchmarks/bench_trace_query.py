"""The typical question to a big lake of trace events: one CPU, one second.

A recording is played again and again into a lake, through the collector itself and without fsync, until it has
100 million events in commits of the usual size. The question then is asked anew each time, from the list of committed
files on, as `hypocenter query` does it, in this process (wall clock) and as a process of its own; and again when the
hour has been compacted.
"""

import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks.base import Options, Reach, Row, log, scratch
from benchmarks.lakes import UnsyncedStorage, open_chain
from benchmarks.processes import finish, ours, start
from benchmarks.traces import SET, Recording, record, replayed
from consumers.collector import Cut, PartitionCollector
from consumers.lake.compact import compact, expire
from consumers.lake.layout import open_lake
from consumers.lake.storage import LocalStorage, Storage
from consumers.lake.writer import CommitWriter
from consumers.transport.base import Message, Partition
from consumers.views import run_query
from schemas.config import CollectConfig
from schemas.frame import encode
from schemas.surfaces import TOPIC_TRACE

_SECOND_NS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _SECOND_NS


def run(options: Options) -> list[Row]:
    """Return how long the question takes."""
    recording = record(2 if options.quick else 6)
    events = 10_000_000 if options.quick else 100_000_000
    with scratch() as root:
        count = build(root / "lake", recording, events)
        storage = open_lake(root / "lake", create=False)
        sql = _question(storage)
        rows = _asked(options, storage, root / "lake", sql, count, "as committed")
        started_s = time.process_time()
        report = compact(storage, time.time_ns() + _DAY_NS)
        expire(storage, time.time_ns() + _DAY_NS, grace_ms=0)
        cost_ns = (time.process_time() - started_s) / report.rows * 1e9
        rows.append(Row("to compact a trace event", [cost_ns], "ns", None, f"{report.rows:,} rows, both digests too"))
        return rows + _asked(options, storage, root / "lake", sql, count, "compacted")


def _asked(options: Options, storage: Storage, lake: Path, sql: str, count: int, state: str) -> list[Row]:
    files = list(storage.list("data/"))
    size_bytes = sum(Path(storage.local_path(key)).stat().st_size for key in files)
    log(f"  {count:,} events in {len(files)} files, {state}, {size_bytes / count:.2f} B an event")
    _, found = run_query(storage, sql)
    assert found, "the second is empty"
    times_ms, whole_ms = [], []
    for _ in range(5 if options.quick else 20):
        start_s = time.perf_counter()
        run_query(storage, sql)
        times_ms.append((time.perf_counter() - start_s) * 1e3)
    for _ in range(3):
        start_s = time.perf_counter()
        finish(start(ours("consumers.cli", "query", "--lake", str(lake), sql), stdout=subprocess.DEVNULL))
        whole_ms.append((time.perf_counter() - start_s) * 1e3)
    how = (
        f"which thread ran how often on a CPU within 1 s, of {count / 1e6:.0f} M events in {len(files)} files, {state}"
    )
    return [
        Row("trace query", times_ms, "ms", Reach(100, inclusive=False), f"{how}; with the list of committed files"),
        Row("trace query, the whole command", whole_ms, "ms", None, "the same with the start of Python and DuckDB"),
    ]


def build(root: Path, recording: Recording, events: int) -> int:
    """Make a lake of at least so many events in `root`; return how many it has."""
    open_lake(root, create=True)
    storage = UnsyncedStorage(root)
    config = CollectConfig()
    cut = Cut(config.cut_bytes, config.cut_rows, int(config.cut_age_s * 1e9))
    chain = open_chain(storage, TOPIC_TRACE)
    collector = PartitionCollector(Partition(TOPIC_TRACE, 0), chain, CommitWriter(storage), cut)
    count = 0
    for frame in replayed(recording, 1 << 30):
        message = Message(collector.position, frame.realtime_ns, encode(frame, compress=False))
        collector.add([message], 0)
        if collector.due(0):
            assert collector.commit()
            count = sum(rows for table, rows in chain.state.totals.items() if table.startswith("trace_"))
            if count >= events:
                return count
    raise AssertionError("the recording ended")


# From the middle of the lake.
def _question(storage: LocalStorage) -> str:
    names = "min(ts_ns), max(ts_ns)"
    low, high = run_query(storage, f"select {names} from trace_sched_switch where cpu = 0")[1][0]
    since_ns = (low + high) // 2
    return (
        "select next_comm, next_pid, count(*) from trace_sched_switch "
        f"where machine = '{SET.machine}' and cpu = 0 and ts_ns >= {since_ns} and ts_ns < {since_ns + _SECOND_NS} "
        "group by all order by 3 desc limit 20"
    )
