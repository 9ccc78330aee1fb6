"""Records of BPF programs, those that come with the agent and others: for each ring one source of what it holds.

No record is looked into, apart from the time it begins with. What a program could not write, it counted itself; the
samples of those counters become losses. Source: Documentation/bpf/ringbuf.rst; `bpf_programs/` has the programs.
"""

import contextlib
import logging
import struct
import sys
from pathlib import Path
from typing import Final

from producers import journal
from producers.bpf import counts, libbpf
from producers.bpf import pinned as bpf_pinned
from producers.bpf import program as bpf_program
from producers.bpf.program import Program, SettingError
from producers.bpf.records import ENDED, NEXT, SLOTS, RecordsSource
from producers.bpf.ring import MappedRing, Ring, load_helper
from producers.bpf.types import TypesSource
from producers.journal import Journal
from producers.registry import Opening
from producers.source import Source
from schemas import bpf, limits
from schemas.config import BpfProgram, Config
from schemas.errors import AccessError, UsageError
from schemas.loss import Loss, LossKind, LossUnit
from schemas.stream import Stream

log = logging.getLogger(__name__)
SURFACE: Final = "bpf"
CLOCK: Final = "mono"
_FOUND_BY: Final = "agent"
_BTF_FILE: Final = Path("/sys/kernel/btf/vmlinux")
_WORD_BYTES: Final = struct.calcsize("P")
#: Keys of the config by the settings of a program that they become; others have one name for both.
_KEYS: Final = {"threshold_ns": "threshold_us", "look_ns": "look_ms", "cgroup_id": "cgroup"}


def open_sources(opening: Opening) -> list[Source]:
    """Return the sources of all programs, which run from now on: for each its description, then its records.

    Raises:
        UsageError: no program is configured, or there is none of that name, or it has no such setting; a pinned ring is
            refused.
        AccessError: the kernel does not take one, or it is not built; a pinned ring may not be opened.
    """
    wanted, pinned = opening.config.bpf.programs, opening.config.bpf.pinned
    if not wanted and not pinned:
        raise _nothing_asked()
    sources: list[Source] = []
    programs: list[Program] = []
    with contextlib.ExitStack() as undo:
        for own in wanted:
            ring_bytes = own.ring_kib << 10 if own.records else limits.BPF_RING_BYTES_LEAST
            program = _load(own, ring_bytes)
            undo.callback(program.close)
            programs.append(program)
            ring = MappedRing(program.ring_fd)
            undo.callback(ring.close)
            sources += _open(opening, program, ring, records=own.records)
        rings: dict[int, Path] = {}
        for each in pinned:
            sources += bpf_pinned.open_pinned(opening, each, undo, rings)
        lead = next((each for each in programs if each.room), None)
        for program in sorted(programs, key=lambda each: each is not lead):
            program.attach(lead.room if lead and program is not lead else None)
            if program.missing:
                log.info("bpf %s: without %s, which this kernel has not got", program.name, ", ".join(program.missing))
            if program.active:
                log.info("bpf %s: with %s", program.name, ", ".join(program.active))
        undo.pop_all()
    snapshot_s = opening.config.bpf.snapshot_s
    if programs and snapshot_s:
        sources.append(counts.source(opening, programs, snapshot_s))
    return sources


def _open(opening: Opening, program: Program, ring: Ring, *, records: bool) -> list[Source]:
    types = bpf.pack_types(
        bpf.Types(
            program=program.name,
            type=program.type_name,
            byteorder=sys.byteorder,
            word_bytes=_WORD_BYTES,
            btf=program.btf,
            source=bpf.OWN,
            ring_bytes=program.ring_bytes,
        )
    )
    stream = Stream(*opening.identity, SURFACE, program.name, CLOCK)
    described = stream._replace(instance=f"{program.name}/types")
    sent = opening.known.get(described)
    known = opening.known.get(stream)
    durable = position = known.next if known else 0
    noted, ended = _open_journal(opening, program.name)
    losses = []
    if noted is not None:
        position = max(durable, noted.noted(NEXT)[0])
        noted.note(NEXT, position, position)
        noted.note(ENDED, 0, 0)
    if position > durable:
        losses.append(Loss(LossKind.DROP, durable, position - durable, "agent-died", _FOUND_BY))
    if not ended and (known or position):
        # Its ring went with it, and its counters since they were last told.
        losses.append(Loss(LossKind.DROP, position, None, "agent-died", _FOUND_BY, LossUnit.EVENT))
    tick_s = opening.config.bpf.tick_ms / 1000
    what = (stream, program, ring, bpf.descriptor(types), position, losses, tick_s, noted)
    source = RecordsSource(*what, watched=records)
    return [TypesSource(described, types, sent.next if sent else 0), source] if records else [source]


# The journal of a program's stream, and whether the agent that had it before came to its end.
def _open_journal(opening: Opening, name: str) -> tuple[Journal | None, bool]:
    if opening.state_dir is None:
        return None, False
    folder, boot_id = opening.state_dir / SURFACE, opening.identity.boot_id
    found = journal.find(folder, name, boot_id, SLOTS)
    if found is not None:
        return found, found.noted(ENDED) == (1, 1)
    try:
        return journal.create(folder, name, boot_id, SLOTS), False
    except OSError as e:
        # Less is known then of what a kill would lose, and nothing else is worse.
        log.warning("%s: %s; what a killed agent had read will be an unknown loss", folder, e.strerror)
        return None, False


# What it has not got is named as the user named it.
def _load(wanted: BpfProgram, ring_bytes: int) -> Program:
    try:
        return Program(wanted.name, ring_bytes, _settings(wanted))
    except SettingError as e:
        raise UsageError(f"BPF program {wanted.name} has no {_KEYS.get(e.setting, e.setting)}") from None


def _settings(wanted: BpfProgram) -> dict[str, int | bytes]:
    found: dict[str, int | bytes] = {} if wanted.records else {"records": 0}
    if wanted.threshold_us is not None:
        found["threshold_ns"] = wanted.threshold_us * 1000
    if wanted.look_ms is not None:
        found["look_ns"] = wanted.look_ms * 1_000_000
    if wanted.pids:
        found["pids"] = struct.pack(f"={len(wanted.pids)}I", *wanted.pids)
    if wanted.cgroup is not None:
        found["cgroup_id"] = _cgroup_id(wanted.cgroup)
    if wanted.pids or wanted.cgroup is not None:
        found["by_name"] = 0
    return found


# The number that the kernel knows it by is that of its directory: fs/kernfs, on machines of 64 bits.
def _cgroup_id(path: Path) -> int:
    try:
        if not (path / "cgroup.controllers").exists():
            raise UsageError(f"cgroup {path} is none of version 2")
        return path.stat().st_ino
    except OSError as e:
        raise UsageError(f"cgroup {path}: {e.strerror}") from None


def check() -> str:
    """Return which programs this kernel takes, and why not the others: each is loaded, not attached, and unloaded.

    Raises:
        AccessError: the kernel has no BTF, takes none of them, or a part is not installed or not built.
    """
    version = libbpf.load().libbpf_version_string().decode()
    load_helper()
    if not _BTF_FILE.exists():
        raise AccessError(f"this kernel has no {_BTF_FILE} (CONFIG_DEBUG_INFO_BTF), which BPF programs are fitted by")
    names = bpf_program.names()
    if not names:
        raise AccessError("the BPF programs are not built: run `make bpf` in the source tree (clang and libbpf-dev)")
    taken, refused = [], []
    for name in names:
        try:
            taken.append(_loads(name))
        except AccessError as e:
            refused.append(e)
    if not taken:
        raise refused[0]
    return "; ".join([f"the kernel takes {', '.join(taken)} (libbpf {version})", *map(str, refused)])


def verify(config: Config) -> None:
    """Verify that `config` names programs or pinned rings, and that the programs are there.

    Raises:
        UsageError: it does not, or one is not.
        AccessError: none is built.
    """
    if not config.bpf.programs and not config.bpf.pinned:
        raise _nothing_asked()
    for each in config.bpf.programs:
        bpf_program.verify(each.name)


def _nothing_asked() -> UsageError:
    return UsageError(
        "which programs? give --program NAME,... or a config file with [[bpf.programs]]; or a ring by --pinned"
    )


def _loads(name: str) -> str:
    program = Program(name, limits.BPF_RING_BYTES_LEAST, {})
    program.close()
    return f"{name} without {' '.join(program.missing)}" if program.missing else name
