"""The BPF programs on Debian's kernel, which is older and has more tracepoints: their own tests, run in a guest."""

import contextlib
import re
import time
from pathlib import Path

import pytest

Vm = pytest.importorskip("tests.guest._vm", reason="no guests in this tree").Vm
pytestmark = pytest.mark.guest
ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"cd {ROOT}; TMPDIR=/run/tmp PYTHONPATH={ROOT} PYTHONDONTWRITEBYTECODE=1 .venv/bin/python"
#: Those that need no module; the others of this folder skip themselves.
TESTS = "tests/producers/test_bpf_parts.py tests/producers/test_bpf_program.py tests/producers/bpf_programs"
FREEZER = Path("/sys/fs/cgroup/freezer")
_WATCH = """
import os, sys
os.sched_setaffinity(0, {0})
from tests.producers.bpf_programs._programs import Running, until
from tests.producers.bpf_programs.test_hang import RCU_STALL, unpack
running = Running("hang", unpack, threshold_us=1000000)
print("ready", flush=True)
until(lambda: [each for each in running.seen() if each.kind == RCU_STALL], "a stall", 120)
watched = running.finish()
stalls = [each for each in watched.records if each.kind == RCU_STALL]
assert len(stalls) == watched.measures["rcu_stalls"]
print(stalls[0].text.decode(), stalls[0].detail.decode(), flush=True)
"""


@pytest.fixture
def guest(tmp_path, kernel):
    with Vm(tmp_path, "programs", kernel, memory_mib=1024) as made:
        made.booted()
        made.run("mkdir /run/tmp; ip link set lo up; mount -t cgroup2 cgroup2 /sys/fs/cgroup")
        made.run("echo +memory >/sys/fs/cgroup/cgroup.subtree_control; ulimit -n 4096")
        yield made


def test_every_program_passes_its_tests_on_the_kernel_of_debian(guest):
    said = guest.run(f"{PYTHON} -m pytest -q -p no:cacheprovider --basetemp /run/tmp/pytest {TESTS} || true", 600)
    summary = said.strip().splitlines()[-1]
    assert re.fullmatch(r"[.s\s]*\[100%\]|SKIPPED.*", summary), said
    assert "FAILED" not in said and "ERROR" not in said, said
    check = guest.run(f"{PYTHON} -c 'from producers import bpf; print(bpf.check())'", 60)
    assert re.search(r"the kernel takes block-io, hang, irq-off, .*sched-delay", check), check


@contextlib.contextmanager
def frozen(process, thread_name):
    """Let one thread of a process stand still."""
    if not FREEZER.is_dir():
        pytest.skip("needs the freezer of control groups, version 1")
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    (thread,) = [path.name for path in threads if (path / "comm").read_text().strip() == thread_name]
    group = FREEZER / f"hypocenter-{process.pid}"
    group.mkdir()
    try:
        (group / "tasks").write_text(thread)
        (group / "freezer.state").write_text("FROZEN")
        yield
    finally:
        (group / "freezer.state").write_text("THAWED")
        # What it starts meanwhile is born in its group.
        while True:
            for each in (group / "tasks").read_text().split():
                (FREEZER / "tasks").write_text(each)
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


def test_a_grace_period_that_does_not_end_is_told(guest, tmp_path):
    script = tmp_path / "watch.py"
    script.write_text(_WATCH)
    guest.run("echo 3 >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout; echo 0 >/proc/sys/kernel/watchdog")
    guest.run(f"taskset -p 1 $$; {PYTHON} {script} >/run/said 2>&1 &")
    guest.run("until grep -q ready /run/said; do sleep 0.2; done", 60)
    guest.run("taskset 2 sh -c 'while :; do :; done' & taskset 1 sh -c 'while :; do cat /proc/stat; done >/dev/null' &")
    time.sleep(2)
    with frozen(guest.process, "CPU 1/TCG"):
        time.sleep(6)
    guest.run("for i in $(seq 60); do grep -q rcu_ /run/said && break; sleep 0.5; done", 60)
    said = guest.run("cat /run/said")
    assert re.search(r"rcu_\w+ StallDetected", said), said
