"""How fast `hypocenter triage` reads a big console log in which nothing stood still, and with what memory.

Lines as a console has them: benchmarks/text.py without its lockup, or recorded files where given, every number varied.
Each run is a process of its own, its start included.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

from benchmarks import text
from benchmarks.base import Options, Reach, Row, log, scratch
from benchmarks.processes import ours, start

_PIECE_RECORDS: Final = 50_000
_NOTHING: Final = 1
_REPORTS: Final = (b"soft lockup", b"stall", b"blocked for more")


def run(options: Options) -> list[Row]:
    """Return megabytes a second of CPU time, and the most memory."""
    size_mb = 100 if options.quick else 1000
    with scratch() as root:
        path = root / "console.log"
        _write(path, size_mb * 1_000_000, options.captures)
        speeds, peaks = [], []
        for _ in range(3):
            cpu_s, peak_mib = _triage(path)
            speeds.append(path.stat().st_size / 1e6 / cpu_s)
            peaks.append(peak_mib)
            log(f"  {speeds[-1]:.0f} MB/s, {peak_mib:.0f} MiB")
    how = f"{size_mb} MB of console text without a report, by the CPU time of the whole command"
    return [
        Row("triage", speeds, "MB/s", Reach(100, at_least=True), how),
        Row("triage, memory", peaks, "MiB", None, "the same, the most that it took, libraries included"),
    ]


def _triage(path: Path) -> tuple[float, float]:
    process = start(ours("consumers.cli", "triage", str(path)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == _NOTHING, f"exit code {process.returncode}"
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


# Some megabytes that are varied, then these again: what is looked for is in none of them.
def _write(path: Path, size_bytes: int, captures: Path | None) -> None:
    lines = []
    for record in text.records(_PIECE_RECORDS, captures):
        head, _, said = record.partition(b";")
        ts_us = int(head.split(b",")[2])
        said = said.partition(b"\n")[0]
        if not any(word in said for word in _REPORTS):
            lines.append(b"[%5d.%06d] %b\n" % (ts_us // 1_000_000, ts_us % 1_000_000, said))
    piece = b"".join(lines)
    with path.open("wb") as out:
        for _ in range(size_bytes // len(piece)):
            out.write(piece)
