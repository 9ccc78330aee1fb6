"""Reports of the kernel log: bulk screening of healthy text, assembly of a storm, and a million hostile lines.

Screening is one core over records as the kernel gives them, and over console text made of the same, none of which the
grammar knows. The storm is soft lockups with their stacks, several CPUs printing at once. The hostile lines are pieces
of the grammar's own wording, joined and with numbers too large: the figure is what they leave in memory.
"""

import json
import random
import resource
import time
from collections.abc import Iterator

from benchmarks.base import Options, Reach, Row, log
from benchmarks.text import records
from consumers.reports.assembler import ReportAssembler
from consumers.reports.grammar import ROWS
from consumers.reports.report import Line
from consumers.reports.screen import candidates, suspicious

_FRAME_BYTES = 64 << 10
_BLOCK_BYTES = 4 << 20
_STACK = (
    "RIP: 0010:here+0x15/0x30 [mod]",
    "Call Trace:",
    " <TASK>",
    *(f" f{i}+0x1/0x2" for i in range(30)),
    " </TASK>",
)


def run(options: Options) -> list[Row]:
    """Return rates of screening and assembly, and what hostile lines leave behind."""
    count = 200_000 if options.quick else 1_000_000
    runs = 2 if options.quick else 5
    healthy = [each for each in records(count, options.captures) if not suspicious(each)]
    console = b"".join(
        b"[%5d.%06d] %b" % (*divmod(i * 50, 1_000_000), each.partition(b";")[2]) for i, each in enumerate(healthy)
    )
    raw = b"".join(healthy)
    log(f"  {len(healthy):,} records, {len(console) / 1e6:.0f} MB of console text")
    screened = [len(healthy) / _frames_s(raw) for _ in range(runs)]
    text = [len(console) / 1e6 / _blocks_s(console) for _ in range(runs)]
    stormy = [_storm_per_s(2000 if options.quick else 10_000) for _ in range(runs)]
    hostile, state = _hostile(count)
    return [
        Row("healthy records screened", screened, "/s", Reach(1_000_000, at_least=True), "frames of 64 KiB, one core"),
        Row("console text screened", text, "MB/s", Reach(100, at_least=True), "blocks of 4 MiB, one core"),
        Row("lines of reports assembled", stormy, "/s", None, "soft lockups, four CPUs at once"),
        Row(
            "hostile lines",
            [hostile],
            "MB",
            Reach(16),
            f"growth of the process in the second half of {count:,} lines",
        ),
        Row("state after hostile lines", [state], "KiB", Reach(256), "the largest of a hundred looks, as JSON"),
    ]


def _frames_s(raw: bytes) -> float:
    began = time.perf_counter()
    for at in range(0, len(raw), _FRAME_BYTES):
        assert not suspicious(memoryview(raw)[at : at + _FRAME_BYTES])
    return time.perf_counter() - began


def _blocks_s(text: bytes) -> float:
    began = time.perf_counter()
    for at in range(0, len(text), _BLOCK_BYTES):
        assert not list(candidates(text[at : at + _BLOCK_BYTES]))
    return time.perf_counter() - began


def _storm_per_s(count: int) -> float:
    lines = []
    for each in range(count // len(_STACK)):
        cpus = range(4 * each, 4 * each + 4)
        for part in ("watchdog: BUG: soft lockup - CPU#{0} stuck for 22s! [t:{0}]", *_STACK):
            lines += [Line(len(lines), each * 10**9, f"C{cpu}", part.format(cpu), structured=False) for cpu in cpus]
    assembler = ReportAssembler()
    began = time.perf_counter()
    for line in lines:
        assembler.feed([line])
    return len(lines) / (time.perf_counter() - began)


def _hostile(count: int) -> tuple[float, float]:
    assembler = ReportAssembler()
    state = 0
    before = 0.0
    for i, line in enumerate(_lines(count)):
        assembler.feed([line])
        if i == count // 2:
            before = _peak_mb()
        if i % (count // 100) == 0:
            state = max(state, len(json.dumps(assembler.state())))
    return _peak_mb() - before, state / 1024


def _lines(count: int) -> Iterator[Line]:
    rng = random.Random(7)
    pieces = [piece for row in ROWS for piece in row.literals]
    wording = [
        "BUG: soft lockup - CPU#",
        "INFO: rcu_sched ",
        "INFO: task x:",
        " seconds",
        "stuck for ",
        "s! [a:1]",
        "(t=",
        " jiffies)",
    ]
    for place in range(count):
        words = "".join(
            f"{rng.choice(rng.choice((pieces, wording)))}{rng.randrange(10 ** rng.randrange(1, 25))}" for _ in range(4)
        )
        words = words if rng.random() < 0.9 else words * rng.randrange(1, 200)
        yield Line(place, place * 10**7, rng.choice(("", "C1", f"T{place % 99}")), words, structured=rng.random() < 0.5)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
