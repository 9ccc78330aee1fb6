"""An own tracing instance of this kernel: filled, read as text and as raw pages, and removed."""

import ctypes
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from consumers.decode import ftrace_format
from consumers.decode.ftrace_events import PageRun
from consumers.decode.ftrace_print import printk_texts
from producers.ftrace.events import read_printk_formats
from schemas.stream import Stream

TRACEFS = Path("/sys/kernel/tracing")
_LINE = re.compile(r"\s*([^\n]*)-(\d+)\s+\[(\d+)\] (\S{5})\s+(\d+)\.(\d{6}): (\w+)(?:: ?|(?=\())(.*)", re.DOTALL)
_FIRST = re.compile(r"\s*\S.*-\d+\s+\[\d{3}\] \S{5} +\d+\.\d{6}: ")


@contextmanager
def instance(events, buffer_kb=16384, clock="mono"):
    """Give the directory of a new instance with `events` (SYSTEM or SYSTEM/EVENT) enabled."""
    if os.geteuid() != 0 or not (TRACEFS / "instances").is_dir():
        pytest.skip("needs root and tracefs")
    path = TRACEFS / "instances" / f"hypocenter-test-{os.getpid()}-{time.monotonic_ns()}"
    path.mkdir()
    # While a file of it is open, nobody who tidies up can remove it.
    held = os.open(path / "tracing_on", os.O_RDONLY)
    try:
        (path / "trace_clock").write_text(clock)
        (path / "buffer_size_kb").write_text(str(buffer_kb))
        for event in events:
            if (path / "events" / event / "enable").exists():
                (path / "events" / event / "enable").write_text("1")
        yield path
    finally:
        (path / "tracing_on").write_text("0")
        (path / "events" / "enable").write_text("0")
        os.close(held)
        path.rmdir()


@contextmanager
def probe(function, arguments):
    """Give the function of libc, and the name (SYSTEM/EVENT) of an event for each call of it: a uprobe."""
    register = {"x86_64": "%di", "aarch64": "%x0"}.get(platform.machine())
    if os.geteuid() != 0 or register is None or not (TRACEFS / "uprobe_events").exists():
        pytest.skip("needs root and uprobes")
    called = getattr(ctypes.CDLL(None), function)
    address = ctypes.cast(called, ctypes.c_void_p).value
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, offset, _, _, *name = line.split(maxsplit=5)
        start, end = (int(each, 16) for each in span.split("-"))
        if start <= address < end:
            place = f"{name[0]}:{address - start + int(offset, 16):#x}"
    group = f"hypocenter_test_{os.getpid()}"
    # Opened otherwise, it forgets the probes of others.
    told = os.open(TRACEFS / "uprobe_events", os.O_WRONLY | os.O_APPEND)
    os.write(told, f"p:{group}/{function} {place} {arguments.format(register=register)}\n".encode())
    try:
        yield called, f"{group}/{function}"
    finally:
        os.write(told, f"-:{group}/{function}\n".encode())
        os.close(told)


def formats(path, *others):
    """Return the formats of everything that is enabled in the instance, and of `others` (SYSTEM:EVENT)."""
    found, texts = [], printk_texts(read_printk_formats(TRACEFS))
    for line in (*(path / "set_event").read_text().split(), *others):
        system, _, name = line.partition(":")
        found.append(ftrace_format.parse((path / "events" / system / name / "format").read_text(), system, 8, texts))
    return ftrace_format.formats(ftrace_format.parse_header((path / "events" / "header_page").read_text()), found)


def cpus(path):
    return sorted(int(each.name.removeprefix("cpu")) for each in (path / "per_cpu").iterdir())


def stats(path, cpu):
    text = (path / "per_cpu" / f"cpu{cpu}" / "stats").read_text()
    return {name: int(value) for name, value in re.findall(r"^([a-z ]+): (\d+)$", text, re.MULTILINE)}


def pages(path, cpu, page_bytes=4096, most=1 << 30):
    """Return up to `most` raw pages of one CPU; they are gone from the ring then."""
    found = []
    fd = os.open(path / "per_cpu" / f"cpu{cpu}" / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while len(found) < most and (data := _read(fd, page_bytes)):
            assert len(data) == page_bytes
            found.append(data)
    finally:
        os.close(fd)
    return found


def _read(fd, size):
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return b""


def run(cpu, data, page_bytes=4096, first_page=0):
    stream = Stream("machine", "b" * 32, "guest-kernel", "ftrace", f"test/cpu{cpu}", "mono")
    return PageRun(stream, cpu, first_page, page_bytes, b"".join(data))


def text(path, cpu):
    """Yield (comm, pid, cpu, context, ts_us, event, rest) for each event in the kernel's own text."""
    data = (path / "per_cpu" / f"cpu{cpu}" / "trace").read_bytes().decode("utf-8", "replace")
    whole = []
    for line in data.split("\n"):
        # Events with a newline in them go on below.
        if _FIRST.match(line):
            whole.append(line)
        elif whole and line and not line.startswith(("#", "CPU:")):
            whole[-1] += "\n" + line
    for line in whole:
        match = _LINE.fullmatch(line)
        assert match, line
        comm, pid, on, context, seconds, micros, event, rest = match.groups()
        if rest.startswith("("):  # A system call's own event is shown as a call.
            event = event.replace("sys_", "sys_enter_", 1)
        yield comm, int(pid), int(on), context, int(seconds) * 10**6 + int(micros), event, rest


def busy(seconds, directory):
    """Make a bit of everything happen: processes, files, timers, packets, memory."""
    end = time.monotonic() + seconds
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while time.monotonic() < end:
        subprocess.run([sys.executable, "-S", "-c", "pass"], check=True)
        for i in range(20):
            path = directory / f"file {i}"
            with path.open("wb") as file:
                file.write(os.urandom(50_000))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
            client.sendto(b"x" * 100, server.getsockname())
            server.recv(200)
        thread = threading.Timer(0.001, lambda: None)
        thread.start()
        thread.join()
    server.close()
    client.close()
