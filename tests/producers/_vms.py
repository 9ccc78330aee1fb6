"""Processes that look like virtual machines: their threads have the names of vCPUs, and spin or sleep as told."""

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

_CODE = """
import ctypes, sys, threading
names = sys.argv[1].split("|")
up = threading.Barrier(len(names) + 1)
end = {}
def run(name):
    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME
    end[name] = threading.Event()
    up.wait()
    if name.endswith("*"):
        while not end[name].is_set(): pass
    else:
        end[name].wait()
if sys.argv[2]: ctypes.CDLL(None).prctl(15, sys.argv[2].encode(), 0, 0, 0)
for name in names:
    threading.Thread(target=run, args=(name,), daemon=True).start()
up.wait()
print("up", flush=True)
for line in sys.stdin:
    end[line.strip()].set()
"""


class FakeVm:
    """Such a process, called `name`; `end` lets one of its threads come to its end."""

    def __init__(self, *threads, command=(), name=""):
        arguments = [sys.executable, "-c", _CODE, "|".join(threads), name, *command]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "up\n"
        self.pid = self._process.pid

    def end(self, name):
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()

    def close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@contextlib.contextmanager
def fake_vm(*threads, command=(), name=""):
    vm = FakeVm(*threads, command=command, name=name)
    try:
        yield vm
    finally:
        vm.close()


def names(folder):
    """Return the names in a folder of /proc."""
    return [path.name for path in Path(folder).iterdir()]


def until(condition, timeout_s=20.0):
    """Return what `condition` gives as soon as that is true."""
    end_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end_s, "it never came"
        threading.Event().wait(0.01)
    return found
