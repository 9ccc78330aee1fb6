"""How exactly a guest's clock is known on its host, idle and under load, beside the quickest exchange of the two.

A real guest without hardware virtualisation, kernel log and clocks through the relay as by default; under load each of
its CPUs runs a loop for ever. The host's agent reads its clocks as well. Asked is for times between two exchanges too,
where what is known of the rates decides.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.base import Options, Reach, Row, Skipped, scratch
from benchmarks.bench_guest_idle import relay
from benchmarks.processes import ours, start
from consumers.cli import main
from consumers.clock_graph import read_graph
from consumers.clocks.graph import BOOT, MONO, Node, NotComparable
from consumers.lake.layout import open_lake
from consumers.views import connect, run_query
from tests.guest import _bundle, _kernel
from tests.guest._agent import PORT, GuestAgent
from tests.guest._vm import Vm

_LOOPS: Final = "for i in 0 1; do taskset -c $i sh -c 'while :; do :; done' >/dev/null 2>&1 & done"
_SETTLE_S: Final = 6.0
_ASKED: Final = 1000
_SQL: Final = "select * from clock_readings, clock_pings, coverage"
_PINGS: Final = "select t0_ns, t1_ns, t2_ns, t3_ns, machine, boot_id, host_machine, host_boot_id from clock_pings"


def run(options: Options) -> list[Row]:
    """Return the bounds in us, and how often they hold the quickest round trip."""
    seconds = 20.0 if options.quick else 60.0
    rows = []
    with scratch() as root:
        spans = _record(root, seconds)
        lake = open_lake(root / "lake", create=False)
        graph = read_graph(connect(lake, sql=_SQL))
        pings = run_query(lake, _PINGS)[1]
        guest, host = Node(*pings[0][4:6], MONO), Node(*pings[0][6:8], BOOT)
        for name, (since_ns, until_ns) in spans.items():
            trip_ns = min(_trip_ns(ping) for ping in pings if since_ns <= ping[0] < until_ns)
            found = graph.convert_many(np.linspace(since_ns, until_ns, _ASKED).astype(np.int64), guest, host)
            if isinstance(found, NotComparable):
                raise Skipped(f"no answer: {found.reason}")
            bounds = found.bound_ns[found.state >= 0]
            times = [float(bound) / trip_ns for bound in np.percentile(bounds, (5, 50, 95))]
            how = (
                f"{seconds:.0f} s, guest's CLOCK_MONOTONIC on its host's, {len(bounds)} of {_ASKED} answered; 5/50/95 %"
            )
            rows += [
                Row(f"quickest round trip, {name}", [trip_ns / 1000], "us", None, "guest to host and back"),
                Row(f"bound to round trip, {name} (5/50/95 %)", times, "x", Reach(2), how),
            ]
    return rows


def _trip_ns(ping: tuple[Any, ...]) -> int:
    t0_ns, t1_ns, t2_ns, t3_ns = ping[:4]
    return int((t3_ns - t0_ns) - (t2_ns - t1_ns))


# Between which times of the guest's CLOCK_MONOTONIC it was idle, and under load.
def _record(root: Path, seconds: float) -> dict[str, tuple[int, int]]:
    try:
        kernel = _kernel.fetch()
    except _kernel.GuestError as e:
        raise Skipped(str(e)) from None
    port, spans = root / "guest.sock", {}
    with Vm(root, kernel, ports={PORT: port}) as vm, relay(root, port) as log, _watch(root / "host") as own:
        vm.booted().bundle = _bundle.make(root)
        agent = GuestAgent(vm, "/run/spool", "--surface=kmsg", "--surface=clocks")
        agent.said("relayed by")
        for name, before in (("idle", ":"), ("loaded", _LOOPS)):
            vm.run(before)
            time.sleep(_SETTLE_S)
            since_ns = _now_ns(vm)
            time.sleep(seconds)
            spans[name] = (since_ns, _now_ns(vm))
        time.sleep(_SETTLE_S)
        agent.stop()
    for each in (log, own):
        if main(["collect", "--log", str(each), "--lake", str(root / "lake"), "--until-end"]):
            raise Skipped("the collector failed")
    return spans


@contextmanager
def _watch(log: Path) -> Iterator[Path]:
    command = ours("producers.cli", "run", "--surface", "clocks", "--layer", "host", "--log", str(log))
    process = start(command, stderr=subprocess.DEVNULL)
    try:
        yield log
    finally:
        process.terminate()
        process.wait()


def _now_ns(vm: Vm) -> int:
    return int(float(vm.run("cut -d' ' -f1 /proc/uptime")) * 1e9)
