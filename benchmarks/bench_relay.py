"""The relay: CPU for each MB from a guest's socket to the durable log beside a bare copy, and 200 guests at once.

Guests are simulated by one other process (benchmarks/relay_load.py) at UNIX sockets, as QEMU's chardevs are. In a
crowd the queue in front of the disk is so short that guests wait in turn all the time. CPU is user and system of the
relay alone, from when its guests are connected. The copy reads as much at once, writes as many bytes to a file, and
syncs it every 4 MiB and at its end. Relay and copy take turns: a machine is not as quick all the time. Right before
each as much memory is used and freed as its file will take in the page cache: where a host takes free memory back from
its VM, whoever uses it first pays for that, up to 1 ms/MB, and that was the relay, and never the copy behind it.
"""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.base import Options, Reach, Row, scratch
from benchmarks.processes import cpu_s, finish, ours, rss_mib, start, tree

_MB = 1_000_000
_CONFIG = f"""
[relay]
guest_rate_bytes = {1 << 34}
metrics = "off"
queue_bytes_max = {{}}
[log]
retention_bytes = {4 << 30}
"""
_COPY = """
import os, socket, sys, time
made = socket.socket(socket.AF_UNIX)
made.connect(sys.argv[1])
fd, unsynced, used_s = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT), 0, time.process_time()
while data := made.recv(128 << 10):
    os.write(fd, data)
    unsynced += len(data)
    if unsynced > 4 << 20:
        os.fdatasync(fd)
        unsynced = 0
os.fdatasync(fd)
print(time.process_time() - used_s)
"""


def run(options: Options) -> list[Row]:
    """Return ms per MB, the ratio, the fairness between guests, and MiB."""
    pairs, pair_s, seconds = (3, 2, 3) if options.quick else (8, 4, 8)
    relayed, copied = [], []
    for _ in range(pairs):
        with scratch() as root:
            cost, acked, _ = _relayed(root, 1, 256 << 10, 0, pair_s, backed_bytes=pair_s << 29)
        relayed.append(cost)
        with scratch() as root:
            copied.append(_copied(root, 256 << 10, sum(acked) // (256 << 10)))
    with scratch() as root:
        _, acked, memory = _relayed(root, 200, 64 << 10, 50 * _MB, seconds)
    with scratch() as root:
        _, crowded, most = _relayed(root, 200, 64 << 10, 0, seconds, 4 << 20)
    rate = sum(acked) / seconds / _MB
    many = f"200 guests, 64 KiB frames, {seconds} s"
    ratios = [one / two for one, two in zip(relayed, copied, strict=True)]
    return [
        Row("relay CPU, guest to durable log", relayed, "ms/MB", None, f"one guest, 256 KiB frames, {pair_s} s"),
        Row("bare copy, socket to synced file", copied, "ms/MB", None, "as many bytes, 128 KiB reads, right after it"),
        Row("relay CPU to bare copy", ratios, "ratio", Reach(2.0), f"of each of {pairs} pairs"),
        Row("relay, bytes of 200 guests", [rate], "MB/s", None, f"{many}, 50 MB/s offered"),
        Row("relay, guests' shares", [_spread(acked)], "%", Reach(10.0), "largest to smallest, 50 MB/s offered"),
        Row(
            "relay, shares in a crowd",
            [_spread(crowded)],
            "%",
            Reach(10.0),
            f"{many}, as fast as they can; a queue of 4 MiB",
        ),
        Row("relay memory", [memory, most], "MiB", Reach(200.0), f"{many}; in both runs"),
    ]


def _spread(shares: list[int]) -> float:
    return (max(shares) / max(1, min(shares)) - 1) * 100


def _load(root: Path, *words: int) -> "subprocess.Popen[bytes]":
    load = start(ours("benchmarks.relay_load", str(root), *map(str, words)), stdin=-1, stdout=-1)
    assert load.stdout
    assert load.stdout.readline() == b"ready\n"
    return load


def _relayed(
    root: Path,
    guests: int,
    frame_bytes: int,
    rate: int,
    seconds: int,
    queue_bytes: int = 32 << 20,
    *,
    backed_bytes: int = 0,
) -> tuple[float, list[int], float]:
    (root / "relay.toml").write_text(_CONFIG.format(queue_bytes))
    load = _load(root, guests, frame_bytes, rate, seconds)
    words = ["relay", "--config", str(root / "relay.toml"), "--vm-dir", str(root), "--log", str(root / "log")]
    relay = start(ours("producers.cli", *words), stderr=subprocess.DEVNULL)
    try:
        assert load.stdin
        assert load.stdout
        assert load.stdout.readline() == b"connected\n"
        time.sleep(0.5)  # its start is not what is measured
        _use_memory(root, backed_bytes)
        before_s, most = cpu_s([relay.pid]), 0.0
        load.stdin.write(b"go\n")
        load.stdin.flush()
        while load.poll() is None and not _ready(load):
            most = max(most, rss_mib(tree(relay.pid)))
        acked = json.loads(load.stdout.readline())
        used_s = cpu_s([relay.pid]) - before_s
    finally:
        load.kill()
        load.communicate()
        relay.terminate()
        finish(relay)
    return used_s * 1000 / (sum(acked) / _MB), acked, most


# So many bytes of page cache, given up before they are written out.
def _use_memory(root: Path, size_bytes: int) -> None:
    path, piece = root / "memory", bytes(1 << 20)
    with path.open("wb") as file:
        for _ in range(size_bytes >> 20):
            file.write(piece)
    path.unlink()


def _ready(load: "subprocess.Popen[bytes]") -> bool:
    return bool(select.select([load.stdout], [], [], 0.2)[0])


def _copied(root: Path, size_bytes: int, count: int) -> float:
    load = _load(root, 0, size_bytes, 0, count)
    _use_memory(root, size_bytes * count)
    words = [sys.executable, "-c", _COPY, os.fspath(root / "g0.sock"), os.fspath(root / "copy")]
    copy = start(words, stdout=subprocess.PIPE)
    used_s = float(copy.communicate()[0])
    load.communicate()
    return used_s * 1000 / (size_bytes * count / _MB)
