"""Frame and kmsg codecs and the kernel log's decoder, each alone, by pyperf (processes, warm-up, calibrated loops).

Frames of 500 records of kernel-like text, as an agent makes at 20,000/s. Values are means of pyperf's worker runs.
"""

import subprocess
import sys

import pyperf

from benchmarks.base import Options, Row, scratch
from benchmarks.micro import RECORDS


def run(options: Options) -> list[Row]:
    """Return records/s and ns per record."""
    size = ["--processes", "3", "--values", "2"] if options.quick else ["--processes", "6", "--values", "3"]
    captures = ["--captures", str(options.captures)] if options.captures else []
    with scratch() as path:
        command = [sys.executable, "-m", "benchmarks.micro", "-q", "-o", str(path / "out.json"), *size, *captures]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        suite = pyperf.BenchmarkSuite.load(str(path / "out.json"))
    found = []
    for bench in suite:
        # Each worker's mean, so that the spread is that between processes.
        means = [sum(run.values) / len(run.values) for run in bench.get_runs() if run.values]
        count = RECORDS[bench.get_name()]
        rates = [count / seconds / 1e6 for seconds in means]
        how = f"pyperf, {len(means)} processes, {count:,} records a call"
        found.append(Row(bench.get_name(), rates, "M records/s", None, how))
    return found
