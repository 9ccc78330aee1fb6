"""A tracefs instance of our own: made, set up, started, frozen, removed; or taken over from an agent that died.

Everything in `instances/hypocenter-<set>-<pid>` is ours, and nothing else on the machine is touched. The owner holds
flock(2) on the directory: the kernel lets go of it when the owner dies, in whatever namespace it lived.
Source: Documentation/trace/ftrace.rst (instances), Documentation/trace/events.rst (filters, error_log).
"""

import contextlib
import errno
import fcntl
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from producers.ftrace import events as ftrace_events
from producers.ftrace import pages
from schemas import ftrace
from schemas.config import TraceSet
from schemas.errors import AccessError, UsageError

log = logging.getLogger(__name__)
PREFIX: Final = "hypocenter-"
_NAME: Final = re.compile(PREFIX + r"([a-z0-9_]{1,32})-\d{1,10}(?:-\d{1,2})?")
#: How much of the memory that is available all rings of a set may take.
_MEMORY_SHARE: Final = 0.5
_MEMINFO: Final = Path("/proc/meminfo")
#: How full a ring is, in percent, when its reader is woken: the rest is headroom for the reader's own delay.
_WAKE_PERCENT: Final = 25
_NAMES_MAX: Final = 100
_REMOVE_TRIES: Final = 20


class Instance:
    """An instance at `path`, locked by the descriptor `lock`; `set_name` is the set whose events it records."""

    def __init__(self, path: Path, lock: int, set_name: str) -> None:
        self.path = path
        self.set_name = set_name
        self._lock = lock
        self.clock = ""
        self.events: list[str] = []
        self.filters: dict[str, str] = {}
        self.header_page = ""
        #: The hash of the description that pages cut now must name; None until one was cut.
        self.descriptor: bytes | None = None

    def inspect(self) -> None:
        """Read what the ring's pages look like.

        Raises:
            AccessError: pages of this kernel have a layout that nobody knows.
        """
        self.clock = current_clock(self.read("trace_clock"))
        self.header_page = self.read("events/header_page")
        try:
            self.layout = pages.geometry(self.header_page)
        except ValueError as e:
            raise AccessError(f"the rings of this kernel cannot be read: {e}") from None

    def formats(self) -> ftrace.Formats:
        """Read the description of the events of the set, and of those that the kernel itself puts into any ring."""
        return ftrace.Formats(
            header_page=self.header_page,
            clock=self.clock,
            page_bytes=self.layout.page_bytes,
            byteorder=sys.byteorder,
            word_bytes=self.layout.commit_bytes,
            events=ftrace_events.read_formats(self.path / "events", self.events),
            printk_formats=ftrace_events.read_printk_formats(self.path.parents[1]),
        )

    def cpus(self) -> list[int]:
        """Return the numbers of all CPUs that can ever be, whether they are there now or not."""
        return sorted(int(path.name.removeprefix("cpu")) for path in (self.path / "per_cpu").iterdir())

    def read(self, name: str) -> str:
        """Return the content of one file."""
        return (self.path / name).read_text(encoding="utf-8", errors="replace")

    def write(self, name: str, text: str) -> None:
        """Set the content of one file by one system call: the kernel takes each as a command."""
        fd = os.open(self.path / name, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def start(self) -> None:
        """Record from now on."""
        self.write("tracing_on", "1")

    def freeze(self) -> None:
        """Record nothing more; what the rings hold stays."""
        self.write("tracing_on", "0")

    def kernel_says(self) -> str:
        """Return the newest entry of the instance's error log as one line, empty where there is none."""
        try:
            lines = self.read("error_log").splitlines()
        except OSError:
            return ""
        starts = [at for at, line in enumerate(lines) if re.match(r"\[ *\d+\.\d+\] ", line)]
        if not starts:
            return ""
        first, *rest = lines[starts[-1] :]
        said = re.sub(r"^\[ *\d+\.\d+\] ", "", first)
        # Lines of the form "  Command: TEXT" and a caret below what the kernel stumbled over.
        command = next((line.partition("Command: ")[2] for line in rest if "Command: " in line), "")
        caret = next((line.index("^") for line in rest if line.strip() == "^"), None)
        at = caret - len("  Command: ") if caret is not None else None
        return f"{said}, at {command[at:]!r}" if at is not None and 0 <= at < len(command) else said

    def let_go(self) -> None:
        """Leave it as it is, for the next agent; idempotent."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def remove(self) -> None:
        """Remove it; where somebody still reads it, it stays for the next agent and is said."""
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            self.freeze()
        for _ in range(_REMOVE_TRIES):
            try:
                self.path.rmdir()
            except FileNotFoundError:
                break
            except OSError as e:
                why = e
                if e.errno != errno.EBUSY:
                    log.error("%s stays, the next agent takes it: %s", self.path.name, e.strerror)  # noqa: TRY400
                    break
                time.sleep(0.01)
            else:
                break
        else:
            log.error("%s stays, the next agent takes it: %s", self.path.name, why.strerror)
        self.let_go()


def create(tracefs: Path, wanted: TraceSet) -> Instance:
    """Return a new instance that is set up as `wanted` says and records nothing yet.

    Raises:
        UsageError: the kernel refuses a setting; the message has its own words and the nearest valid name.
        AccessError: instances cannot be made.
    """
    made = _make(tracefs / "instances", wanted.name)
    with contextlib.ExitStack() as undo:
        undo.callback(made.remove)
        made.freeze()
        with _refused(f"ftrace set {wanted.name}: "):
            _set_up(made, wanted)
        undo.pop_all()
    return made


def left_over(tracefs: Path) -> Iterator[Instance]:
    """Yield the instances whose owners are dead, locked, as they are: also those that ran under other settings."""
    for path in sorted((tracefs / "instances").iterdir()):
        match = _NAME.fullmatch(path.name)
        lock = _lock(path) if match else None
        if match and lock is not None:
            found = Instance(path, lock, match[1])
            try:
                found.inspect()
                found.events = sorted(line.strip() for line in found.read("set_event").splitlines() if ":" in line)
            except (OSError, AccessError) as e:
                log.warning("%s is left as it is: %s", path.name, e)
                found.let_go()
            else:
                yield found


def current_clock(text: str) -> str:
    """Return the clock that the text of `trace_clock` has in brackets."""
    match = re.search(r"\[([^\]]+)\]", text)
    return match[1] if match else ""


def verify_clock(clock: str, text: str) -> None:
    """Verify that `clock` is one of those in the text of `trace_clock`.

    Raises:
        UsageError: it is not.
    """
    clocks = text.replace("[", "").replace("]", "").split()
    if clock not in clocks:
        near = ftrace_events.nearest(clock, clocks)
        raise UsageError(f"no clock {clock!r}; the nearest is {near}, there is: {', '.join(clocks)}")


def _make(folder: Path, set_name: str) -> Instance:
    name = f"{PREFIX}{set_name}-{os.getpid()}"
    for number in range(_NAMES_MAX):
        path = folder / (f"{name}-{number}" if number else name)
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as e:
            raise AccessError(f"cannot make {path} ({e.strerror}): run as root") from None
        lock = _lock(path)
        if lock is not None:  # else another agent that starts now took it for a left-over, and removes it
            return Instance(path, lock, set_name)
    raise AccessError(f"{folder} holds {_NAMES_MAX} instances named like {name}")


# None where somebody else holds it, or it is gone.
def _lock(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(fd).st_ino:
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _set_up(made: Instance, wanted: TraceSet) -> None:
    if wanted.subbuf_kib is not None:
        _set_sub_buffers(made, wanted.subbuf_kib)
    verify_clock(wanted.clock, made.read("trace_clock"))
    made.write("trace_clock", wanted.clock)
    made.write("options/overwrite", "1")  # inherited from whatever the top level says
    if (made.path / "buffer_percent").exists():
        made.write("buffer_percent", str(_WAKE_PERCENT))
    _check_memory(wanted.buffer_kib_per_cpu)
    try:
        made.write("buffer_size_kb", str(wanted.buffer_kib_per_cpu))
    except OSError as e:
        raise UsageError(f"buffer_kib_per_cpu = {wanted.buffer_kib_per_cpu}: the kernel says {e.strerror}") from None
    made.inspect()
    names = ftrace_events.names(made.path / "events")
    made.events = ftrace_events.resolve(wanted.events, names)
    made.filters = ftrace_events.resolve_filters(wanted.filters, made.events)
    for event in made.events:
        enable(made, event)


def _set_sub_buffers(made: Instance, subbuf_kib: int) -> None:
    name = "buffer_subbuf_size_kb"
    if not (made.path / name).exists():
        raise UsageError(f"subbuf_kib = {subbuf_kib}: the sub-buffers of this kernel have one size")
    with contextlib.suppress(OSError):
        made.write(name, str(subbuf_kib))
    if int(made.read(name)) != subbuf_kib:
        raise UsageError(f"subbuf_kib = {subbuf_kib}: the kernel takes {made.read(name).strip()}")


# The kernel tries hard, for minutes and to the last page, before it refuses by itself.
def _check_memory(kib_per_cpu: int) -> None:
    match = re.search(r"^MemAvailable: +(\d+) kB", _MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
    wanted_kib, most_kib = kib_per_cpu * (os.cpu_count() or 1), int(match[1]) * _MEMORY_SHARE if match else math.inf
    if wanted_kib > most_kib:
        raise UsageError(
            f"buffer_kib_per_cpu = {kib_per_cpu}: {wanted_kib >> 10} MiB for all CPUs are too much, "
            f"{int(most_kib) >> 10} MiB are half of what is available"
        )


def enable(made: Instance, event: str) -> None:
    """Record `event` (`system:name`), through its filter where it has one.

    Raises:
        UsageError: the kernel refuses the filter, or the event.
    """
    folder = f"events/{event.replace(':', '/')}"
    expression = made.filters.get(event)
    if expression is not None:
        try:
            made.write(f"{folder}/filter", expression)
        except OSError as e:
            said = made.kernel_says() or e.strerror
            fields = ftrace_events.field_names(made.read(f"{folder}/format"))
            hint = ftrace_events.field_hint(expression, fields)
            raise UsageError(f"filter {event}={expression}: {said}{hint}") from None
        # "0" removes the filter, and every event is recorded.
        if made.read(f"{folder}/filter").strip() == "none":
            raise UsageError(f"filter {event}={expression}: the kernel takes that for no filter at all")
    try:
        made.write(f"{folder}/enable", "1")
    except OSError as e:
        raise UsageError(f"event {event}: the kernel says {made.kernel_says() or e.strerror}") from None


@contextlib.contextmanager
def _refused(where: str) -> Iterator[None]:
    try:
        yield
    except UsageError as e:
        raise UsageError(f"{where}{e}") from None
    except OSError as e:
        raise AccessError(f"{where}{e.filename or 'tracefs'}: {e.strerror}") from None
