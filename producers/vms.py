"""The virtual machines of this host, found without libvirt: processes whose threads are named as those of vCPUs are.

QEMU with `-name ...,debug-threads=on` (libvirt gives that) names them `CPU 0/KVM` or `CPU 0/TCG`, cloud-hypervisor
`vcpu0`, firecracker `fc_vcpu 0`. Sources: proc_pid_stat(5), proc_pid_cmdline(5); QEMU's accel/kvm/kvm-accel-ops.c and
accel/tcg/tcg-accel-ops-mttcg.c.
"""

import functools
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from producers import vmm_threads
from schemas import limits
from schemas.config import VmsConfig

#: More threads of vCPUs than this are not followed, and counted.
VCPUS_MAX: Final = 4096
_THREADS: Final = (
    (re.compile(rb"CPU (\d+)/\w+"), "qemu"),
    # TCG without multi-threading: one thread takes turns for all vCPUs.
    (re.compile(rb"ALL CPUs/TCG()"), "qemu"),
    (re.compile(rb"vcpu(\d+)"), "cloud-hypervisor"),
    (re.compile(rb"fc_vcpu (\d+)"), "firecracker"),
)
_FILE_BYTES: Final = 64 << 10
#: So often a process that does not change is looked at before it is taken for no VM.
_LOOKS: Final = 2
_NAME_FLAGS: Final = {"qemu": "-name", "firecracker": "--id"}
_PF_KTHREAD: Final = 0x00200000  # include/linux/sched.h
_TICK_NS: Final = 10**9 // os.sysconf("SC_CLK_TCK")


class Thread(NamedTuple):
    """A thread: `start_ns` is when it began (CLOCK_BOOTTIME, in steps of the kernel's tick), so no other one is it."""

    pid: int
    tid: int
    start_ns: int


class Vcpu(NamedTuple):
    """A vCPU by its number and its thread; the number is None where one thread runs all."""

    vcpu: int | None
    thread: Thread


class Helper(NamedTuple):
    """A thread beside the vCPUs that a guest waits for: what it is for (`vmm_threads.ROLES`), and its name."""

    role: str
    name: str
    thread: Thread


class Vm(NamedTuple):
    """A VM: `name` as its command line or the configuration has it, `uuid` empty where it states none."""

    name: str
    uuid: str
    vmm: str
    process: Thread
    vcpus: tuple[Vcpu, ...]
    helpers: tuple[Helper, ...] = ()

    @property
    def machine(self) -> str:
        """Return the name that its guest's streams have: the uuid, else the name."""
        return self.uuid or self.name


class Stat(NamedTuple):
    """What one `stat` file says: name, state letter, threads of the process, start in ns, the CPU it last ran on.

    `kernel`: it is a thread of the kernel, whose name no program chose.
    """

    name: bytes
    state: str
    threads: int
    start_ns: int
    cpu: int
    kernel: bool


def parse_stat(data: bytes) -> Stat | None:
    """Return the content of /proc/PID/stat, None where it is another. The name may hold spaces and brackets."""
    opened, closed = data.find(b"("), data.rfind(b")")
    rest = data[closed + 1 :].split()
    if not 0 < opened < closed or len(rest) < 37:
        return None
    try:
        name, state, kernel = data[opened + 1 : closed], rest[0].decode(), bool(int(rest[6]) & _PF_KTHREAD)
        return Stat(name, state, int(rest[17]), int(rest[19]) * _TICK_NS, int(rest[36]), kernel)
    except ValueError:
        return None


def parse_name(data: bytes, vmm: str) -> tuple[str, str]:
    """Return the name and the uuid that a command line (/proc/PID/cmdline) states, each empty where it does not."""
    words = [word.decode("utf-8", "replace") for word in data.split(b"\0")]
    name = _after(words, _NAME_FLAGS.get(vmm, "--name"))
    # QEMU doubles a comma that is part of the name.
    parts = [part.replace("\1", ",") for part in name.replace(",,", "\1").split(",")] if vmm == "qemu" else [name]
    named = next((part.removeprefix("guest=") for part in parts if part.startswith("guest=")), parts[0])
    return _short(named), _short(_after(words, "-uuid"))


def _after(words: list[str], flag: str) -> str:
    for word, value in itertools.pairwise(words):
        if word.lstrip("-") == flag.lstrip("-") and word.startswith("-"):
            return value
    return ""


def _short(text: str) -> str:
    return text.encode()[: limits.TEXT_BYTES_MAX].decode("utf-8", "ignore")


class Finder:
    """Finds the VMs in `proc`, which is looked through every `scan_interval_s` at most."""

    def __init__(self, config: VmsConfig, proc: Path = Path("/proc")) -> None:
        self.left_out = 0  # threads above what is followed at most, in the last scan
        self._config = config
        self._proc = proc
        self._named = {each.pid: each.name for each in config.machines if each.pid is not None}
        self._others: dict[int, tuple[Stat, int]] = {}  # processes that are no VM: how they looked, and how often
        self._told: dict[str, tuple[dict[int, int], dict[int, str]]] = {}
        self._found: tuple[Vm, ...] = ()
        self._due_ns: int | None = None

    def found(self, now_ns: int) -> tuple[Vm, ...]:
        """Return the VMs, by name; `now_ns` is CLOCK_BOOTTIME."""
        if self._due_ns is None or now_ns >= self._due_ns:
            self._due_ns = now_ns + int(self._config.scan_interval_s * 1e9)
            self._found = tuple(self._bounded(sorted(self._scan(), key=lambda vm: (vm.name, vm.process))))
        return self._found

    def tell(self, name: str, tids: dict[int, int], iothreads: dict[int, str]) -> None:
        """Take the threads of the VM `name`, as its QEMU states them: its threads may have no names.

        They are those of its vCPUs by number, and its I/O threads' names by thread.
        """
        self._told[name] = tids, iothreads

    def _bounded(self, found: list[Vm]) -> Iterator[Vm]:
        vcpus = vmm_threads.total([len(vm.vcpus) for vm in found], VCPUS_MAX)
        mine = [min(len(vm.helpers), vmm_threads.VM_THREADS_MAX) for vm in found]
        helpers = vmm_threads.total(mine, vmm_threads.THREADS_MAX)
        for vm, some, more in zip(found, vcpus, helpers, strict=True):
            yield vm._replace(vcpus=vm.vcpus[:some], helpers=vm.helpers[:more])
        all_of = sum(len(vm.vcpus) + len(vm.helpers) for vm in found)
        self.left_out = all_of - sum(vcpus) - sum(helpers)

    def _scan(self) -> Iterator[Vm]:
        told = {
            pid: (name, *threads)
            for name, threads in self._told.items()
            if (pid := self._process_of(threads[0])) is not None
        }
        others = {}
        found, vhosts, daemons = [], [], []
        for pid in sorted(int(name) for name in _names(self._proc) if name.isdigit()):
            stat = _read_stat(self._proc / str(pid) / "stat")
            if stat is None:
                continue
            if stat.kernel:
                owner = vmm_threads.vhost_owner(stat.name)
                vhosts += [] if owner is None else [(owner, pid, stat)]
                continue
            if stat.name == vmm_threads.DAEMON_NAME:
                daemons.append(pid)
            looks = stat._replace(state="", cpu=0)
            before, times = self._others.get(pid, (None, 0))
            times = times if before == looks else 0
            wanted = pid in told or pid in self._named
            # Twice, because a thread has its name only some time after it began.
            if not wanted and (stat.threads < 2 or times >= _LOOKS):
                others[pid] = looks, times
                continue
            vm = self._vm(pid, stat, *told.get(pid, ("", {}, {})))
            if vm.vcpus or wanted:
                found.append(vm)
            else:
                others[pid] = looks, times + 1
        self._others = others
        for vm in found:
            helpers = [*vm.helpers, *self._vhosts(vm, vhosts), *self._daemons(vm, daemons)]
            helpers.sort(key=lambda each: (vmm_threads.in_order(each.role), each.thread))
            yield vm._replace(helpers=tuple(helpers))

    def _vhosts(self, vm: Vm, vhosts: list[tuple[int, int, Stat]]) -> Iterator[Helper]:
        for owner, tid, stat in vhosts:
            if (self._task(vm.process.pid) / str(owner)).exists():
                name = stat.name.decode("utf-8", "replace")
                yield Helper(vmm_threads.VHOST, name, Thread(tid, tid, stat.start_ns))

    # Processes that listen on a socket which the VM's command line names.
    def _daemons(self, vm: Vm, daemons: list[int]) -> Iterator[Helper]:
        command = read(self._proc / str(vm.process.pid) / "cmdline") if daemons else b""
        for pid in daemons:
            socket = vmm_threads.daemon_socket(read(self._proc / str(pid) / "cmdline"))
            if socket is not None and vmm_threads.names_socket(command, socket):
                for tid, stat in self._threads(pid):
                    name = stat.name.decode("utf-8", "replace")
                    yield Helper(vmm_threads.DAEMON, name, Thread(pid, tid, stat.start_ns))

    def _vm(self, pid: int, stat: Stat, told_name: str, told: dict[int, int], iothreads: dict[int, str]) -> Vm:
        vmm, vcpus, helpers = "", [], []
        for tid, thread in self._threads(pid):
            role = vmm_threads.role_of(thread.name, stat.name, first=tid == pid)
            if tid in iothreads:
                role = vmm_threads.Role(vmm_threads.IOTHREAD, iothreads[tid])
            if role is not None:
                helpers.append(Helper(*role, Thread(pid, tid, thread.start_ns)))
            for pattern, kind in _THREADS:
                if match := pattern.fullmatch(thread.name):
                    vmm = kind
                    vcpus.append(Vcpu(int(match[1]) if match[1] else None, Thread(pid, tid, thread.start_ns)))
        if told and not vcpus:
            vmm = "qemu"
            stats = [(number, tid, _read_stat(self._task(pid) / str(tid) / "stat")) for number, tid in told.items()]
            vcpus = [Vcpu(number, Thread(pid, tid, each.start_ns)) for number, tid, each in stats if each]
        helpers = [each for each in helpers if each.thread.tid not in {vcpu.thread.tid for vcpu in vcpus}]
        command = read(self._proc / str(pid) / "cmdline") if vcpus or pid in self._named else b""
        name, uuid = parse_name(command, vmm)
        name = self._named.get(pid) or told_name or name or f"{stat.name.decode('utf-8', 'replace')}-{pid}"
        vcpus.sort(key=lambda each: (-1 if each.vcpu is None else each.vcpu, each.thread))
        return Vm(name, uuid, vmm, Thread(pid, pid, stat.start_ns), tuple(vcpus), tuple(helpers))

    def _threads(self, pid: int) -> Iterator[tuple[int, Stat]]:
        for tid in _names(self._task(pid)):
            stat = _read_stat(self._task(pid) / tid / "stat")
            if stat is not None:
                yield int(tid), stat

    # The one process that all of the threads belong to; a thread's directory is there though no listing has it.
    def _process_of(self, tids: dict[int, int]) -> int | None:
        pids = set()
        for tid in tids.values():
            match = re.search(rb"^Tgid:\s*(\d+)$", read(self._proc / str(tid) / "status"), re.MULTILINE)
            pids.add(int(match[1]) if match else None)
        return pids.pop() if len(pids) == 1 else None

    def _task(self, pid: int) -> Path:
        return self._proc / str(pid) / "task"


@functools.lru_cache(maxsize=1)
def shared(config: VmsConfig) -> Finder:
    """Return the one finder of this process: its surfaces look at the same VMs, and one scan is enough for all."""
    return Finder(config)


# Without a path for each of them.
def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []


def _read_stat(path: Path) -> Stat | None:
    return parse_stat(read(path))


def read(path: Path) -> bytes:
    """Return the first 64 KiB of a file of /proc; nothing where what it is about went meanwhile."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _FILE_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)
