"""Blocked tasks, of a made-up /proc at every step, and a real one that this machine's kernel blocks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from producers import blocked
from producers.blocked import Blocked
from producers.topology import boottime_ns

S = 10**9


class Proc:
    def __init__(self, folder):
        self.folder, self.now_ns = folder, 100 * S
        self.blocked = Blocked(lambda: self.now_ns, 30 * S, folder)

    def task(self, pid, state="D", *, tgid=None, start=500, switches=(3, 4), comm="dd", wchan="io_schedule"):
        folder = self.folder / str(tgid or pid) / "task" / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stat").write_text(f"{pid} ({comm}) {state} {' '.join(['0'] * 18)} {start} 0 0\n")
        names = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
        (folder / "status").write_text("".join(f"{name}:\t{n}\n" for name, n in zip(names, switches, strict=True)))
        (folder / "wchan").write_text(wchan)

    def sample(self, after_s=5):
        self.now_ns += after_s * S
        return [each.fields for each in self.blocked.sample()]


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


def test_who_stays_blocked_is_told_and_that_he_woke_for_a_minute(proc):
    proc.task(7, tgid=5, comm="a) D (b")
    assert proc.sample() == []
    (told,) = proc.sample()
    assert told["since_ns"] == 105 * S
    assert (told["pid"], told["tgid"], told["comm"], told["blocked"], told["state"], told["wchan"]) == (
        7, 5, "a) D (b", True, "D", "io_schedule",
    )  # fmt: skip
    assert told["started_ns"] == 500 * 10**9 // os.sysconf("SC_CLK_TCK")
    proc.task(7, "S", tgid=5)
    (woken,) = proc.sample()
    assert (woken["blocked"], woken["state"], woken["woken_ns"], woken["wchan"]) == (False, "S", proc.now_ns, None)
    assert all(not each["blocked"] for _ in range(12) for each in proc.sample())
    assert proc.sample() == []


@pytest.mark.parametrize("more", [{"switches": (4, 4)}, {"start": 600}])
def test_who_ran_between_or_is_another_is_not_the_one_that_stood(proc, more):
    proc.task(7)
    proc.sample()
    assert proc.sample()[0]["blocked"]
    proc.task(7, **more)
    assert proc.sample()[0]["blocked"] is False


def test_who_is_gone_is_not_blocked(proc):
    proc.task(7)
    proc.sample()
    proc.sample()
    for name in ("stat", "status", "wchan"):
        (proc.folder / "7/task/7" / name).unlink()
    (gone,) = proc.sample()
    assert (gone["blocked"], gone["state"]) == (False, None)


def test_who_sleeps_for_a_moment_only_is_never_told(proc):
    proc.task(7)
    proc.sample()
    proc.task(7, "R")
    assert proc.sample() == proc.sample() == []


def test_others_are_looked_for_now_and_then(proc):
    proc.sample()
    proc.task(7)
    assert [proc.sample() for _ in range(5)] == [[]] * 5
    proc.sample(30)
    assert [each["pid"] for each in proc.sample()] == [7]


def test_it_follows_no_more_than_its_bound_and_goes_on_where_a_look_ended(proc, monkeypatch):
    monkeypatch.setattr(blocked, "FOLLOWED_MAX", 3)
    monkeypatch.setattr(blocked, "LOOK_TASKS_MAX", 2)
    for pid in range(1, 7):
        proc.task(pid)
    found = {each["pid"] for _ in range(20) for each in proc.sample(30)}
    assert len(found) == 3
    assert max(found) > 2


def test_elsewhere_numbers_are_not_the_kernels(tmp_path):
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").write_text("")
    assert not blocked.numbers_are_the_kernels(tmp_path)


def test_a_task_that_the_kernel_blocks_is_seen_and_that_it_goes_on():
    # vfork(2): the parent sleeps in state D until its child ends or executes.
    code = "import ctypes, os; libc = ctypes.CDLL(None); libc.vfork() or (libc.sleep(6), libc._exit(0))"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        seen = Blocked(boottime_ns, 0)
        found = []
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s and not (found and not found[-1]["blocked"]):
            found += [each.fields for each in seen.sample() if each.fields["pid"] == process.pid]
            time.sleep(0.25)
        process.send_signal(signal.SIGKILL)
    if not found:
        pytest.skip(f"state of a parent in vfork: {Path('/proc/version').read_text()[:30]}")
    assert found[0]["blocked"]
    assert not found[-1]["blocked"]
