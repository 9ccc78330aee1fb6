"""Agent, shipper and collector as the processes that users run, with their messages kept for the failure report."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.pipeline._kernel import until

ROOT = Path(__file__).resolve().parents[2]
AGENT = (sys.executable, "-m", "producers.cli")
COLLECTOR = (sys.executable, "-m", "consumers.cli")
CRASH_AT = "HYPOCENTER_CRASH_AT"
_numbers = itertools.count()


class Running:
    """One process, started in `folder`, which holds its output; `crash_at` names its crash point."""

    def __init__(self, folder, command, crash_at=None, stdin=subprocess.DEVNULL):
        name = f"{next(_numbers)}-{re.sub('[^a-z-]+', '_', ' '.join(command[2:])[-60:])}"
        self.out_path, self.err_path = folder / f"{name}.out", folder / f"{name}.err"
        self.command = command
        env = {key: value for key, value in os.environ.items() if key != CRASH_AT}
        env |= {"PYTHONPATH": str(ROOT)} | ({CRASH_AT: crash_at} if crash_at else {})
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            self.process = subprocess.Popen(command, cwd=folder, env=env, stdin=stdin, stdout=out, stderr=err)
        self.pid = self.process.pid

    @property
    def err(self):
        return self.err_path.read_text(errors="replace")

    @property
    def out(self):
        return self.out_path.read_text(errors="replace")

    def wait(self, timeout_s=30.0):
        """Return the exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout_s)
        raise AssertionError(f"still runs after {timeout_s:g} s: {self.story()}")

    def said(self, pattern, timeout_s=30.0):
        """Wait until the process printed `pattern` on stderr."""
        until(lambda: self._find(pattern), lambda: f"{pattern!r} in {self.story()}", timeout_s)

    def stop(self, timeout_s=30.0):
        """Ask it to end and return the exit code."""
        self.process.terminate()
        return self.wait(timeout_s)

    def signal(self, number):
        self.process.send_signal(number)

    def stopped(self, timeout_s=30.0):
        """Wait until it is stopped by SIGSTOP."""
        until(lambda: _state(self.pid) == "T", lambda: f"to be stopped: {self.story()}", timeout_s)

    def messages(self):
        """Return the texts of its log lines."""
        return [json.loads(line)["message"] for line in self.err.splitlines() if line.startswith("{")]

    def plain(self):
        """Return the lines on stderr that are no log lines: what is said to the user."""
        return [line for line in self.err.splitlines() if not line.startswith("{")]

    def story(self):
        return f"{' '.join(self.command)}\nexit code {self.process.poll()}, stderr:\n{self.err[-4000:]}"

    def _find(self, pattern):
        if re.search(pattern, self.err):
            return True
        assert self.process.poll() is None, f"ended without saying {pattern!r}: {self.story()}"
        return False


def _state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def children(pid):
    """Return the process ids of the children of `pid`."""
    texts = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in entries(f"/proc/{pid}/task")]
    return [int(child) for text in texts for child in text.split()]


def switches(pid):
    """Return how often the threads of `pid` went to sleep by themselves."""
    return sum(status(f"{pid}/task/{task}", "voluntary_ctxt_switches") for task in entries(f"/proc/{pid}/task"))


def open_files(pid):
    """Return (descriptor, what it is) of everything that `pid` has open."""
    found = []
    for fd in entries(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append((fd, str(Path(f"/proc/{pid}/fd/{fd}").readlink())))
    return found


def entries(path):
    return sorted(each.name for each in Path(path).iterdir())


def status(pid, name):
    """Return a number from /proc/`pid`/status."""
    return int(re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])


def kill_all(folder):
    """Kill every process whose command names a path in `folder`, which is this test's alone; orphans too."""
    mark = os.fsencode(folder) + b"/"
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(path.name) != os.getpid() and mark in (path / "cmdline").read_bytes():
                os.kill(int(path.name), signal.SIGKILL)
