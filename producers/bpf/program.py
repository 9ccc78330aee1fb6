"""A program that comes with the agent: opened, set up, loaded, attached, its counters read, and all of it gone again.

Nothing is pinned: programs, maps and links live by descriptors of this process, and the kernel takes them back with it.
A program is `bpf_programs/NAME.bpf.o`, which `make bpf` compiles; `bpf_programs/record.h` says what all have in common.
"""

import contextlib
import ctypes
import difflib
import sys
import time
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

from producers.bpf import hooks as bpf_hooks
from producers.bpf import libbpf, parts
from producers.bpf.btf import Btf
from producers.bpf.hooks import Hook, Room
from producers.native import FOLDER
from schemas.errors import AccessError, UsageError

SUFFIX: Final = ".bpf.o"
_RING: Final = "ring"
_COUNTS: Final = "counts"
_MEASURES: Final = "measures"
_SETTINGS: Final = ".rodata"
_FOLLOWER: Final = "follower"
#: The reader is woken when so much of the ring is full: the rest is headroom for its own delay.
_WAKE_SHARE: Final = 4
#: How often the agent runs what is its to run, if a setting of this name (in ns) does not say otherwise.
OWN_PARTS_S: Final = 1.0
_OWN_SETTING: Final = "look_ns"
#: In struct bpf_prog_info (include/uapi/linux/bpf.h): run_time_ns, run_cnt and recursion_misses, one behind the other.
_INFO_RUNS: Final = 192
_INFO_BYTES: Final = _INFO_RUNS + 3 * 8


class Counts(NamedTuple):
    """What a program counted on one CPU since it was loaded: struct counts of `bpf_programs/record.h`."""

    attempts: int
    ring_full: int
    ring_busy: int
    untracked: int


class Runs(NamedTuple):
    """What the kernel counted of a program's parts together; `run_ns` and `runs` only under kernel.bpf_stats_enabled=1.

    `recursion_misses` are runs that it left out, because the same part was at work on that CPU.
    """

    run_ns: int
    runs: int
    recursion_misses: int


class SettingError(UsageError):
    """The program has no `setting` of that name."""

    def __init__(self, program: str, setting: str) -> None:
        super().__init__(f"BPF program {program} has no {setting}")
        self.setting = setting


class Program:
    """The program `name`, loaded with a ring of `ring_bytes` and `settings` (its variables, by name); not yet attached.

    A setting is a number, or the first bytes of an array. `ring_fd` is the ring's map, `type_name` the struct of a
    record, `btf` what describes it; `active` and `missing` are the tracepoints of its optional parts that this kernel
    has, and those it has not. `loaded_ns` is when it began to run (CLOCK_MONOTONIC), from where it counts. In `room`
    another one can run at the hook of this one; None: this one has none to give.

    Raises:
        UsageError: there is no such program; it has no such setting (`SettingError`).
        AccessError: it is not built, or the kernel does not take it; the message has the reason.
    """

    def __init__(self, name: str, ring_bytes: int, settings: Mapping[str, int | bytes]) -> None:
        self.name = name
        self.type_name = name.replace("-", "_")
        self.ring_bytes = ring_bytes
        self._hooks: list[Hook] = []
        self.room: Room | None = None
        self._walks: list[int] = []
        self._own_due_s = 0.0
        looks = settings.get(_OWN_SETTING)
        self._own_every_s = looks / 1e9 if isinstance(looks, int) else OWN_PARTS_S
        self.loaded_ns = 0
        self._libbpf = libbpf.load()
        elf = _file(name).read_bytes()
        opened = self._libbpf.open_object(elf, name)
        if opened is None:
            raise self._libbpf.refusal(f"BPF program {name} cannot be opened")
        self._object = opened
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._load(settings)
            undo.pop_all()

    def attach(self, room: Room | None = None) -> None:
        """Let it run from now on; in the `room` of another one that runs, as far as that takes it.

        Its runs there are counted as those of the other one.

        Raises:
            AccessError: the kernel has not got what it attaches to.
        """
        self.loaded_ns = time.monotonic_ns()
        for part in self._parts.attached:
            self._hooks.append(Hook(self._libbpf, self.name, part, room))
        for part in self._parts.walks:
            self._walks.append(bpf_hooks.attach(self._libbpf, self.name, part))
        self._walk()  # of what is there now nothing else tells, and it does not wait for the agent

    def run_own(self, now_s: float) -> None:
        """Run the parts that are the agent's to run, if that is due at `now_s`: they tell what no event does."""
        if now_s < self._own_due_s:
            return
        self._own_due_s = now_s + self._own_every_s
        for part in self._parts.own:
            ran = parts.run(self._libbpf, part)
            assert ran, f"{self.name}: its own parts cannot be run"
        self._walk()

    def detach(self) -> None:
        """Let it run no more, apart from runs that are under way on other CPUs, and who is in its room go on alone.

        Idempotent.

        Raises:
            AccessError: that one cannot.
        """
        if self.room is not None:
            self.room.close()
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook.close()
        walks, self._walks = self._walks, []
        for walk in walks:
            self._libbpf.bpf_link__destroy(walk)

    def counts(self) -> list[Counts]:
        """Return what it counted on each possible CPU, in their order."""
        key = ctypes.c_uint32(0)
        failed = self._libbpf.bpf_map_lookup_elem(self._counts_fd, ctypes.byref(key), self._values)
        assert not failed, f"{self.name}: its counters cannot be read"
        words = list(self._values)
        starts = range(0, len(words), self._stride)
        return [Counts(*(words[start + at] for at in self._offsets)) for start in starts]

    def measures(self) -> dict[str, list[int]]:
        """Return what it measured on all CPUs together: of a count one number, of a histogram one for each slot.

        Slot 0 has zeros, slot n what lies in [2^(n-1), 2^n), the last one all that is more.
        """
        if not self._measured:
            return {}
        key = ctypes.c_uint32(0)
        failed = self._libbpf.bpf_map_lookup_elem(self._measures_fd, ctypes.byref(key), self._measures)
        assert not failed, f"{self.name}: its measures cannot be read"
        words, stride = list(self._measures), self._measures_stride
        return {
            name: [sum(words[at + slot :: stride]) for slot in range(slots)]
            for name, (at, slots) in self._measured.items()
        }

    def runs(self) -> Runs:
        """Return what the kernel counted of it since it was loaded."""
        info = (ctypes.c_uint64 * (_INFO_BYTES // 8))()
        found = []
        for part in self._parts.attached + self._parts.own + self._parts.walks:
            size_bytes = ctypes.c_uint32(_INFO_BYTES)
            fd = self._libbpf.bpf_program__fd(part)
            ctypes.memset(info, 0, _INFO_BYTES)
            if not self._libbpf.bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size_bytes)):
                found.append(info[_INFO_RUNS // 8 :])
        return Runs(*(sum(values) for values in zip(*found, strict=True))) if found else Runs(0, 0, 0)

    def close(self) -> None:
        """Detach and unload it; idempotent."""
        self.detach()
        loaded, self._object = self._object, 0
        if loaded:
            self._libbpf.bpf_object__close(loaded)

    def _walk(self) -> None:
        for link in self._walks:
            walked = parts.walk(self._libbpf, link)
            assert walked, f"{self.name}: its walks cannot be run"

    def _load(self, settings: Mapping[str, int | bytes]) -> None:
        btf = Btf(self._libbpf, self._libbpf.bpf_object__btf(self._object))
        self.btf = btf.raw()
        assert btf.has_struct(self.type_name), f"{self.name}: its BTF does not describe a record"
        ring = self._map(_RING)
        self._libbpf.bpf_map__set_max_entries(ring, self.ring_bytes)
        self.ring_bytes = int(
            self._libbpf.bpf_map__max_entries(ring)
        )  # at least a page, and this machine's may be large
        self._parts = parts.choose(self._libbpf, self._object)
        self.active, self.missing = self._parts.active, self._parts.missing
        if not self._parts.attached:
            raise AccessError(f"BPF program {self.name}: this kernel has none of its tracepoints")
        self._set(btf, {**settings, "ring_bytes": self.ring_bytes, "wake_bytes": self.ring_bytes // _WAKE_SHARE})
        if self._libbpf.bpf_object__load(self._object):
            raise self._libbpf.refusal(f"BPF program {self.name} cannot be loaded")
        self.ring_fd = int(self._libbpf.bpf_map__fd(ring))
        self._counts_fd = int(self._libbpf.bpf_map__fd(self._map(_COUNTS)))
        follower = self._libbpf.bpf_object__find_map_by_name(self._object, _FOLLOWER.encode())
        if follower:
            self.room = Room(self._libbpf, int(self._libbpf.bpf_map__fd(follower)), self._parts.attached)
        members = btf.members(_COUNTS)
        self._offsets = [members[name] // 8 for name in Counts._fields]
        self._load_measures(btf)
        # One value behind the other, each CPU's rounded up to 8 bytes.
        self._stride = len(members)
        self._values = (ctypes.c_uint64 * (self._stride * self._libbpf.libbpf_num_possible_cpus()))()

    # Of each member of struct measures its first word, and how many it has.
    def _load_measures(self, btf: Btf) -> None:
        self._measured: dict[str, tuple[int, int]] = {}
        found = self._libbpf.bpf_object__find_map_by_name(self._object, _MEASURES.encode())
        if found:
            self._measured = {name: (at // 8, size // 8) for name, (at, size) in btf.widths(_MEASURES).items()}
            self._measures_fd = int(self._libbpf.bpf_map__fd(found))
            self._measures_stride = sum(slots for _, slots in self._measured.values())
            self._measures = (ctypes.c_uint64 * (self._measures_stride * self._libbpf.libbpf_num_possible_cpus()))()

    def _set(self, btf: Btf, settings: Mapping[str, int | bytes]) -> None:
        size_bytes = ctypes.c_size_t()
        at = self._libbpf.bpf_map__initial_value(self._map(_SETTINGS), ctypes.byref(size_bytes))
        variables = btf.variables(_SETTINGS)
        for name, value in settings.items():
            if name not in variables:
                raise SettingError(self.name, name)
            offset, width_bytes = variables[name]
            assert offset + width_bytes <= size_bytes.value
            data = value if isinstance(value, bytes) else value.to_bytes(width_bytes, sys.byteorder)
            assert len(data) <= width_bytes
            ctypes.memmove(at + offset, data, len(data))

    def _map(self, name: str) -> int:
        found = self._libbpf.bpf_object__find_map_by_name(self._object, name.encode())
        assert found, f"{self.name} has no map {name}"
        return int(found)


def names() -> list[str]:
    """Return the programs that were built, sorted."""
    files = FOLDER.iterdir() if FOLDER.is_dir() else ()
    return sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX))


def verify(name: str) -> None:
    """Verify that there is a program `name`.

    Raises:
        UsageError: there is none.
        AccessError: none is built.
    """
    _file(name)


def _file(name: str) -> Traversable:
    known = names()
    if not known:
        raise AccessError("the BPF programs are not built: run `make bpf` in the source tree (clang and libbpf-dev)")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise UsageError(f"there is no BPF program {name}: the nearest is {near}, there is: {', '.join(known)}")
    return FOLDER.joinpath(name + SUFFIX)
