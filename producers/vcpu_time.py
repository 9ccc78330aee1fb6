"""The surface `vcpu-time`: what the host's scheduler gave to each VM's threads, once a second.

Records of the kind `vcpu_time` are of vCPUs, those of `vmm_thread_time` of threads beside them (`vmm_threads.py`), and
those of `vcpu_exits` how often KVM left all vCPUs of a VM, where that can be read (`kvm_exits.py`).

For each thread three files stay open, and a sample reads them again: `schedstat` (time on a CPU, time waiting for one,
and how often it got one: Documentation/scheduler/sched-stats.rst), `status` (state, switches: proc_pid_status(5)) and
`stat` (the CPU it last ran on). A file that is open belongs to its thread alone: when that is gone a read fails, also
where another thread has its number.
"""

import contextlib
import errno
import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from producers import hidden, kvm_exits, vms
from producers.registry import Opening
from producers.source import Source
from producers.state_source import StateSource
from producers.topology import boottime_ns
from producers.topology import check as check_vms
from producers.vmm_threads import THREADS_MAX
from producers.vms import VCPUS_MAX, Finder, Thread, Vm
from schemas.errors import AccessError
from schemas.state import Record
from schemas.stream import Layer, Stream

SURFACE: Final = "vcpu-time"
CLOCK: Final = "boot"
VCPU_KIND, HELPER_KIND, EXITS_KIND = "vcpu_time", "vmm_thread_time", "vcpu_exits"
#: A dozen files of each VM: read no more often, however often threads are sampled.
_EXITS_NS: Final = 1_000_000_000
_FILES: Final = ("schedstat", "status", "stat")
_FILE_BYTES: Final = 4096
#: Descriptors for all else in this process where it may have as many; and of few those that are left free, or half of
#: them: without one the log gets no new segment, and a BPF program is not run.
_FDS_OF_OTHERS, _FDS_FREE = 1024, 128
_STATE: Final = b"\nState:\t"
_SWITCHES: Final = re.compile(rb"\nvoluntary_ctxt_switches:\t(\d+)\nnonvoluntary_ctxt_switches:\t(\d+)")
_SCHEDSTAT: Final = Path("/proc/self/schedstat")


def open_sources(opening: Opening) -> list[Source]:
    """Return the one source, which takes a sample of all threads every `vcpu_interval_s`."""
    identity, config = opening.identity, opening.config.vms
    hidden.warn(SURFACE, "VMs")
    stream = Stream(identity.machine, identity.boot_id, Layer.HOST, SURFACE, "", CLOCK)
    known = opening.known.get(stream)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FDS_OF_OTHERS + len(_FILES) * (VCPUS_MAX + THREADS_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, wanted)), hard))
    sampler = Sampler(vms.shared(config), boottime_ns)
    position, interval_s = known.next if known else 0, config.vcpu_interval_s
    return [VcpuSource(stream, position, sampler, interval_s)]


def check() -> str:
    """Return how many vCPUs run here now, and whether exits can be read.

    Raises:
        AccessError: the kernel does not keep the times of threads.
    """
    if not _SCHEDSTAT.exists():
        raise AccessError(f"this kernel has no {_SCHEDSTAT} (CONFIG_SCHED_INFO), which has the times of threads")
    return f"{check_vms()}; {kvm_exits.told()}"


class _Open(NamedTuple):
    """A thread whose files are open: the kind of its records, and in `front` the fields that stay."""

    kind: str
    front: dict[str, Any]
    fds: tuple[int, ...]
    freezer: Path | None  # the file that says whether its cgroup is frozen


class Sampler:
    """Samples of all threads that `finder` finds; `now_ns` reads CLOCK_BOOTTIME."""

    def __init__(
        self,
        finder: Finder,
        now_ns: Callable[[], int],
        cgroups: Path = Path("/sys/fs/cgroup"),
        debugfs: Path = kvm_exits.DEBUGFS,
    ) -> None:
        self.unopened = 0  # threads that could not be opened at the last look
        self._finder = finder
        self._now_ns = now_ns
        self._cgroups = cgroups
        self._kvm = kvm_exits.Folders(debugfs)
        self._exits_due_ns = 0
        self._vms: tuple[Vm, ...] = ()
        self._threads: dict[Thread, _Open] = {}
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._fds_end = soft - min(_FDS_FREE, soft // 2)

    def sample(self) -> list[Record]:
        """Return one record for each thread that is there."""
        found = self._finder.found(self._now_ns())
        if found is not self._vms:
            self._vms = found
            self._follow()
        frozen = {path: _frozen(vms.read(path)) for path in {each.freezer for each in self._threads.values()} if path}
        records = []
        for thread, each in list(self._threads.items()):
            at_ns = self._now_ns()
            fields = _read_thread(each)
            if fields is None:
                self._forget(thread)
            else:
                fields["frozen"] = frozen[each.freezer] if each.freezer else None
                records.append(Record(each.kind, at_ns, fields))
        return records + self._exits()

    @property
    def left_out(self) -> int:
        """Return how many threads were too many."""
        return self._finder.left_out

    def close(self) -> None:
        """Close all files."""
        for thread in list(self._threads):
            self._forget(thread)

    def _exits(self) -> list[Record]:
        now_ns = self._now_ns()
        if not self._vms or now_ns < self._exits_due_ns:
            return []
        self._exits_due_ns = now_ns + _EXITS_NS
        folders, records = self._kvm.of_processes(), []
        for vm in self._vms:
            at_ns = self._now_ns()
            if counts := kvm_exits.read(folders.get(vm.process.pid, [])):
                front: dict[str, Any] = {"vm": vm.name, "pid": vm.process.pid, "start_ns": vm.process.start_ns}
                records.append(Record(EXITS_KIND, at_ns, front | counts))
        return records

    def _follow(self) -> None:
        # A thread can be moved to another cgroup, and a VM be told another name.
        wanted: dict[Thread, tuple[str, dict[str, Any]]] = {}
        for vm in self._vms:
            for helper in vm.helpers:
                wanted[helper.thread] = HELPER_KIND, {"vm": vm.name, "role": helper.role, "name": helper.name}
            for vcpu, thread in vm.vcpus:
                wanted[thread] = VCPU_KIND, {"vm": vm.name, "vcpu": vcpu}
        for thread in self._threads.keys() - wanted.keys():
            self._forget(thread)
        self.unopened = 0
        for thread, (kind, front) in wanted.items():
            known = self._threads.get(thread)
            fds = known.fds if known else self._open(thread)
            if fds:
                self._threads[thread] = _Open(kind, front | thread._asdict(), fds, self._freezer(thread))

    # Its files, all of one thread: what the directory that is open leads to is that thread or nothing.
    def _open(self, thread: Thread) -> tuple[int, ...]:
        fds: list[int] = []
        try:
            folder = os.open(f"/proc/{thread.pid}/task/{thread.tid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            self.unopened += e.errno in (errno.EMFILE, errno.ENFILE, errno.EACCES)
            return ()
        try:
            for name in _FILES:
                fds.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder))  # noqa: PERF401 - one may fail
            stat = vms.parse_stat(os.pread(fds[-1], _FILE_BYTES, 0))
            if fds[-1] >= self._fds_end:
                self.unopened += 1
            elif stat is not None and stat.start_ns == thread.start_ns:
                return tuple(fds)
        except OSError as e:
            self.unopened += e.errno in (errno.EMFILE, errno.ENFILE, errno.EACCES)
        finally:
            os.close(folder)
        for fd in fds:
            os.close(fd)
        return ()

    def _forget(self, thread: Thread) -> None:
        for fd in self._threads.pop(thread).fds:
            os.close(fd)

    # The freezer of cgroup v1, else v2; the root of either cannot be frozen.
    def _freezer(self, thread: Thread) -> Path | None:
        for line in vms.read(Path(f"/proc/{thread.pid}/task/{thread.tid}/cgroup")).splitlines():
            _, _, rest = os.fsdecode(line).partition(":")
            controllers, _, path = rest.partition(":")
            if path.strip("/") and controllers in ("freezer", ""):
                for candidate in self._freezer_files(controllers, path.strip("/")):
                    if candidate.exists():
                        return candidate
        return None

    def _freezer_files(self, controllers: str, path: str) -> Iterator[Path]:
        if controllers:
            yield self._cgroups / "freezer" / path / "freezer.state"
        else:
            yield self._cgroups / path / "cgroup.events"
            yield self._cgroups / "unified" / path / "cgroup.events"


class VcpuSource(StateSource):
    """The source of `sampler`; its counters say what it does not see."""

    def __init__(self, stream: Stream, position: int, sampler: Sampler, interval_s: float) -> None:
        super().__init__(stream, position, sampler.sample, interval_s=interval_s, on_close=sampler.close)
        self._sampler = sampler

    def counters(self) -> dict[str, int]:
        """Return those of every state surface, and the threads that are not followed: too many, or not opened."""
        return {**super().counters(), "unopened": self._sampler.unopened, "left_out": self._sampler.left_out}


# The fields of one sample, None where the thread is gone. The times first: the rest takes longer to read.
def _read_thread(each: _Open) -> dict[str, Any] | None:
    schedstat, status, stat = each.fds
    try:
        times = os.pread(schedstat, _FILE_BYTES, 0).split()
        words = os.pread(status, _FILE_BYTES, 0)
        last = os.pread(stat, _FILE_BYTES, 0).rpartition(b")")[2].split()
    except OSError:
        return None
    fields = dict(each.front)
    with contextlib.suppress(ValueError, IndexError):
        fields["run_ns"], fields["wait_ns"], fields["timeslices"] = int(times[0]), int(times[1]), int(times[2])
        fields["last_cpu"] = int(last[36])
    at = words.find(_STATE)
    if at >= 0:
        fields["state"] = words[at + len(_STATE) : at + len(_STATE) + 1].decode("ascii", "replace")
    if switches := _SWITCHES.search(words):
        fields["voluntary_switches"], fields["involuntary_switches"] = int(switches[1]), int(switches[2])
    return fields


def _frozen(data: bytes) -> bool | None:
    if data.startswith((b"FROZEN", b"FREEZING", b"THAWED")):
        return data.startswith(b"FROZEN")
    match = re.search(rb"^frozen ([01])$", data, re.MULTILINE)
    return match[1] == b"1" if match else None
