"""The BPF programs on the oldest kernel that they are held to, which takes other parts of them than this machine's."""

import os
import re
import time

import pytest

from producers.bpf import program
from tests.guest._disturb import frozen
from tests.guest._python import PYTHON
from tests.guest._vm import Vm
from tests.producers.bpf._bpf import skip_unless_loadable
from tests.producers.bpf_programs.test_hang import ALWAYS

pytestmark = pytest.mark.guest
#: Those that need no module of the kernel's. The four left out compare times, which emulation on a busy machine moves
#: between the two readings, or some minute's worth of events.
FOLDER = "tests/producers/bpf_programs"
LEFT_OUT = (
    f"{FOLDER}/test_irq_off.py::test_every_span_is_that_of_its_trace_events",
    f"{FOLDER}/test_irq_off.py::test_only_what_ran_longer_than_the_threshold_is_a_record",
    f"{FOLDER}/test_sched_delay.py::test_the_waits_are_as_long_as_the_trace_tells",
    f"{FOLDER}/test_block_io.py::test_requests_are_those_that_trace_events_tell_in_all_their_parts",
)
OTHERS = ("tests/producers/bpf/test_parts.py", "tests/producers/bpf/test_hooks.py")
TESTS = " ".join([*OTHERS, FOLDER, *(f"--deselect {each}" for each in LEFT_OUT)])
_ATTACH = """
import ctypes, sys, time
from producers.bpf.program import Program
libbpf = ctypes.CDLL("libbpf.so.1")
programs = lambda: [at.value for at in [ctypes.c_uint32(0)] if not libbpf.bpf_prog_get_next_id(0, ctypes.byref(at))]
assert not programs()
for name in sys.argv[1:]:
    program = Program(name, 4096, {})
    program.attach()
    program.run_own(0.0)
    assert programs()
    program.close()
    deadline = time.monotonic() + 20
    while programs():
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.05)
    print(name, *program.active)
"""
_WATCH = """
import os
from tests.producers.bpf_programs._programs import Running, until
from tests.producers.bpf_programs.test_hang import unpack
RCU_STALL = 1
os.sched_setaffinity(0, {0})
running = Running("hang", unpack, threshold_us=1000000)
print("ready", flush=True)
until(lambda: [each for each in running.seen() if each.kind == RCU_STALL], "a stall", 120)
watched = running.finish()
stalls = [each for each in watched.records if each.kind == RCU_STALL]
assert len(stalls) == watched.measures["rcu_stalls"]
print(stalls[0].text.decode(), stalls[0].detail.decode(), flush=True)
"""

#: Threads that live for a moment, each to be followed from its first switch on, while pages are reclaimed all the time.
_NEW_THREADS = """
import _thread, time
from producers.bpf.program import Program
program = Program("sched-delay", 65536, {})
program.attach()
_thread.stack_size(65536)
made, deadline = 0, time.monotonic() + 30
while time.monotonic() < deadline:
    for _ in range(1000):
        _thread.start_new_thread(time.sleep, (0.2,))
    while _thread._count():
        time.sleep(0.01)
    made += 1000
    program.run_own(time.monotonic())
assert sum(program.measures()["wait_ns"]) >= made
print(sum(each.untracked for each in program.counts()), made)
program.close()
"""
#: Reads that their host takes none of for three seconds; each CPU has a queue of its own, and the second one's is not
#: even asked.
_BUSY_HOST = """
import mmap, os, threading, time
from pathlib import Path
from tests.producers.bpf_programs._programs import Running
from tests.producers.bpf_programs.test_block_io import unpack
(name,) = (each.name for each in Path("/sys/block").iterdir() if each.name.startswith("sd"))
debug = Path("/sys/bus/pseudo/drivers/scsi_debug")
Path(f"/sys/block/{name}/queue/scheduler").write_text("none")
def read(block):
    os.sched_setaffinity(0, {block % 2})
    fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_DIRECT)
    os.preadv(fd, [mmap.mmap(-1, 4096)], block * 65536)
    os.close(fd)
running = Running("block-io", unpack, threshold_us=500_000)
debug.joinpath("opts").write_text("0x8000")
debug.joinpath("every_nth").write_text("1")
threads = [threading.Thread(target=read, args=(block,)) for block in range(4)]
for each in threads:
    each.start()
    time.sleep(0.1)
time.sleep(3)
debug.joinpath("every_nth").write_text("0")
for each in threads:
    each.join()
found = [each for each in running.finish().records if each.disk.split(b"\\0")[0] == name.encode()]
for block in range(4):
    mine = [each for each in found if each.sector == block * 128]
    begun = {each.ts_ns - each.queued_ns - each.service_ns for each in mine}
    ended = [each for each in mine if each.state == 0]
    print(block, len(mine) - len(ended), len(begun), *(each.queued_ns // 1_000_000_000 for each in ended))
"""


@pytest.fixture(autouse=True)
def built():
    skip_unless_loadable()


def test_every_program_loads_attaches_and_leaves_nothing_in_the_kernel(guest):
    said = guest.run(f"{PYTHON} - {' '.join(program.names())} <<'END'{_ATTACH}END")
    active = {name: set(parts) for name, *parts in map(str.split, said.splitlines())}
    assert sorted(active) == sorted(program.names())
    assert active["hang"] >= ALWAYS
    assert active["block-io"] == {"block_rq_insert", "block_rq_issue", "block_rq_merge", "block_rq_requeue"}
    check = guest.run(f"{PYTHON} -m producers.cli check")
    assert re.search(r"^bpf +available: the kernel takes block-io, hang.*, irq-off, sched-delay", check, re.MULTILINE)


def test_every_program_passes_its_own_tests(guest):
    guest.run("echo +memory >/sys/fs/cgroup/cgroup.subtree_control")
    # Outside of CI, because there a test is not to skip what this guest lacks.
    said = guest.run(
        f"unset CI; ulimit -n 4096; {PYTHON} -m pytest -q -p no:cacheprovider --basetemp /run/tmp/pytest {TESTS}", 600
    )
    assert re.search(r"^\.[.s]+ +\[100%\]$", said, re.MULTILINE), said


@pytest.fixture
def guest_of_threads(kernel, tmp_path):
    """A guest one of whose CPUs can be frozen."""
    with Vm(tmp_path, kernel) as made:
        yield made.booted()


def test_a_grace_period_that_a_frozen_cpu_holds_up_is_told(guest_of_threads):
    guest = guest_of_threads
    guest.run("echo 3 >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout; echo 0 >/proc/sys/kernel/watchdog")
    guest.run(f"({PYTHON} - <<'END'{_WATCH}END\n) >/run/said 2>&1 & echo $! >/run/watcher")
    guest.run(
        "until grep -q ready /run/said; do sleep 0.1; kill -0 $(cat /run/watcher) || { cat /run/said; exit 1; }; done"
    )
    guest.run("exec >/dev/null; taskset 2 bash -c 'while :; do :; done' & echo $! >/run/busy")
    # Without a grace period under way nothing can stall.
    guest.run("exec >/dev/null; (while :; do cat /proc/stat; done) & echo $! >>/run/busy")
    until_on_cpu_1(guest)
    with frozen(guest.process, "CPU 1/TCG"):
        time.sleep(6)
    guest.run("for i in {1..600}; do grep -q 'rcu_\\|Error' /run/said && break; sleep 0.1; done", 90)
    guest.run("kill $(cat /run/busy)")
    said = guest.run("cat /run/said")
    assert re.search(r"rcu_\w+ StallDetected", said), said


def test_a_guest_that_is_short_of_memory_goes_on_beside_sched_delay(kernel, tmp_path):
    (tmp_path / "disk").touch()
    os.truncate(tmp_path / "disk", 1 << 30)
    drive = ("-drive", f"file={tmp_path / 'disk'},if=virtio,format=raw")
    with Vm(tmp_path, kernel, memory_mib=400, arguments=drive) as vm:
        guest = vm.booted()
        guest.run("exec >/dev/null 2>&1; (while :; do cat /dev/vda; done) & echo $! >/run/reader")
        untracked, made = map(int, guest.run(f"{PYTHON} - <<'END'{_NEW_THREADS}END", 120).split())
        assert (untracked, made > 10_000) == (0, True)
        woken = int(guest.run("awk '/^pageoutrun/ {print $2}' /proc/vmstat; kill $(cat /run/reader)"))
        assert woken > 100


def test_requests_that_a_busy_host_does_not_take_are_open_from_their_first_try_on(kernel, tmp_path):
    (*_, module) = kernel.modules(["scsi_debug"])
    with Vm(tmp_path, kernel, memory_mib=1024, modules=("sd_mod", "scsi_debug"), in_turns=True) as vm:
        vm.booted().run(
            f"busybox rmmod scsi_debug; busybox insmod {module} submit_queues=2; sleep 2; ls /sys/block/sd*/mq/1"
        )
        said = vm.run(f"{PYTHON} - <<'END'{_BUSY_HOST}END", 120)
    for block, line in enumerate(said.splitlines()):
        number, looks, begun, *queued_s = map(int, line.split())
        assert (number, begun, len(queued_s)) == (block, 1, 1), said
        assert looks >= 2, said
        assert queued_s[0] >= 2, said


# Until it has run there for a while, not merely been started.
def until_on_cpu_1(guest):
    guest.run("until (($(awk '/^cpu1 /{print $2}' /proc/stat) > 50)); do sleep 0.1; done")
