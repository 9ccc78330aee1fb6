"""The guest of the other tests: what its commands give back, what it can and cannot touch, and that it ends."""

from pathlib import Path

import pytest

from tests.guest._kernel import SERIES
from tests.guest._vm import Vm

pytestmark = pytest.mark.guest


def test_a_command_gives_its_exit_code_and_every_byte_it_prints(guest):
    done = guest.try_run("printf 'a\\0b\\n'; echo c >&2; exit 3")
    assert (done.code, done.output) == (3, b"a\0b\nc\n")
    # More than the 32 KiB that a write to the port takes at once.
    assert guest.try_run("head -c 3000000 /dev/zero").output == bytes(3_000_000)
    assert guest.run("") == ""
    with pytest.raises(AssertionError, match=r"(?s)exit code 1 in the guest: false"):
        guest.run("false")


def test_it_runs_its_own_kernel_on_the_files_of_this_machine(guest, kernel):
    assert guest.run("uname -r").strip() == kernel.release
    assert kernel.release.startswith(SERIES)
    assert guest.run("cat /etc/debian_version") == Path("/etc/debian_version").read_text()
    assert guest.run("cat /proc/sys/kernel/random/boot_id") != Path("/proc/sys/kernel/random/boot_id").read_text()
    assert "Read-only file system" in guest.try_run(f"touch {Path(__file__).parent}/written").text
    assert guest.run("echo kept >/run/tmp/x; cat /run/tmp/x; rm /run/tmp/x") == "kept\n"


def test_the_monitor_answers_and_tells_events(guest):
    guest.qmp.command("stop")
    assert guest.qmp.event("STOP")["timestamp"]["seconds"] > 0
    guest.qmp.command("cont")
    assert guest.qmp.command("query-status")["status"] == "running"
    with pytest.raises(AssertionError, match="QMP no-such-command"):
        guest.qmp.command("no-such-command")


_PATCH = """
echo 2 >/proc/sys/kernel/watchdog_thresh
cd /sys/kernel/tracing/events
for cpu in 1 2; do
  (exec >/dev/null; taskset $cpu bash -c 'while :; do cat /proc/self/stat; done') &
done
for ((until = SECONDS + 10; SECONDS < until;)); do
  for on in 1 0; do
    for system in kmem raw_syscalls sched signal task timer; do echo $on >$system/enable; done
  done
done
kill $(jobs -p)
echo 10 >/proc/sys/kernel/watchdog_thresh
dmesg | grep 'soft lockup' || :
"""


def test_a_kernel_that_patches_itself_under_load_stays_alive(guest):
    assert guest.run(_PATCH, timeout_s=60) == ""


def test_a_command_that_does_not_end_ends_the_guest_and_a_guest_leaves_nothing(kernel, tmp_path):
    before = set(Path("/proc/self/fd").iterdir())
    with Vm(tmp_path, kernel) as made:
        made.booted()
        made.run("echo '<2>a word for the console' >/dev/kmsg; sync")
        with pytest.raises(AssertionError, match=r"(?s)failed within 1 s: sleep 100.*a word for the console"):
            made.run("sleep 100", timeout_s=1)
        assert made.process.poll() is not None
    assert set(Path("/proc/self/fd").iterdir()) == before
