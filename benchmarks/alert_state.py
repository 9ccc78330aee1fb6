"""What the alerter keeps of a machine in memory and in its commits: where nothing happened, and at the worst."""

import json
import random
import string
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Final

from benchmarks.base import Options, Reach, Row, log
from consumers.alerts.partition import PartitionAlerter
from consumers.alerts.payload import Whose
from consumers.lake.chain import Chain
from consumers.lake.layout import ALERTS
from consumers.lake.storage import MemoryStorage
from consumers.transport.base import Message, Partition
from schemas import kmsg
from schemas.frame import Frame, encode
from schemas.stream import Stream
from schemas.surfaces import TOPIC_LOG

_S: Final = 10**9
_NOW_NS: Final = 1_764_000_000 * _S
_LOG: Final = Partition(TOPIC_LOG, 0)
_HEALTHY: Final = b"6,%d,%d,-;usb 1-1: new high-speed USB device number 2 using xhci_hcd\n"
#: Incidents that lie apart, and reports of each: more than is kept of either.
_INCIDENTS, _REPORTS = 20, 16
_CHARS: Final = string.ascii_letters + string.digits + "_"
_KiB: Final = 1024


def rows(options: Options) -> Iterator[Row]:
    """Yield bytes for each quiet machine and KiB for one at its worst."""
    count = 2_000 if options.quick else 10_000
    memory, stored = _quiet(count)
    how = f"{count:,} machines, two frames of healthy records each"
    yield Row("alerts, memory of a quiet machine", [memory], "B", Reach(_KiB), how)
    yield Row("alerts, commit of a quiet machine", [stored], "B", Reach(_KiB), f"{how}, as JSON, not packed")
    memory, stored = _worst(noise=False)
    how = f"{_INCIDENTS} incidents of {_REPORTS} reports of 125 lines, the longest names, all of it open or untold"
    yield Row("alerts, memory at the worst", [memory / _KiB], "KiB", None, f"{how}; the largest of all looks")
    yield Row("alerts, commit at the worst", [stored / _KiB], "KiB", Reach(256), "the same, as JSON in a commit")
    _, stored = _worst(noise=True)
    how = "the same of text by chance, which does not compress: told in full it would take three times as much"
    yield Row("alerts, commit of noise", [stored / _KiB], "KiB", Reach(256), how)


def _alerter(storage: MemoryStorage) -> PartitionAlerter:
    chain = Chain(storage, ALERTS + _LOG.topic, 0, log_id="l", topic_id="t", first_offset=0)
    return PartitionAlerter(_LOG, chain, lambda _machine: Whose())


def _quiet(count: int) -> tuple[float, float]:
    storage = MemoryStorage()
    alerter = _alerter(storage)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(2 * count):
        machine, first = number % count, 50 * (number // count)
        records = [_HEALTHY % (first + each, 10**9 + each) for each in range(50)]
        frame = _frame(f"{machine:032x}", f"{machine:08x}-2f4e-4c1b-9d3a-5f1e2d3c4b5a", first, records, 10**12)
        alerter.add([Message(number, _NOW_NS + number, frame)])
    batch = alerter.batch()
    assert batch is not None
    assert len(batch.streams) == count
    stored = sum(len(json.dumps(state, separators=(",", ":"))) for state in batch.streams.values()) / count
    del batch
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    storage.close()
    log(f"  {(after - before) / count:.0f} B in memory, {stored:.0f} B stored for each of {count:,} machines")
    return (after - before) / count, stored


# Returns the most memory and the largest state in a commit.
def _worst(*, noise: bool) -> tuple[float, int]:
    storage = MemoryStorage()
    alerter = _alerter(storage)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    memory = stored = 0
    for number, (ts_ns, records, first) in enumerate(_incidents(_text_of(noise=noise))):
        value = _frame("m", "b", first, records, ts_ns)
        alerter.add([Message(number, _NOW_NS + number * 100 * _S, value)])
        transient = sum(map(sys.getsizeof, (value, *records)))
        memory = max(memory, tracemalloc.get_traced_memory()[0] - before - transient)
        batch = alerter.batch()
        assert batch is not None
        (state,) = batch.streams.values()
        stored = max(stored, len(json.dumps(state, separators=(",", ":"))))
        for key in [key for key, case in alerter.cases.items() if case.ended_ns is not None]:
            alerter.close(key)  # as when its end was told
        del batch, state
    tracemalloc.stop()
    storage.close()
    log(f"  {memory >> 10} KiB in memory, {stored >> 10} KiB stored{' of noise' if noise else ''}")
    return memory, stored


def _text_of(*, noise: bool) -> Callable[[int], str]:
    chance = random.Random(1)
    return (lambda size: "".join(chance.choices(_CHARS, k=size))) if noise else (lambda size: "x" * size)


# So near to each other that the assembly holds as many as it can.
def _incidents(text_of: Callable[[int], str]) -> Iterator[tuple[int, list[bytes], int]]:
    seq = ts_us = 0
    for incident in range(_INCIDENTS):
        ts_us += 700 * 10**6
        records, first = [], seq
        for report in range(_REPORTS):
            cpus = f"{report}-{report + 255}"
            kind = (
                f"BUG: workqueue lockup - pool cpus={cpus} node=0 flags=0x0 nice=0 stuck for 99s!",
                f"INFO: task {text_of(60)}{incident}:{report} blocked for more than 122 seconds.",
                "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
                f"watchdog: BUG: soft lockup - CPU#{report} stuck for 99s! [{text_of(60)}:{report}]",
            )[report % 4]
            body = [
                f"CPU: {report} PID: {report} Comm: {text_of(15)} Tainted: G O L 6.1.{text_of(140)} #1",
                f"Hardware name: {text_of(140)}",
                *(f"NMI watchdog: {text_of(140)}{each}" for each in range(4)),
                *(
                    f"rcu: \t{each}-....: (5249 ticks this GP) idle=002/1/0x40 softirq=1/2 fqs=2625"
                    for each in range(64)
                ),
                *(f"workqueue: {text_of(140)}{each} hogged CPU for >10000us 4 times, consider" for each in range(12)),
                *(f" {text_of(60)}{each}+0x1/0x2 [{text_of(60)}]" for each in range(40)),
            ]
            for text in (kind, *body):
                records.append(b"0,%d,%d,-,caller=T%d;%b\n" % (seq, ts_us, report, text.encode()))
                seq, ts_us = seq + 1, ts_us + 1
        yield ts_us * 1000, records, first


def _frame(machine: str, boot_id: str, first: int, records: list[bytes], ts_ns: int) -> bytes:
    stream, next_ = Stream(machine, boot_id, "guest-kernel", "kmsg", "", "printk"), first + len(records)
    body = kmsg.pack(records)
    return encode(Frame(stream, "r", first, first, next_, len(records), "kmsg", 1, body, [], ts_ns, ts_ns, _NOW_NS))
