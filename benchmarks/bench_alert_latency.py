"""From the kernel's own print of a hung task to Alertmanager's notification, through a real Kafka.

This machine's kernel reports the task itself: it writes into a file system that is frozen for some seconds, and the
time after which the kernel says so is lowered meanwhile. The moment of the print is the record's own, on printk's
clock, which is read against CLOCK_MONOTONIC. Agent, broker, alerter and Alertmanager are processes of their own; the
notification is later than what is asked for, that Alertmanager has the alert.
"""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.base import Options, Reach, Row, Skipped, log, percentile, scratch
from benchmarks.processes import broker, finish, ours, start
from producers.printk_clock import PrintkClock
from tests.consumers.alerts._cases import Alertmanager

_SETTINGS: Final = Path("/proc/sys/kernel")
_LOWERED: Final = {"hung_task_timeout_secs": 1, "hung_task_check_interval_secs": 1, "hung_task_warnings": -1}
_DISK_BYTES: Final = 32 << 20
_WAIT_S: Final = 60.0
#: Behind a thaw, before the next task: an incident of its own.
_APART_S: Final = 12.0
_WRITE: Final = "import sys; open(sys.argv[1], 'wb').write(b'x')"


def run(options: Options) -> list[Row]:
    """Return median and 99th percentile, in ms."""
    if os.geteuid() != 0 or not (_SETTINGS / "hung_task_timeout_secs").exists():
        raise Skipped("needs root and a kernel that looks for hung tasks")
    count = 4 if options.quick else 30
    with scratch() as root, _lowered(), _disk(root) as disk, broker() as bootstrap, _pipeline(root, bootstrap) as pages:
        waits_ms = [_wait_ms(disk / "file", pages) for _ in range(count)]
    log(f"  {', '.join(f'{each:.1f}' for each in waits_ms)} ms")
    how = f"{count} hung tasks of this kernel; agent, Kafka, alerter and Alertmanager, to its notification"
    return [
        Row("kernel print to notification, median", [percentile(waits_ms, 50)], "ms", None, how),
        Row("kernel print to notification, p99", [percentile(waits_ms, 99)], "ms", Reach(100, inclusive=False), how),
    ]


@contextlib.contextmanager
def _lowered() -> Iterator[None]:
    before = {name: (_SETTINGS / name).read_text() for name in _LOWERED}
    try:
        for name, value in _LOWERED.items():
            (_SETTINGS / name).write_text(str(value))
        yield
    finally:
        for name, text in before.items():
            (_SETTINGS / name).write_text(text)


@contextlib.contextmanager
def _disk(root: Path) -> Iterator[Path]:
    image, mounted = root / "disk", root / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(_DISK_BYTES)
    with contextlib.ExitStack() as stack:
        for command in (["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(mounted)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Skipped(f"{command[0]}: {done.stderr.strip()}")
        stack.callback(subprocess.run, ["umount", str(mounted)], check=True)
        yield mounted


class _Pages:
    """Notifications, by the process that is in them."""

    def __init__(self, alertmanager: Alertmanager) -> None:
        self._alertmanager = alertmanager

    def of(self, pid: int) -> float | None:
        """Return when that of `pid` came, by CLOCK_MONOTONIC in s."""
        for at_s, body in list(self._alertmanager.came):
            if any(str(pid) in str(each["annotations"]) for each in body["alerts"]):
                return float(at_s)
        return None


@contextlib.contextmanager
def _pipeline(root: Path, bootstrap: str) -> Iterator[_Pages]:
    folder = root / "alertmanager"
    folder.mkdir()
    route = "{receiver: hook, group_by: [incident_id], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}"
    alertmanager = Alertmanager(folder, f"route: {route}\n")
    with contextlib.ExitStack() as stack:
        stack.callback(alertmanager.close)
        alertmanager.came = []
        answer = alertmanager.hook.answer

        def noting(body: object) -> object:
            alertmanager.came.append((time.monotonic(), body))
            return answer(body)

        alertmanager.hook.answer = noting
        alertmanager.start()
        words = ("--surface", "kmsg", "--kafka", bootstrap, "--spool", str(root / "spool"), "--metrics", "off")
        for command in (
            ours("producers.cli", "run", *words),
            ours("consumers.cli", "alert", "--lake", str(root / "lake"), "--kafka", bootstrap, "--metrics", "off",
                 "--alertmanager", alertmanager.url),
        ):  # fmt: skip
            process = start(command, stderr=subprocess.DEVNULL)
            stack.callback(finish, process)
            stack.callback(process.terminate)
        time.sleep(5.0)
        yield _Pages(alertmanager)


def _wait_ms(path: Path, pages: _Pages) -> float:
    subprocess.run(["fsfreeze", "--freeze", str(path.parent)], check=True)
    try:
        writing = subprocess.Popen([sys.executable, "-c", _WRITE, str(path)])
        printed_ns = _printed_ns(writing.pid)
        deadline_s = time.monotonic() + _WAIT_S
        while (came_s := pages.of(writing.pid)) is None:
            if time.monotonic() > deadline_s:
                raise Skipped(f"no page of process {writing.pid} within {_WAIT_S:.0f} s")
            time.sleep(0.05)
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(path.parent)], check=True)
    writing.wait()
    time.sleep(_APART_S)
    return (came_s * 1e9 - printed_ns) / 1e6


# When the kernel printed that the task hangs, on CLOCK_MONOTONIC.
def _printed_ns(pid: int) -> float:
    wanted = re.compile(rb"^\d+,\d+,(\d+),.*INFO: task .*:%d blocked" % pid)
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    clock = PrintkClock()
    try:
        deadline_s = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline_s:
            try:
                record = os.read(fd, 8192)
            except BlockingIOError:
                time.sleep(0.05)
                continue
            except BrokenPipeError:
                continue
            found = wanted.match(record)
            reading = clock.read() if found else None
            if found and reading:
                return int(found[1]) * 1000 + reading.monotonic_ns - reading.printk_ns
    finally:
        clock.close()
        os.close(fd)
    raise Skipped(f"the kernel says nothing of process {pid}")
