"""What a BPF record costs the machine that is observed, from a pinned ring to Kafka's acknowledgement.

Two processes make a million calls of getppid(2) a second; a BPF program of this benchmark's writes a record of 64 bytes
for each into a ring that it pins, and the agent reads that. CPU is user and system of agent and shipper, from the start
of the load to the acknowledgement of the last record, over the records that the program counted. Beside it, under the
same load: bpftrace, which prints a line with the same values for each call to a file; its start is not counted.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.base import Options, Reach, Row, Skipped, log, median, scratch
from benchmarks.calls import callers
from benchmarks.processes import broker, cpu_s, ours, start, tree
from benchmarks.spools import acknowledged, ends, until
from producers.bpf import libbpf as bpf_libbpf

_RATE: Final = 1_000_000
_PINS: Final = Path("/sys/fs/bpf")
_SOURCE: Final = Path(__file__).parent / "calls.bpf.c"
_PEER: Final = (
    'tracepoint:syscalls:sys_enter_getppid { printf("%llu %d %d %d %d %s\\n", nsecs, cpu, 110, tid, pid, comm); }'
)


class _Counts(NamedTuple):
    written: int
    refused: int


def run(options: Options) -> list[Row]:
    """Return us of CPU per record of the agent and per line of the peer, the rates, and what the ring refused."""
    if os.geteuid() != 0 or shutil.which("clang") is None:
        raise Skipped("needs root and clang")
    seconds, repeats = (4, 1) if options.quick else (10, 4)
    agents, rates, refused, peers, lines = [], [], [], [], []
    with broker() as bootstrap:
        for _ in range(repeats):
            with scratch() as root, _ring(root) as (pin, counts):
                us, rate, failed = _agent(root, bootstrap, pin, counts, seconds)
            agents.append(us)
            rates.append(rate)
            refused.append(float(failed))
            if shutil.which("bpftrace"):
                us, rate = _bpftrace(seconds)
                peers.append(us)
                lines.append(rate)
    how = f"64 bytes each, {seconds} s, agent and shipper, to Kafka's acknowledgement"
    rows = [
        Row("agent CPU per BPF record", agents, "us", Reach(0.3), how),
        Row("BPF records", rates, "M records/s", Reach(1.0 * 0.999, at_least=True), "as the program counted them"),
        Row("BPF records refused by the ring", refused, "records", Reach(0), "32 MiB, read by the agent at its tick"),
    ]
    if not peers:
        return [*rows, Row("bpftrace CPU per line", [], "us", None, "bpftrace is not here")]
    ratio = [median(peers) / median(agents)]
    return [
        *rows,
        Row("bpftrace CPU per line", peers, "us", None, "the same values, to a file, nothing shipped"),
        Row("bpftrace lines", lines, "M lines/s", None, "of the same load, which it slows"),
        Row("bpftrace to agent", ratio, "ratio", Reach(20, at_least=True), "medians of the same run"),
    ]


@contextmanager
def _ring(root: Path) -> Iterator[tuple[Path, int]]:
    """Give the pin of a ring with a record for each call, and the descriptor of its counters."""
    libbpf, built = bpf_libbpf.load(), root / "calls.bpf.o"
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    subprocess.run(
        ["clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-idirafter", include, "-c", _SOURCE, "-o", built],
        check=True,
    )
    if not os.path.ismount(_PINS):
        subprocess.run(["mount", "-t", "bpf", "bpf", _PINS], check=True)
    opened = libbpf.bpf_object__open_file(os.fsencode(built), None)
    pin = _PINS / f"hypocenter-bench-{os.getpid()}"
    link = None
    try:
        if not opened or libbpf.bpf_object__load(opened):
            raise Skipped("the kernel does not take the benchmark's program")
        ring, counts = (libbpf.bpf_object__find_map_by_name(opened, name) for name in (b"ring", b"counts"))
        if ctypes.CDLL("libbpf.so.1").bpf_obj_pin(libbpf.bpf_map__fd(ring), os.fsencode(pin)):
            raise Skipped(f"{pin} cannot be pinned")
        link = libbpf.bpf_program__attach(libbpf.bpf_object__next_program(opened, None))
        yield pin, int(libbpf.bpf_map__fd(counts))
    finally:
        if link:
            libbpf.bpf_link__destroy(link)
        if opened:
            libbpf.bpf_object__close(opened)
        pin.unlink(missing_ok=True)


def _counts(fd: int) -> _Counts:
    libbpf, found = bpf_libbpf.load(), []
    for which in range(len(_Counts._fields)):
        value, key = ctypes.c_uint64(), ctypes.c_uint32(which)
        libbpf.bpf_map_lookup_elem(fd, ctypes.byref(key), ctypes.byref(value))
        found.append(value.value)
    return _Counts(*found)


def _agent(root: Path, bootstrap: str, pin: Path, counts_fd: int, seconds: float) -> tuple[float, float, int]:
    spool, errors = root / "spool", root / "agent.err"
    flags = ["--surface", "bpf", "--pinned", str(pin), "--struct", "call"]
    command = ours("producers.cli", "run", *flags, "--kafka", bootstrap, "--spool", str(spool))
    with errors.open("wb") as file:
        process = start(command, stderr=file)
    try:
        until(lambda: b"watching" in errors.read_bytes(), process, "start")
        until(lambda: len(tree(process.pid)) == 2, process, "start its shipper")
        time.sleep(1.0)  # the shipper's own start
        before, used_s = _counts(counts_fd), cpu_s(tree(process.pid))
        with callers(_RATE, seconds) as load:
            load.go()
            load.made()
        time.sleep(0.5)  # a tick, and the last frame
        wanted = ends(spool)
        until(lambda: acknowledged(spool, wanted), process, "get everything acknowledged")
        used_s, after = cpu_s(tree(process.pid)) - used_s, _counts(counts_fd)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    written = after.written - before.written
    log(f"  agent: {written:,} records, {written / seconds / 1e6:.2f} M/s")
    return used_s / written * 1e6, written / seconds / 1e6, after.refused - before.refused


def _bpftrace(seconds: float) -> tuple[float, float]:
    with scratch() as root:
        lines, errors = root / "lines", root / "bpftrace.err"
        with errors.open("wb") as file:
            process = subprocess.Popen(["bpftrace", "-B", "full", "-o", str(lines), "-e", _PEER], stderr=file)
        try:
            until(lambda: lines.exists() and b"Attaching" in lines.read_bytes()[:100], process, "start")
            time.sleep(2.0)  # what its start still does
            used_s = cpu_s([process.pid])
            with callers(_RATE, seconds) as load:
                load.go()
                load.made()
            time.sleep(1.0)
            used_s = cpu_s([process.pid]) - used_s
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
        with lines.open("rb") as file:
            count = sum(line[:1].isdigit() for line in file)
    log(f"  bpftrace: {count:,} lines, {count / seconds / 1e6:.2f} M/s")
    return used_s / count * 1e6, count / seconds / 1e6
