"""Tasks that sleep and cannot be woken (state D): who they are, since when, and that they are not any more.

What /proc/stat counts as `procs_blocked` are only those that wait for a disk (kernel/sched/core.c, nr_iowait), so every
task is looked at, seldom; who was found is read again with each sample. A task is known by its number and its start; it
has stood if nothing switched to it in between, as the kernel itself decides it (kernel/hung_task.c).
Source: proc(5), /proc/PID/task/TID/stat, status and wchan. The numbers are those of the kernel's own log in the
initial PID namespace alone (include/linux/proc_ns.h), so elsewhere nothing is told.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from schemas.state import Record

#: Tasks that one look reads, the next one goes on behind them; and those that are followed.
LOOK_TASKS_MAX: Final = 8192
FOLLOWED_MAX: Final = 64
#: Who slept for less is nobody's business.
_TOLD_NS: Final = 2 * 10**9
#: That somebody woke is said for so long: who listens may come late.
_WOKEN_NS: Final = 60 * 10**9
_READ_BYTES: Final = 4096
_INIT_PID_NS: Final = 0xEFFFFFFC
_SWITCHES: Final = re.compile(rb"^(?:non)?voluntary_ctxt_switches:\s*(\d+)$", re.MULTILINE)


class Task(NamedTuple):
    """A thread by its number, that of its process, and its start in clock ticks since boot."""

    tgid: int
    pid: int
    start: int


@dataclass(slots=True)
class _Followed:
    comm: str
    since_ns: int
    switches: int
    told: bool = False
    woken_ns: int | None = None
    state: str | None = "D"


class Blocked:
    """Looks through the tasks below `proc` every `look_ns`; `now_ns` reads CLOCK_BOOTTIME."""

    def __init__(self, now_ns: Callable[[], int], look_ns: int, proc: Path = Path("/proc")) -> None:
        self._now_ns, self._look_ns, self._proc = now_ns, look_ns, proc
        self._due_ns = self._behind = 0
        self._tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
        self._followed: dict[Task, _Followed] = {}

    def sample(self) -> list[Record]:
        """Return a record for each task that is known to be blocked, or was a minute ago."""
        records = [record for task in list(self._followed) if (record := self._read_again(task)) is not None]
        if self._now_ns() >= self._due_ns:
            self._due_ns = self._now_ns() + self._look_ns
            self._look()
        return records

    # A task that was switched to has run, though it sleeps again: that is another sleep.
    def _read_again(self, task: Task) -> Record | None:
        one, now_ns = self._followed[task], self._now_ns()
        if one.woken_ns is None:
            found = _stat(self._folder(task))
            one.state = found[1] if found is not None and found[2] == task.start else None
            if one.state != "D" or self._switches(task) != one.switches:
                one.woken_ns = now_ns
            one.told |= one.woken_ns is None and now_ns - one.since_ns >= _TOLD_NS
        if one.woken_ns is not None and (not one.told or now_ns - one.woken_ns > _WOKEN_NS):
            del self._followed[task]
            return None
        return self._record(task, one, now_ns) if one.told else None

    def _record(self, task: Task, one: _Followed, now_ns: int) -> Record:
        fields = {"pid": task.pid, "tgid": task.tgid, "comm": one.comm, "started_ns": task.start * self._tick_ns}
        blocked = one.woken_ns is None
        fields |= {"blocked": blocked, "state": one.state, "since_ns": one.since_ns, "woken_ns": one.woken_ns}
        return Record("procfs_blocked", now_ns, fields | {"wchan": self._wchan(task) if blocked else None})

    def _look(self) -> None:
        count = 0
        pids = sorted(int(name) for name in _names(self._proc) if name.isdecimal())
        for tgid in [*(pid for pid in pids if pid > self._behind), *(pid for pid in pids if pid <= self._behind)]:
            folder = self._proc / str(tgid) / "task"
            names = _names(folder)[: LOOK_TASKS_MAX - count]
            for task, comm in _blocked(folder, tgid, names):
                if len(self._followed) >= FOLLOWED_MAX:
                    return
                switches = self._switches(task)
                if task not in self._followed and switches is not None:
                    self._followed[task] = _Followed(comm, self._now_ns(), switches)
            count += len(names)
            if count >= LOOK_TASKS_MAX:
                self._behind = tgid
                return
        self._behind = 0

    def _folder(self, task: Task) -> Path:
        return self._proc / str(task.tgid) / "task" / str(task.pid)

    def _switches(self, task: Task) -> int | None:
        found = _SWITCHES.findall(_read(self._folder(task) / "status") or b"")
        return sum(map(int, found)) if found else None

    # Root alone may read it; 0 where it runs.
    def _wchan(self, task: Task) -> str | None:
        text = (_read(self._folder(task) / "wchan") or b"").decode("ascii", "replace")
        return text if text not in ("", "0") else None


def numbers_are_the_kernels(proc: Path = Path("/proc")) -> bool:
    """Return whether tasks have the numbers here that the kernel's log gives them."""
    try:
        return (proc / "self/ns/pid").stat().st_ino == _INIT_PID_NS
    except OSError:
        return False


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - many, and only their names
    except OSError:
        return []


def _blocked(folder: Path, tgid: int, names: list[str]) -> Iterator[tuple[Task, str]]:
    for name in names:
        found = _stat(folder / name)
        if found is not None and found[1] == "D":
            yield Task(tgid, int(name), found[2]), found[0]


# Name, state and start (fields 2, 3 and 22); a name may hold anything, also what looks like the fields behind it.
def _stat(folder: Path) -> tuple[str, str, int] | None:
    text = _read(folder / "stat")
    if text is None:
        return None
    head, _, rest = text.rpartition(b") ")
    fields = rest.split()
    if len(fields) < 20:
        return None
    return head.partition(b" (")[2].decode("utf-8", "replace"), fields[0].decode("ascii", "replace"), int(fields[19])


def _read(path: Path) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, _READ_BYTES)
    except OSError:
        return None  # it ended meanwhile
    finally:
        os.close(fd)
