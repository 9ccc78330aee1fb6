"""Logs made to hurt who reads them: `hypocenter triage` and the alerter's machine, MB/s and what stays in memory.

The text is that of benchmarks/hostile.py. Triage is a process of its own that gets it through a pipe. The machine gets
it as records of /dev/kmsg, once as fast as a relay lets a guest send (64 MiB a second of the log's time), where its
budget leaves most of it out, and once so slowly that nothing is left out.
"""

import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from benchmarks import hostile
from benchmarks.base import Options, Reach, Row, log
from benchmarks.processes import ours, rss_mib, start
from consumers.alerts.budget import LINES_PER_S_MAX
from consumers.alerts.machine import Machine
from schemas import kmsg
from schemas.frame import Frame
from schemas.stream import Stream

_MB: Final = 1_000_000
_FRAME_RECORDS: Final = 500
_RELAY_BYTES_PER_S: Final = 64 << 20
#: Longest record that an agent reads.
_RECORD_BYTES: Final = 8192
_FOUND: Final = 0


class _Run(NamedTuple):
    mb: float
    cpu_s: float
    grown_mib: float
    peak_mib: float


def run(options: Options) -> list[Row]:
    """Return rates by CPU time, and growth from a quarter of the input to its end."""
    size_bytes = (50 if options.quick else 1000) * _MB
    rows = [*_rows("triage", _triage(size_bytes), "in a pipe, by the CPU time of the command")]
    full, parsed, _ = _machine(size_bytes, slow=False)
    rows += _rows("alerter, 64 MiB/s", full, f"{parsed:,} lines parsed, the rest left out")
    # Nothing is left out: a twentieth of it takes as long.
    slow, parsed, cpu_us = _machine(size_bytes // 20, slow=True)
    rows += _rows("alerter, unhurried", slow, f"{parsed:,} lines parsed, nothing left out")
    rows.append(Row("hostile lines, alerter, one line", [cpu_us], "us", None, "the same; CPU for each line parsed"))
    return rows


def _rows(what: str, found: _Run, how: str) -> list[Row]:
    size = f"{found.mb:.0f} MB, {how}"
    log(f"  {what}: {found.mb / found.cpu_s:.1f} MB/s, grown {found.grown_mib:.1f} of {found.peak_mib:.0f} MiB")
    return [
        Row(f"hostile text, {what}", [found.mb / found.cpu_s], "MB/s", None, size),
        Row(f"hostile text, {what}, growth", [found.grown_mib], "MiB", Reach(32), "resident, from 25 % to the most"),
    ]


def _triage(size_bytes: int) -> _Run:
    process = start(
        ours("consumers.cli", "triage", "--json", "-"),
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin
    written, quarter_mib = 0, 0.0
    for block in hostile.blocks(size_bytes):
        process.stdin.write(block)
        written += len(block)
        if not quarter_mib and written >= size_bytes // 4:
            quarter_mib = rss_mib([process.pid])
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == _FOUND, f"exit code {process.returncode}"
    peak_mib = usage.ru_maxrss / 1024
    return _Run(written / _MB, usage.ru_utime + usage.ru_stime, peak_mib - quarter_mib, peak_mib)


# Returns the run, lines parsed, and CPU for each of them.
def _machine(size_bytes: int, *, slow: bool) -> tuple[_Run, int, float]:
    machine, taken, cpu_s, quarter_mib, peak_mib = Machine("m", "guest-kernel"), 0, 0.0, 0.0, 0.0
    at_ns = time.time_ns()
    for number, frame in enumerate(_frames(size_bytes, at_ns)):
        lines = 2 * LINES_PER_S_MAX * _FRAME_RECORDS if slow else 0
        at_ns += lines * 1_000_000 + len(frame.body) * 10**9 // _RELAY_BYTES_PER_S
        began_s = time.process_time()
        machine.feed(frame, at_ns)
        if number % 10 == 0:
            machine.state()
        cpu_s += time.process_time() - began_s
        taken += len(frame.body)
        if taken >= size_bytes // 4:
            now_mib = rss_mib([os.getpid()])
            quarter_mib, peak_mib = quarter_mib or now_mib, max(peak_mib, now_mib)
    found = _Run(taken / _MB, cpu_s, peak_mib - quarter_mib, peak_mib)
    return found, machine.parsed, cpu_s * 1e6 / max(1, machine.parsed)


def _frames(size_bytes: int, at_ns: int) -> Iterator[Frame]:
    lines = hostile.texts()
    stream, first, ts_us, left = Stream("m", "b", "guest-kernel", "kmsg", "", "printk"), 0, 0, size_bytes
    for number in itertools.count():
        records = []
        for seq, text in enumerate(itertools.islice(lines, _FRAME_RECORDS), first):
            ts_us += 1_000_000 * 3600 if seq % 9973 == 0 else 20
            said = text.encode().replace(b"\n", b"")[:_RECORD_BYTES]
            records.append(b"0,%d,%d,-,caller=T%d;%b\n" % (seq, ts_us, seq % 99, said))
        body = kmsg.pack(records)
        next_ = first + len(records)
        yield Frame(
            stream, "r", number, first, next_, len(records), "kmsg", 1, body, [], ts_us * 1000, ts_us * 1000, at_ns
        )
        first, left = next_, left - len(body)
        if left <= 0:
            return
