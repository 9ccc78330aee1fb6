"""A guest that blames itself for what its host did, and the timeline that shows it: `make lab`, about a minute.

A guest boots and sends its kernel log through the relay; the agent on this machine watches the guest's threads and its
monitor. Then one of the guest's CPUs stands still for some seconds, as if its host were busy elsewhere. All of it goes
into one lake, in var/lab, and is shown in one list.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid

from tests.guest import _kernel
from tests.guest._disturb import frozen
from tests.guest._python import ROOT
from tests.guest._vm import Vm

FOLDER = ROOT / "var" / "lab"
BUNDLE = ROOT / "dist" / "hypocenter-agent.pyz"
NAME = "lab"
PORT = "org.hypocenter.0"
FROZEN_S = 6
_WAIT_S = 120
#: The watchdog takes a CPU for locked up that ran nothing else for twice this long.
_WATCHDOG_S = 1
#: Idle CPUs are no lockups: one that does nothing but run is.
_BUSY = "taskset 2 sh -c 'while :; do :; done' >/dev/null 2>&1 &"


def say(text):
    """Tell the user what happens, and when."""
    print(f"{time.monotonic() - _START_S:5.1f} s  {text}", flush=True)


@contextlib.contextmanager
def running(folder, name, *words):
    """Run one of the programs of this checkout, its messages in a file of its own; it is ended by SIGTERM."""
    with (folder / f"{name}.err").open("wb") as errors:
        process = subprocess.Popen([sys.executable, "-m", *map(str, words)], cwd=ROOT, stderr=errors)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_WAIT_S)


def until(folder, done, what):
    """Wait until `done()`."""
    deadline_s = time.monotonic() + _WAIT_S
    while not done():
        if time.monotonic() > deadline_s:
            sys.exit(f"waited {_WAIT_S} s in vain for {what}: see {folder}/*.err and {folder}/console.log")
        time.sleep(0.2)


def hypocenter(*words):
    """Run `hypocenter` with these words."""
    subprocess.run([sys.executable, "-m", "consumers.cli", *map(str, words)], cwd=ROOT, check=True)


def watch_and_freeze(folder, bundle):
    """Run guest, relay and the host's agent; return between which times of CLOCK_REALTIME, in ns, the CPU stood still.

    All files are in `folder`: the logs are `guests` and `host`.
    """
    guest_id, relay, monitor = str(uuid.uuid4()), folder / "relay.sock", folder / "monitor.sock"
    arguments = ("-uuid", guest_id, "-qmp", f"unix:{monitor},server=on,wait=off")
    with contextlib.ExitStack() as stack:
        # They look for their sockets until the guest is there: what its kernel says of its start is on known clocks then.
        to_guests = ("producers.cli", "relay", "--vm", f"{NAME}={relay},uuid={guest_id}", "--log", folder / "guests")
        stack.enter_context(running(folder, "relay", *to_guests))
        surfaces = ("topology", "vcpu-time", "qmp", "clocks", "bpf")
        flags = [word for each in surfaces for word in ("--surface", each)]
        flags += ["--program", "vcpu", "--qmp", f"{NAME}={monitor}"]
        host = ("producers.cli", "run", *flags, "--layer", "host")
        stack.enter_context(running(folder, "host", *host, "--heartbeat-s", 1, "--log", folder / "host"))
        say("a guest boots, without hardware virtualisation")
        vm = stack.enter_context(Vm(folder, _kernel.fetch(), name=NAME, ports={PORT: relay}, arguments=arguments))
        vm.booted()
        say("the agent starts in it: one file, its only way out a virtio port")
        agent = f"{ROOT}/.venv/bin/python -I {bundle} run --surface kmsg --surface clocks --heartbeat-s 1"
        vm.run(f"cd /run && {agent} --relay /dev/virtio-ports/{PORT} --spool /run/spool >/run/agent.err 2>&1 &")
        vm.run(f"echo {_WATCHDOG_S} >/proc/sys/kernel/watchdog_thresh; {_BUSY}")
        until(folder, lambda: "watching" in vm.run("cat /run/agent.err"), "the guest's agent")
        time.sleep(6 * _WATCHDOG_S)
        say(f"its CPU 1 stands still for {FROZEN_S} s, and it cannot know why")
        since_ns = time.time_ns()
        with frozen(vm.process, "CPU 1/TCG"):
            time.sleep(FROZEN_S)
        until_ns = time.time_ns()
        until(folder, lambda: "soft lockup" in vm.run("dmesg"), "the guest's watchdog")
        say("its kernel says:")
        print("".join(f"         {line}\n" for line in vm.run("dmesg | grep -m 2 -i 'soft lockup'").splitlines()))
        time.sleep(7)  # behind it heartbeats of host and guest, and an exchange of their clocks, one each 5 s
        vm.run("pkill -TERM -f hypocenter-agent.pyz; sleep 2")
    return since_ns, until_ns


def collect(folder):
    """Bring what guest and host sent into one lake, and return it."""
    lake = folder / "lake"
    for log in ("guests", "host"):
        with (folder / f"collect-{log}.err").open("wb") as errors:
            command = ["consumers.cli", "collect", "--log", folder / log, "--lake", lake, "--until-end"]
            subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, check=True, stderr=errors)
    return lake


def window(since_ns, until_ns):
    """Return the flags of a timeline from somewhat before to somewhat behind these times."""
    times = (("--since", since_ns - 2 * 10**9), ("--until", until_ns + 3 * 10**9))
    return [
        word for flag, at_ns in times for word in (flag, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ns / 1e9)))
    ]


def main():
    """Run it."""
    if os.geteuid() != 0:
        sys.exit("the laboratory freezes a thread of QEMU: run this as root")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    stood_still_ns = watch_and_freeze(FOLDER, BUNDLE)
    say("guest and host go into one lake")
    lake = collect(FOLDER)
    hypocenter("audit", "--lake", lake)
    say("and tell it in one list:")
    timeline = ("timeline", "--lake", lake, "--vm", NAME, *window(*stood_still_ns))
    hypocenter(*timeline)
    page = FOLDER / "timeline.html"
    hypocenter(*timeline, "--format", "html", "-o", page)
    say(f"the same as a page: {page.relative_to(ROOT)}")


_START_S = time.monotonic()
if __name__ == "__main__":
    main()
