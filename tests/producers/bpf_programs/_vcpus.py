"""Threads that are named as those of virtual CPUs, and what makes them stand still: groups, signals, a neighbour."""

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.producers.bpf_programs._programs import until

CPU = 1
UNIFIED = next(
    (
        path
        for path in map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"))
        if (path / "cgroup.controllers").exists()
    ),
    None,
)
_STRUCT = struct.Struct("=QIIQQQIIiIII??2s16s16s4x")
RUNNING, WAITING, THROTTLED, SLEEPING, UNINTERRUPTIBLE, STOPPED, TRACED, FROZEN = range(8)

#: It names itself, goes to its CPU, and from then on does what it is told by lines: a text of Python for each.
_THREAD = """
import os, sys, time
open("/proc/self/comm", "w").write(sys.argv[1])
os.sched_setaffinity(0, {%d})
sys.stdout.write("!"); sys.stdout.flush()
exec(sys.argv[2])
"""


class Stay(NamedTuple):
    """`struct vcpu` of producers/bpf_programs/vcpu.bpf.c."""

    ts_ns: int
    cpu: int
    state: int
    cpu_seq: int
    duration_ns: int
    cpu_ns: int
    pid: int
    tgid: int
    vcpu: int
    on_cpu: int
    prev_pid: int
    prev_tgid: int
    open: bool
    io_wait: bool
    task_state: bytes
    comm: bytes
    prev_comm: bytes


def unpack(data):
    found = Stay._make(_STRUCT.unpack(data))
    texts = {name: getattr(found, name).split(b"\0")[0] for name in ("task_state", "comm", "prev_comm")}
    return found._replace(**texts)


BUSY = "while True: pass"


class Thread:
    """A process of one thread named `comm`, at work on CPU 1 with the text `code`."""

    def __init__(self, comm="CPU 3/KVM", code=BUSY, cpu=CPU, **settings):
        command = [sys.executable, "-c", _THREAD % cpu, comm, code]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, **settings)
        assert self.process.stdout.read(1) == b"!"
        self.pid = self.process.pid

    def schedstat(self):
        """Return (run, wait) in ns."""
        return tuple(map(int, Path(f"/proc/{self.pid}/schedstat").read_text().split()[:2]))

    def state(self):
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def stop(self):
        """Let it stand still; return its schedstat then."""
        self.process.send_signal(signal.SIGSTOP)
        until(lambda: self.state() == "T", "it stops")
        # One that is to stand may have been put off its CPU right before, and has yet to get there.
        before = None
        while (now := self.schedstat()) != before:
            before = now
            time.sleep(0.1)
        return now

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Group:
    """A new group below `parent`; gone again by `close`."""

    def __init__(self, parent):
        self.path = parent / f"hypocenter-test-{os.getpid()}"
        self.path.mkdir()

    def put(self, name, value):
        (self.path / name).write_text(str(value))

    def get(self, name):
        return (self.path / name).read_text()

    def close(self):
        until(lambda: not self.get("cgroup.procs").strip(), "the group becomes empty")
        self.path.rmdir()
