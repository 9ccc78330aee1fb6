"""Child processes and what they cost: a broker, commands of ours, CPU and memory by process id."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from benchmarks.base import Skipped, scratch
from consumers.topics import create_topics
from schemas.kafka_config import KafkaConfig

ROOT: Final = Path(__file__).resolve().parent.parent
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Cost(NamedTuple):
    """CPU (user and system) and the largest resident size of a finished command and its children."""

    cpu_s: float
    rss_mib: float


@contextmanager
def broker() -> Iterator[str]:
    """Give the address of a fresh broker with our topics, one partition each.

    Raises:
        Skipped: there is no Java runtime or no Maven.
    """
    script = _broker_script()
    try:
        script.fetch_jars()
    except script.BrokerError as e:
        raise Skipped(str(e)) from None
    with scratch() as base:
        script.configure(base, script.free_port(), None, None)
        try:
            bootstrap = script.start(base)
            create_topics(KafkaConfig(bootstrap), partitions=1, replication=1)
            yield bootstrap
        finally:
            script.stop(base)


def _broker_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("broker_script", ROOT / "deploy" / "kafka" / "broker.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ours(module: str, *args: str) -> list[str]:
    """Return the command line of one of our programs."""
    return [sys.executable, "-m", module, *args]


def start(command: list[str], **kwargs: object) -> "subprocess.Popen[bytes]":
    """Start a command in the checkout, with its bytecode kept as an installed program has it."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(command, cwd=ROOT, env=env, **kwargs)  # type: ignore[call-overload,no-any-return]


def finish(process: "subprocess.Popen[bytes]") -> Cost:
    """Wait for the end of `process` and return what it cost, its children included.

    Raises:
        CalledProcessError: it failed.
    """
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def tree(pid: int) -> list[int]:
    """Return `pid` and its living descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def cpu_s(pids: list[int]) -> float:
    """Return the CPU that the living threads of processes have used, user and system."""
    return sum(_task_cpu_s(task) for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())


# In ns where the kernel keeps that, else in ticks of usually 10 ms.
def _task_cpu_s(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mib(pids: list[int]) -> float:
    """Return the resident memory of living processes, shared pages counted once for each."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * _PAGE_BYTES / (1 << 20)
