"""One failure after another in a real guest, and who is said to have owned each: `make matrix`, about two minutes.

The guest's kernel log goes through the relay to the alerter, and with all that the host's agent saw into a lake. Then
every incident is judged twice: with what the host knew, and as if nothing of the host had ever come. What nobody can
know must come out as undetermined, and never as another owner.

The guest's thresholds are a quarter of what kernels come with or less, so vCPUs and clocks are read five times as often.
`--as-shipped` leaves both as they come, and each failure lasts until a kernel says so by itself: about eleven minutes.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

from consumers.incidents import codec, stored
from consumers.incidents.incident import Incident
from consumers.lake.layout import open_lake
from consumers.verdict.gather import gather
from consumers.verdict.judge import judge
from consumers.verdict.verdict import Owner, Verdict
from consumers.views import connect
from schemas.config import ClocksConfig
from schemas.stream import Layer
from tests.guest import _disturb, _kernel, _module, lab
from tests.guest._agent import PORT, GuestAgent
from tests.guest._python import ROOT
from tests.guest._vm import Vm

FOLDER = ROOT / "var" / "matrix"
NAME = "matrix"
#: Nothing of the host, nor of what runs the VM.
HOST_LAYERS = frozenset({Layer.HOST, Layer.VIRTUAL_PLATFORM, Layer.HYPERVISOR})
#: Reports of one failure come within this behind its end; between two failures there is as much quiet.
_BEHIND_S = 1.5
_BOOTS_MAX = 3
_AGREE = "Refined TSC clocksource calibration"
_DISK_BYTES = 64 << 20
_DISK = "d0"
_IO_THREAD = "io0"
_VCPU = "CPU 1/TCG"
_CONFIG = "[procfs]\ninterval_s = 1\nblocked_s = 1\n[vms]\nscan_interval_s = 1\nqmp_interval_s = 1\nvcpu_interval_s = 0.2\n[clocks]\ninterval_s = {}\n"
_CLOCKS_S = 2
#: An idle CPU is no lockup, one that does nothing but run is; and a grace period must be waited for to be stalled.
_LOAD = (
    "taskset 2 sh -c 'while :; do :; done' >/dev/null 2>&1 &\n"
    "taskset 1 sh -c 'while :; do sleep 0.1; done' >/dev/null 2>&1 &"
)
_SLOW, _QUICK = 60, 5
#: The kernel's own thresholds are of minutes. Each failure has one detector made quick.
_THRESHOLDS = {
    "soft": (1, _SLOW, _SLOW),
    "rcu": (10, _QUICK, _SLOW),
    "task": (10, _SLOW, _QUICK),
}
_FILES = (
    "/proc/sys/kernel/watchdog_thresh",
    "/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout",
    "/proc/sys/kernel/hung_task_timeout_secs",
)
#: As a kernel comes, and how long a failure lasts then.
_AS_SHIPPED = (10, 21, 120)
_AS_SHIPPED_S = {"soft": 32, "rcu": 40, "task": 150}
#: A stall of another grace period within three timeouts of RCU is the same incident; between two failures is more.
_AS_SHIPPED_APART_S = 70
#: As many reports of hung tasks a kernel prints, and no more: one failure would take them all.
_WARNINGS = "/proc/sys/kernel/hung_task_warnings"
#: Else blocked tasks are looked for once in each such time only.
_LOOK_OFTEN = "echo 1 >/proc/sys/kernel/hung_task_check_interval_secs"


class Lab(NamedTuple):
    """What can be made to fail, and how often its clocks are read."""

    vm: Vm
    interval_s: float

    def do(self, words):
        """Have the module do something in the guest's kernel."""
        self.vm.run(f"echo '{words}' >/sys/module/hyplab/parameters/do")


class Case(NamedTuple):
    """One failure: whose it is (None: nobody's, the guest has nothing to say), by which detector, and how it is made."""

    name: str
    owner: Owner | None
    detector: str
    seconds: float
    make: Callable[[Lab, float], None]


class Made(NamedTuple):
    """When it was made, in ns of the host's CLOCK_REALTIME, and until when its incident can open."""

    case: Case
    since_ns: int
    until_ns: int


class Judged(NamedTuple):
    """An incident: when its first line arrived, and the verdicts with and without what the host knew."""

    incident: Incident
    arrived_ns: int
    seen: Verdict
    blind: Verdict


def _freeze(lab, seconds):
    with _disturb.frozen(lab.vm.process, _VCPU):
        time.sleep(seconds)


def _starve(lab, seconds):
    with _disturb.starved(lab.vm.process, _VCPU):
        time.sleep(seconds)


def _pause(lab, seconds):
    lab.vm.qmp.command("stop")
    time.sleep(seconds)
    lab.vm.qmp.command("cont")
    # Its clock stood: what happens before both are read again cannot be put on the host's time.
    time.sleep(lab.interval_s + 1)


def _freeze_disk(lab, seconds):
    with _disturb.frozen(lab.vm.process, f"IO {_IO_THREAD}"):
        _write(lab)
        time.sleep(seconds)


def _throttle_disk(lab, seconds):
    _limit(lab, 2000)
    _write(lab)
    time.sleep(seconds)
    _limit(lab, 0)


def _limit(lab, size_bytes_per_s):
    others = dict.fromkeys(("bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
    lab.vm.qmp.command("block_set_io_throttle", device=_DISK, bps=size_bytes_per_s, **others)


def _write(lab):
    lab.vm.run("dd if=/dev/zero of=/mnt/file bs=64k count=4 conv=fsync,notrunc >/dev/null 2>&1 &")


def _spin(lab, seconds):
    lab.do(f"spin 1 {seconds:.0f} 0")
    time.sleep(seconds)


def _spin_deaf(lab, seconds):
    lab.do(f"spin 1 {seconds:.0f} 1")
    time.sleep(seconds)


def _hang(lab, seconds):
    lab.do(f"hang {seconds:.0f}")
    time.sleep(seconds)


# The last words of a kernel never leave it by a virtio port, but what it said before does.
def _panic(lab, seconds):
    lab.do(f"spin 1 {seconds + _BEHIND_S:.0f} 0")
    time.sleep(seconds)
    lab.vm.run("(sleep 0.2; echo panic >/sys/module/hyplab/parameters/do) >/dev/null 2>&1 &")
    lab.vm.qmp.event("GUEST_PANICKED")


CASES = (
    Case("vCPU frozen", Owner.VMM_PAUSE, "soft", 5, _freeze),
    Case("vCPU frozen, RCU", Owner.VMM_PAUSE, "rcu", 8, _freeze),
    # Between crumbs of time its kernel reports early, and a length below C14's is then no failure: long enough for two.
    Case("vCPU starved", Owner.HOST_CPU, "soft", 9, _starve),
    Case("disk throttled", Owner.STORAGE_BACKEND, "task", 8, _throttle_disk),
    Case("VM paused", None, "soft", 4, _pause),
    Case("I/O thread frozen", Owner.VMM_PAUSE, "task", 8, _freeze_disk),
    Case("kernel spins", Owner.GUEST_DRIVER, "soft", 7, _spin),
    Case("kernel spins, deaf", Owner.GUEST_DRIVER, "rcu", 7, _spin_deaf),
    Case("mutex held", Owner.GUEST_DRIVER, "task", 8, _hang),
    Case("panic in a lockup", Owner.GUEST_DRIVER, "soft", 10, _panic),
)


# No failure in front of it: of this one nothing of the guest ever comes.
def _panic_alone(lab, _seconds):
    lab.vm.run("(sleep 0.2; echo panic >/sys/module/hyplab/parameters/do) >/dev/null 2>&1 &")
    lab.vm.qmp.event("GUEST_PANICKED")


#: What nobody but the VM's monitor tells, and a task that is seen to go on.
MONITORED = (
    Case("mutex held", Owner.GUEST_DRIVER, "task", 8, _hang),
    Case("VM paused", None, "soft", 4, _pause),
    Case("VM stays paused", Owner.VMM_PAUSE, "soft", 14, _pause),
    Case("panic", Owner.UNDETERMINED, "soft", 1, _panic_alone),
)


def make_all(folder, bundle, cases=CASES, *, as_shipped=False):
    """Run guest, relay, alerter and the host's agent, make each of `cases` fail, and return what was made when.

    All files are in `folder`: the lake is `lake`.
    """
    if as_shipped:
        cases = [each if each.owner is None else each._replace(seconds=_AS_SHIPPED_S[each.detector]) for each in cases]
    guest_id, relay, monitor = str(uuid.uuid4()), folder / "relay.sock", folder / "monitor.sock"
    kernel = _kernel.fetch()
    module = _module.build(kernel, _module.HYPLAB, folder / "module")
    disk, config = folder / "disk", folder / "agent.toml"
    config.write_text("" if as_shipped else _CONFIG.format(_CLOCKS_S))
    with disk.open("wb") as file:
        file.truncate(_DISK_BYTES)
    arguments = (
        *("-uuid", guest_id, "-qmp", f"unix:{monitor},server=on,wait=off"),
        *("-device", "pvpanic-pci", "-action", "panic=none", "-object", f"iothread,id={_IO_THREAD}"),
        *("-drive", f"file={disk},if=none,id={_DISK},format=raw,cache=unsafe"),
        *("-device", f"virtio-blk-pci,drive={_DISK},iothread={_IO_THREAD}"),
    )
    (folder / "guests").mkdir()
    with contextlib.ExitStack() as stack:
        to_guests = ("producers.cli", "relay", "--vm", f"{NAME}={relay},uuid={guest_id}", "--log", folder / "guests")
        stack.enter_context(lab.running(folder, "relay", *to_guests))
        surfaces = ("topology", "vcpu-time", "qmp", "clocks", "procfs", "bpf")
        flags = [word for each in surfaces for word in ("--surface", each)]
        flags += ["--program", "vcpu,block-io", "--qmp", f"{NAME}={monitor}", "--config", config]
        host = ("producers.cli", "run", *flags, "--layer", "host")
        stack.enter_context(lab.running(folder, "host", *host, "--heartbeat-s", 1, "--log", folder / "host"))
        vm = stack.enter_context(_steady(folder, kernel, name=NAME, ports={PORT: relay}, arguments=arguments))
        vm.bundle = bundle
        surfaces = ("--surface=kmsg", "--surface=clocks", "--surface=procfs")
        agent = GuestAgent(vm, "/run/spool", *surfaces, "--heartbeat-s=1", f"--config={config}")
        agent.said("watching kmsg")
        agent.said("relayed by")
        vm.run(f"mkfs.ext4 -q -F /dev/vda; mount /dev/vda /mnt; insmod {module}; {_LOOK_OFTEN}; {_LOAD}")
        alerter = ("consumers.cli", "alert", "--log", folder / "guests", "--lake", folder / "lake")
        stack.enter_context(lab.running(folder, "alert", *alerter, "--metrics", "off"))
        there = Lab(vm, ClocksConfig().interval_s if as_shipped else _CLOCKS_S)
        apart_s = _AS_SHIPPED_APART_S if as_shipped else _BEHIND_S
        made = [
            _make(there, case, _AS_SHIPPED if as_shipped else _THRESHOLDS[case.detector], apart_s) for case in cases
        ]
    lab.collect(folder)
    return made


def of_host(folder):
    """Raise what the host's own log tells, once all is collected."""
    # Of two logs each has an alerter, over one lake.
    words = ("alert", "--log", folder / "host", "--lake", folder / "lake", "--until-end")
    subprocess.run([sys.executable, "-m", "consumers.cli", *map(str, words)], cwd=ROOT, check=True)


def of_vm(folder):
    """Return the newest version of each incident that the host told of its VM."""
    storage = open_lake(folder / "lake", create=False)
    rows = [row for row in stored.newest(storage) if row["layer"] == Layer.VIRTUAL_PLATFORM]
    return [stored.read(storage, row["incident_id"]) for row in rows]


# A guest that boots beside much else may count its time stamps wrongly for good: its clock runs several times as fast then.
# What it counted it compares a second later with another clock, and says so where both agree.
def _steady(folder, kernel, **more):
    for attempt in range(_BOOTS_MAX):
        place = folder / f"guest-{attempt}"
        place.mkdir()
        vm = Vm(place, kernel, **more)
        vm.booted()
        if vm.try_run(f"for i in {{1..50}}; do dmesg | grep -q '{_AGREE}' && exit; sleep 0.1; done; exit 1").code == 0:
            return vm
        vm.close()
    raise AssertionError(f"the clock of {_BOOTS_MAX} guests ran wrong")


def _make(lab, case, thresholds, apart_s):
    values = zip((*_FILES, _WARNINGS), (*thresholds, 10), strict=True)
    lab.vm.run("\n".join(f"echo {value} >{path}" for path, value in values))
    time.sleep(apart_s)
    since_ns = time.time_ns()
    say(f"{case.name}, for {case.seconds:g} s")
    case.make(lab, case.seconds)
    time.sleep(_BEHIND_S)
    return Made(case, since_ns, time.time_ns())


def judged(folder):
    """Return every incident that the alerter stored, in order, judged with and without what the host knew."""
    storage = open_lake(folder / "lake", create=False)
    sql = (
        "with newest as (select max_by(incident_json, version) as text, any_value(machine) as machine, "
        "any_value(boot_id) as boot_id, any_value(first_place) as seq from incidents group by incident_id) "
        "select text, arrival_ns from newest join kmsg using (machine, boot_id, seq) order by arrival_ns"
    )
    rows = connect(storage, sql=sql).execute(sql).fetchall()
    found = [(codec.decode(text), arrived_ns) for text, arrived_ns in rows]
    return [
        Judged(
            incident,
            arrived_ns,
            judge(incident, gather(storage, incident)),
            judge(incident, gather(storage, incident, HOST_LAYERS)),
        )
        for incident, arrived_ns in found
        if incident.ended_by != "joined"
    ]


def of_case(made, found):
    """Return those incidents whose first line arrived while a failure was made."""
    return [each for each in found if made.since_ns <= each.arrived_ns < made.until_ns]


def said(verdict):
    """Return whom a verdict names: the owner, or both where neither is picked alone."""
    return verdict.owner if verdict.shared is None else f"{verdict.owner}+{verdict.shared}"


def confusion(pairs):
    """Return lines of a table: the owners that were true, beside each how often which owner was said."""
    names = [*sorted({name for _, name in pairs} - {Owner.UNDETERMINED}), Owner.UNDETERMINED]
    widths = [len(name) + 2 for name in names]
    yield f"{'true':27}" + "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    for true in sorted({owner for owner, _ in pairs}):
        counts = [sum(pair == (true, name) for pair in pairs) for name in names]
        row = zip(counts, widths, strict=True)
        yield f"{true:27}" + "".join(f"{count or '.':>{width}}" for count, width in row)


def report(made, found):
    """Yield what was made, what was said of it, and both tables."""
    for each in made:
        mine = of_case(each, found)
        yield f"{each.case.name}: {each.case.owner or 'nobody'}, {len(mine)} incidents"
        for one in mine:
            after_s = (one.arrived_ns - each.since_ns) / 1e9
            yield f"    {one.incident.kind} after {after_s:.1f} s, {one.incident.id}"
            for how, verdict in (("with", one.seen), ("without", one.blind)):
                yield f"    {how} its host: {verdict.owner}, {verdict.confidence} ({verdict.row}): {verdict.sentence}"
    pairs = [(each.case.owner, one) for each in made if each.case.owner for one in of_case(each, found)]
    for how in ("seen", "blind"):
        yield ""
        yield f"{'with' if how == 'seen' else 'without'} what the host knew:"
        yield from confusion([(owner, said(getattr(one, how))) for owner, one in pairs])


def say(text):
    """Tell the user what happens, and when."""
    lab.say(text)


def main():
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="matrix", description="Make one failure after another, and say who owned each."
    )
    parser.add_argument("--as-shipped", action="store_true", help="leave thresholds and intervals as they come")
    as_shipped = parser.parse_args().as_shipped
    if os.geteuid() != 0:
        sys.exit("the matrix freezes threads of QEMU: run this as root")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    made = make_all(FOLDER, lab.BUNDLE, as_shipped=as_shipped)
    found = judged(FOLDER)
    print("\n".join(report(made, found)))


if __name__ == "__main__":
    main()
