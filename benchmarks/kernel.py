"""Writing to the real kernel log, and an agent that reads it."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.base import Skipped, scratch
from benchmarks.processes import cpu_s, finish, ours, rss_mib, start, tree
from producers.kmsg import newest_seq
from schemas.frame import decode
from schemas.log_cursor import LogCursor
from schemas.surfaces import TOPIC_LOG

_SETTING: Final = Path("/proc/sys/kernel/printk_devkmsg")
_SOURCE: Final = Path(__file__).with_name("kmsg_writer.c")
_WAIT_S: Final = 60.0


class Writer(NamedTuple):
    """The compiled writer; its records carry `tag`."""

    program: Path
    tag: bytes

    def start(self, count: int, rate: int) -> "subprocess.Popen[bytes]":
        """Start writing `count` records, `rate` a second, 0 for as fast as it goes."""
        return start([str(self.program), self.tag.decode(), str(count), str(rate)], stdout=subprocess.PIPE)

    def write(self, count: int, rate: int) -> float:
        """Write and return the seconds it took.

        Raises:
            Skipped: the kernel did not take every record.
        """
        before = newest_seq() or 0
        process = self.start(count, rate)
        out, _ = process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
        if (newest_seq() or 0) - before < count:
            raise Skipped("the kernel did not take every record: somebody else changed kernel.printk_devkmsg")
        return float(out)


@contextmanager
def kernel_log() -> Iterator[Writer]:
    """Let /dev/kmsg take everything that is written, and put its setting back afterwards.

    Raises:
        Skipped: no root, no device, no compiler, or the setting is locked.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if os.geteuid() != 0 or not os.access("/dev/kmsg", os.R_OK | os.W_OK):
        raise Skipped("needs root and a /dev/kmsg that can be read and written")
    if compiler is None:
        raise Skipped("needs a C compiler for the writer")
    before = _SETTING.read_text(encoding="ascii").strip()
    with scratch() as path:
        program = path / "kmsg_writer"
        subprocess.run([compiler, "-O2", "-o", str(program), str(_SOURCE)], check=True)
        _SETTING.write_text("on\n", encoding="ascii")
        try:
            if _SETTING.read_text(encoding="ascii").strip() != "on":
                raise Skipped(f"kernel.printk_devkmsg is locked at {before}")
            yield Writer(program, f"hypocenter-{secrets.token_hex(4)}".encode())
        finally:
            _SETTING.write_text(before + "\n", encoding="ascii")


class Agent:
    """`hypocenter-agent run` as a process, to Kafka or to an embedded log in `root`; everything held is read by now."""

    def __init__(self, root: Path, *, kafka: str | None = None, args: tuple[str, ...] = ()) -> None:
        self.log = root / "log"
        self._kafka = kafka
        self._cursor: LogCursor | None = None
        self._next = 0
        target = ("--kafka", kafka, "--spool", str(self.log)) if kafka else ("--log", str(self.log))
        with (root / "agent.err").open("ab") as errors:
            self.process = start(ours("producers.cli", "run", *target, *args), stderr=errors)
        try:
            self.settle()
        except BaseException:
            self.process.terminate()
            self.process.wait()
            raise

    def pids(self) -> list[int]:
        """Return the agent and its shipper."""
        return tree(self.process.pid)

    def cpu_s(self) -> float:
        """Return the CPU used so far."""
        return cpu_s(self.pids())

    def rss_mib(self) -> float:
        """Return the memory held now."""
        return rss_mib(self.pids())

    def position(self) -> int:
        """Return the kernel's sequence number up to which the log, or Kafka, has everything."""
        return self._acked() if self._kafka else self._durable()

    def settle(self) -> int:
        """Wait until everything that the kernel holds is durable, or acknowledged; return the next position."""
        newest = newest_seq() or 0
        deadline_s = time.monotonic() + _WAIT_S
        while self.position() <= newest:
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError("the agent does not get to the end of the kernel log")
            time.sleep(0.02)
        return self.position()

    def stop(self) -> None:
        """Ask it to stop and wait for it."""
        self.process.send_signal(signal.SIGTERM)
        finish(self.process)
        if self._cursor:
            self._cursor.close()

    def _durable(self) -> int:
        self._cursor = self._cursor or LogCursor(self.log, TOPIC_LOG, 0)
        while entries := self._cursor.read():
            self._next = max(self._next, *(decode(payload).next for _, _, payload in entries))
        return self._next

    def _acked(self) -> int:
        try:
            state = json.loads((self.log / "shipped.json").read_bytes())
        except FileNotFoundError:
            return 0
        return max((entry[-1] for entry in state["streams"]), default=0)
