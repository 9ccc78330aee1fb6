"""The real trace-cmd: a file that it records of an own tracing instance, and what it says is in one.

In a mount namespace of its own it takes the instance for the machine's tracing, and plain files for the settings of the
function tracer, which some machines do not let anybody write. So it changes nothing outside the instance.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from consumers.decode.ftrace_format import Kind
from tests.consumers.decode import ftrace_kernel

_VALUE = re.compile(r"ARRAY\[([0-9a-f]{2}(?:, [0-9a-f]{2})*|)\]|\s*(\(nil\)|-?[\w.]+(?:\+0x[0-9a-f]+)?)")
_STATS = re.compile(rb"CPU: (\d+)\nentries: \d+\noverrun: (\d+)\n")
_DIGITS = re.compile(r"-?(0x)?[0-9a-f]+")
_FUNCTION_BYTES_MAX = 1 << 16
ROOT = Path(__file__).parents[3]
_HIDE = """
set -e
cd "$1"; echo 1 >one; : >empty
mount --bind "$2" /sys/kernel/tracing
if [ -e /proc/sys/kernel/ftrace_enabled ]; then mount --bind one /proc/sys/kernel/ftrace_enabled; fi
for each in set_ftrace_filter set_ftrace_notrace set_ftrace_pid set_ftrace_notrace_pid; do
  if [ -e /sys/kernel/tracing/$each ]; then mount --bind empty /sys/kernel/tracing/$each; fi
done
shift 2
exec "$@"
"""
_BUSY = "import pathlib, sys; from tests.consumers.decode import ftrace_kernel; ftrace_kernel.busy({}, pathlib.Path(sys.argv[1]))"
_LINE = re.compile(r"\s*(.*?)-(\d+)\s+\[(\d+)\]\s+(\d+)\.(\d{9}): (\w+): +(.*)", re.DOTALL)
_LOST = re.compile(r"CPU:(\d+) \[(\d+) EVENTS DROPPED\]|CPU:(\d+) \[EVENTS DROPPED\]")


def record(directory, events, *, buffer_kib=16384, busy_s=0.2, clock="mono"):
    """Return the path of a file with these events (SYSTEM or SYSTEM/EVENT) of a busy time."""
    if shutil.which("trace-cmd") is None:
        pytest.skip("needs trace-cmd")
    with ftrace_kernel.instance((), buffer_kb=buffer_kib, clock=clock) as path:
        there = [each for each in events if (path / "events" / each / "enable").exists()]
        flags = [word for each in there for word in ("-e", each.replace("/", ":"))]
        load = [sys.executable, "-c", _BUSY.format(busy_s), str(directory)]
        words = ["trace-cmd", "record", "-q", "-C", clock, "-b", str(buffer_kib), "-o", "some.dat", *flags, *load]
        hidden = ["unshare", "-m", "sh", "-c", _HIDE, "sh", str(directory), str(path), *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(hidden, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
    return directory / "some.dat"


def convert(path, name, *flags):
    """Return the file `path` in another form."""
    target = path.with_name(name)
    subprocess.run(
        ["trace-cmd", "convert", *flags, "-i", str(path), "-o", str(target)], check=True, capture_output=True
    )
    return target


def overrun(path):
    """Return by CPU how many events the kernel overwrote, as its own counters in the file say."""
    return {int(cpu): int(count) for cpu, count in _STATS.findall(path.read_bytes())}


def report(path):
    """Return the events of each CPU, (comm, pid, ts_ns, event, text of all fields), and what it says was dropped."""
    done = subprocess.run(["trace-cmd", "report", "-R", "-t", "-i", str(path)], check=True, capture_output=True)
    events, dropped, whole = {}, {}, []
    for line in done.stdout.decode("utf-8", "replace").split("\n")[1:]:
        if _LINE.fullmatch(line) or _LOST.match(line):
            whole.append(line)
        elif whole and line:
            whole[-1] += "\n" + line  # a text with a line break in it
    for line in whole:
        if lost := _LOST.match(line):
            dropped.setdefault(int(lost[1] or lost[3]), []).append(int(lost[2]) if lost[2] else None)
            continue
        comm, pid, cpu, seconds, nanos, event, rest = _LINE.fullmatch(line).groups()
        events.setdefault(int(cpu), []).append((comm, int(pid), int(seconds) * 10**9 + int(nanos), event, rest))
    return events, dropped


class Fields:
    """Holds rows to the raw text of their events, which says every field in order.

    Numbers stand in the base that the event's own text would have, which the raw text does not say: it must be one for
    all values of a field. `kinds` are the kinds and places of the fields compared.
    """

    def __init__(self):
        self.kinds = set()
        self._bases = {}

    def check(self, event, row, rest):
        at = 0
        for i, field in enumerate(event.fields):
            begin = f"{' ' if i else ''}{field.name}="
            where = (event.name, field.name, rest, row)
            assert rest.startswith(begin, at), where
            value = row[f"event_{field.name}" if f"event_{field.name}" in row else field.name]
            match = _VALUE.match(rest, at + len(begin))
            if match and match[1] is not None:
                # A text that cannot be printed is shown as bytes, and so is the field from then on.
                data = bytes(int(each, 16) for each in match[1].split(", ") if each)
                assert as_bytes(field, value) == (data.split(b"\0")[0] if field.kind == Kind.TEXT else data), where
                at = match.end()
            elif field.kind in (Kind.TEXT, Kind.RAW):
                # Bytes that can be printed are shown as text, up to a NUL.
                text = value if field.kind == Kind.TEXT else bytes(value).partition(b"\0")[0].decode()
                assert rest.startswith(text, at + len(begin)), where
                at += len(begin) + len(text)
            else:
                assert match, where
                assert self._number(event, field, int(value) % (1 << 8 * field.size), match[2]), where
                at = match.end()
            self.kinds.add((field.kind, field.place))
        assert rest[at:].strip() == "", (rest, row)

    def _number(self, event, field, value, text):
        digits = _DIGITS.fullmatch(text)
        if text == "(nil)":
            return value == 0
        if not digits:  # a function, with or without the place in it
            name, _, offset = text.partition("+")
            places = {value - address for address in addresses().get(name, ())}
            return int(offset, 0) in places if offset else any(0 <= each < _FUNCTION_BYTES_MAX for each in places)
        bases = self._bases.setdefault((event.name, field.name), {8, 10, 16})
        for base in tuple(bases):
            try:
                said = int(text, base) % (1 << 8 * field.size)
            except ValueError:
                said = None
            if said != value:
                bases.discard(base)
        return bool(bases)


@cache
def addresses():
    found = {}
    for line in Path("/proc/kallsyms").read_text().splitlines():
        address, _, name, *_ = line.split()
        found.setdefault(name, set()).add(int(address, 16))
    return found


def as_bytes(field, value):
    if field.kind == Kind.TEXT:
        return value.encode()
    if field.kind == Kind.INTEGERS:
        return b"".join(
            (each % (1 << 8 * field.element_size)).to_bytes(field.element_size, sys.byteorder) for each in value
        )
    return bytes(value)
