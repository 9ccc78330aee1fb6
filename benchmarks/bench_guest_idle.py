"""What an idle agent costs a guest: the one file, shipping through its port, while the guest's kernel says nothing.

Agent and shipper together, kernel log, clocks and heartbeats as they are by default, in a guest without hardware
virtualisation: emulation makes each instruction some ten times as dear. For what the same two cost where instructions
run as they are, they run on this machine too, with a socket in the place of the port.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.base import Options, Reach, Row, Skipped, scratch
from benchmarks.kernel import kernel_log
from benchmarks.processes import cpu_s, ours, rss_mib, start, tree
from producers.kmsg import newest_seq
from tests._relay import Chardev
from tests.guest import _bundle, _kernel
from tests.guest._agent import PORT, PYTHON, GuestAgent
from tests.guest._vm import Vm

_CPU, _RSS = Reach(0.5), Reach(60.0)
_SURFACES: Final = ("--surface=kmsg", "--surface=clocks")
_SETTLE_S: Final = 5.0
_TRIES: Final = 5
# Prints CPU in ns and resident KiB of the agent and its child, and the kernel log's newest number.
_COST: Final = """
a=$(cat /run/agent-*/pid); p="$a $(cat /proc/$a/task/*/children)"
for i in $p; do for t in /proc/$i/task/*; do read n rest <$t/schedstat; echo cpu $n; done; done
for i in $p; do grep VmRSS /proc/$i/status; done
echo seq $(dmesg | wc -l)
"""


def run(options: Options) -> list[Row]:
    """Return percent of a core, and MiB."""
    seconds, repeats = (10.0, 1) if options.quick else (30.0, 3)
    how = f"agent and shipper, {seconds:.0f} s without a record; kmsg, clocks, heartbeats and pings as by default"
    rows = []
    with scratch() as root:
        bundle = _bundle.make(root)
        with _here(root, bundle) as cost:
            rows += _rows("on this machine", cost, seconds, repeats, how)
        with _in_guest(root, bundle) as cost:
            rows += _rows("in an emulated guest", cost, seconds, repeats, how)
    return rows


# `cost` gives CPU in s, resident MiB, and a number that another record of the kernel changes.
def _rows(
    where: str, cost: Callable[[], tuple[float, float, int]], seconds: float, repeats: int, how: str
) -> list[Row]:
    time.sleep(_SETTLE_S)
    shares: list[float] = []
    sizes: list[float] = []
    for _ in range(repeats + _TRIES):
        (before_s, _, seq), start_s = cost(), time.perf_counter()
        time.sleep(seconds)
        (after_s, size, newest), end_s = cost(), time.perf_counter()
        if newest == seq:
            shares.append(100 * (after_s - before_s) / (end_s - start_s))
            sizes.append(size)
        if len(shares) == repeats:
            break
    else:
        raise Skipped(f"{where}: the kernel log was not silent for long enough")
    return [
        Row(f"idle agent CPU {where}", shares, "% of a core", _CPU, how),
        Row(f"idle agent memory {where}", sizes, "MiB", _RSS, "resident, what both share counted twice"),
    ]


@contextmanager
def _here(root: Path, bundle: Path) -> Iterator[Callable[[], tuple[float, float, int]]]:
    port = Chardev(root, "port")
    with kernel_log(), relay(root, port.host), (root / "agent.err").open("wb") as said:
        words = ("run", "--relay", port.guest, "--spool", root / "spool", *_SURFACES)
        agent = start([str(PYTHON), "-I", "-S", str(bundle), *map(str, words)], stderr=said)
        try:
            _until(lambda: b"relayed by" in (root / "agent.err").read_bytes())
            yield lambda: (cpu_s(tree(agent.pid)), rss_mib(tree(agent.pid)), newest_seq())
        finally:
            agent.terminate()
            agent.wait()
            port.close()


@contextmanager
def _in_guest(root: Path, bundle: Path) -> Iterator[Callable[[], tuple[float, float, int]]]:
    try:
        kernel = _kernel.fetch()
    except _kernel.GuestError as e:
        raise Skipped(str(e)) from None
    port = root / "guest.sock"
    with Vm(root, kernel, ports={PORT: port}) as vm, relay(root, port):
        vm.booted().bundle = bundle
        agent = GuestAgent(vm, "/run/spool", *_SURFACES)
        agent.said("relayed by")

        def cost() -> tuple[float, float, int]:
            found = [line.split() for line in vm.run(_COST).splitlines()]
            sums = {name: sum(int(line[1]) for line in found if line[0] == name) for name in ("cpu", "VmRSS:", "seq")}
            return sums["cpu"] / 1e9, sums["VmRSS:"] / 1024, sums["seq"]

        yield cost


@contextmanager
def relay(root: Path, port: Path) -> Iterator[Path]:
    """Run a relay of the guest behind `port`, and hand out the log that it writes."""
    log = root / f"log-of-{port.stem}"
    command = ours("producers.cli", "relay", "--vm", f"guest={port}", "--log", os.fspath(log))
    process = start(command, stderr=subprocess.DEVNULL)
    try:
        yield log
    finally:
        process.terminate()
        process.wait()


def _until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, "the agent does not reach the relay"
        time.sleep(0.05)
