"""The surface `topology`: which VMs this host runs, in which processes, and which threads are for what.

A record states a fact, and since when it was seen to be so. It is told again each minute, and once more when it was
found to be so no longer, with the time at which it was last seen. Sources: `vms.py`; proc_pid_status(5).
"""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from producers import hidden, vmm_threads, vms
from producers.registry import Opening
from producers.source import Source
from producers.state_source import StateSource
from producers.vms import Finder, Thread
from schemas.config import VmsConfig
from schemas.state import Record
from schemas.stream import Layer, Stream

SURFACE: Final = "topology"
CLOCK: Final = "boot"
_AGAIN_NS: Final = 60 * 10**9
_CGROUP_BYTES: Final = 4096
_ALLOWED: Final = re.compile(rb"^Cpus_allowed_list:\s*([\d,-]*)$", re.MULTILINE)


def boottime_ns() -> int:
    """Return CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def open_sources(opening: Opening) -> list[Source]:
    """Return the one source; it looks as often as VMs are scanned for."""
    identity, config = opening.identity, opening.config.vms
    hidden.warn(SURFACE, "VMs")
    stream = Stream(identity.machine, identity.boot_id, Layer.HOST, SURFACE, "", CLOCK)
    known = opening.known.get(stream)
    topology = Topology(vms.shared(config), boottime_ns)
    source = StateSource(stream, known.next if known else 0, topology.sample, interval_s=config.scan_interval_s)
    return [source]


def check() -> str:
    """Return how many VMs are seen now, and whether those of others are."""
    found = Finder(VmsConfig()).found(boottime_ns())
    sentence = f"VMs that run here now: {len(found)}, vCPUs: {sum(len(vm.vcpus) for vm in found)}"
    return hidden.added(sentence, "VMs")


class _Fact(NamedTuple):
    fields: dict[str, Any]
    valid_from_ns: int
    seen_ns: int
    told_ns: int


class Topology:
    """What `finder` finds, as facts; `now_ns` reads CLOCK_BOOTTIME."""

    def __init__(self, finder: Finder, now_ns: Callable[[], int], proc: Path = Path("/proc")) -> None:
        self._finder = finder
        self._now_ns = now_ns
        self._proc = proc
        self._facts: dict[tuple[str, Thread], _Fact] = {}

    def sample(self) -> list[Record]:
        """Return what is new, what is so no longer, and what was told a minute ago."""
        now_ns = self._now_ns()
        seen = {(kind, thread): (fields, passing) for kind, thread, fields, passing in self._look(now_ns)}
        records = []
        for (kind, thread), fact in list(self._facts.items()):
            if (kind, thread) not in seen or seen[kind, thread][0] != fact.fields:
                del self._facts[kind, thread]
                records.append(_record(kind, now_ns, fact.fields, fact.valid_from_ns, fact.seen_ns))
        for (kind, thread), (fields, passing) in seen.items():
            fact = self._facts.get((kind, thread)) or _Fact(fields, now_ns, now_ns, now_ns - _AGAIN_NS)
            if now_ns - fact.told_ns >= _AGAIN_NS:
                fact = fact._replace(told_ns=now_ns)
                records.append(_record(kind, now_ns, fields | passing, fact.valid_from_ns, None))
            self._facts[kind, thread] = fact._replace(seen_ns=now_ns)
        return records

    # Each fact, and beside it what changes all the time and makes no other fact of it.
    def _look(self, now_ns: int) -> Iterator[tuple[str, Thread, dict[str, Any], dict[str, Any]]]:
        for vm in self._finder.found(now_ns):
            pid, _, start_ns = vm.process
            own = {"vm": vm.name, "uuid": vm.uuid or None, "guest_machine": vm.machine, "vmm": vm.vmm}
            process = {"pid": pid, "start_ns": start_ns, "cgroup": self._cgroup(pid)}
            yield "topology_vm", vm.process, own | process, {"vcpus": len(vm.vcpus)}
            for vcpu, thread in vm.vcpus:
                folder = self._proc / str(thread.pid) / "task" / str(thread.tid)
                stat = vms.parse_stat(vms.read(folder / "stat"))
                if stat is None or stat.start_ns != thread.start_ns:
                    continue
                allowed = _ALLOWED.search(vms.read(folder / "status"))
                fields = {"vm": vm.name, "vcpu": vcpu, "pid": pid, "tid": thread.tid, "start_ns": thread.start_ns}
                fields["cpus_allowed"] = allowed[1].decode() if allowed else None
                yield "topology_vcpu", thread, fields, {"last_cpu": stat.cpu}
            for role, name, thread in vm.helpers:
                # Those of a pool come and go all the time.
                if role != vmm_threads.WORKER:
                    yield "topology_thread", thread, {"vm": vm.name, "role": role, "name": name, **thread._asdict()}, {}

    def _cgroup(self, pid: int) -> str | None:
        text = vms.read(self._proc / str(pid) / "cgroup")[:_CGROUP_BYTES].decode("utf-8", "replace")
        return text.strip() or None


def _record(kind: str, now_ns: int, fields: dict[str, Any], valid_from_ns: int, valid_until_ns: int | None) -> Record:
    return Record(kind, now_ns, fields | {"valid_from_ns": valid_from_ns, "valid_until_ns": valid_until_ns})
