"""One thread of another process that stands still, or gets no CPU, as a vCPU does whose host is busy elsewhere.

Sources: ptrace(2), sched(7).
"""

import contextlib
import ctypes
import os
import subprocess
import sys
from pathlib import Path

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000
#: Ends with whoever started it at the latest a minute later.
_HOG = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.setpriority(os.PRIO_PROCESS, 0, -20)
os.write(1, b".")
until = time.monotonic() + 60
while time.monotonic() < until:
    pass
"""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


@contextlib.contextmanager
def frozen(process, name):
    """Stop the thread called `name` of a process; it goes on at the end. Both by the same thread of ours."""
    thread = _thread(process, name)
    _ptrace(_SEIZE, thread)
    try:
        _ptrace(_INTERRUPT, thread)
        stopped, status = os.waitpid(thread, _WALL)
        assert (stopped, os.WIFSTOPPED(status)) == (thread, True)
        yield
    finally:
        _ptrace(_DETACH, thread)


@contextlib.contextmanager
def starved(process, name):
    """Give a thread only what a neighbour on its CPU leaves, whose weight is 30,000 times its own: next to nothing."""
    thread = _thread(process, name)
    allowed = os.sched_getaffinity(thread)
    cpu = max(allowed)
    hog = subprocess.Popen([sys.executable, "-c", _HOG, str(cpu)], stdout=subprocess.PIPE)
    try:
        assert hog.stdout.read(1) == b"."
        os.sched_setaffinity(thread, {cpu})
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
        yield
    finally:
        os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(thread, allowed)
        hog.kill()
        hog.wait()
        hog.stdout.close()


def _thread(process, name):
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    (thread,) = [int(path.name) for path in threads if (path / "comm").read_text().strip() == name]
    return thread


def _ptrace(request, thread):
    if _libc.ptrace(request, thread, None, None):
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace {request:#x} of thread {thread}: {os.strerror(code)}")
