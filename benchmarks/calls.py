"""Processes that make system calls at a steady pace, one on each of two CPUs, and count them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

# As many calls of getppid(2) every 5 ms as the pace asks for, from the first line of standard input on; says how many.
_LOAD: Final = """
import itertools, os, sys, time
per_s, seconds = int(sys.argv[1]), float(sys.argv[2])
print(os.getpid(), flush=True)
sys.stdin.readline()
start, made = time.monotonic(), 0
while (passed := time.monotonic() - start) < seconds:
    due = int(passed * per_s) - made
    for _ in itertools.repeat(None, due):
        os.getppid()
    made += due
    time.sleep(0.005)
print(made, flush=True)
"""


class Callers:
    """Two processes that are ready to make `per_s` calls of getppid(2) a second together, for `seconds`."""

    def __init__(self, per_s: int, seconds: float) -> None:
        command = [sys.executable, "-c", _LOAD, str(per_s // 2), str(seconds)]
        self._running = []
        self.pids = []
        for cpu in sorted(os.sched_getaffinity(0))[:2]:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            os.sched_setaffinity(process.pid, {cpu})
            assert process.stdout is not None
            self._running.append(process)
            self.pids.append(int(process.stdout.readline()))

    def go(self) -> None:
        """Let them begin."""
        for process in self._running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def each_second(self, do: Callable[[], None]) -> None:
        """Call `do` now and every second until they have ended."""
        next_s = time.monotonic()
        while any(process.poll() is None for process in self._running):
            do()
            next_s += 1
            time.sleep(max(0.0, next_s - time.monotonic()))

    def made(self) -> int:
        """Wait for their end, and return how many calls they made."""
        return sum(int(process.communicate()[0]) for process in self._running)

    def kill(self) -> None:
        """End them at once."""
        for process in self._running:
            process.send_signal(signal.SIGKILL)


@contextmanager
def callers(per_s: int, seconds: float) -> Iterator[Callers]:
    """Give the processes, and end them."""
    made = Callers(per_s, seconds)
    try:
        yield made
    finally:
        made.kill()
