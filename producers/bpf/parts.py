"""The parts of a BPF program: which of them this kernel can take, which are attached, and which the agent runs itself.

A part whose section begins with `?` is optional: libbpf does not load it by itself. It is loaded where the kernel has
its tracepoint, and if its name ends in `__N`, where that gives N arguments: so a program can have a part for each form
that a tracepoint had. Parts in the sections `syscall` and `iter/...` are the agent's to run: the latter walks something
of the kernel's. Source: libbpf.h (bpf_program__autoload), Documentation/bpf/bpf_iterators.rst.
"""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from producers.bpf.btf import Btf
from producers.bpf.libbpf import Libbpf

_TYPE_SYSCALL: Final = 31  # BPF_PROG_TYPE_SYSCALL, include/uapi/linux/bpf.h
_TRACEPOINT: Final = "tp_btf/"
_WALK: Final = "iter/"
#: A walk that writes nothing is read in one call; the kernel lets go of one that is too long by EAGAIN.
_READS_MAX: Final = 64
_FORM: Final = re.compile(r"__(\d+)$")


class Parts(NamedTuple):
    """Handles of a program's parts, and the tracepoints of the optional ones, sorted.

    `attached`, `own` and `walks` (both run by the agent) are loaded; `active` are the optional tracepoints that this
    kernel has, `missing` the others.
    """

    attached: list[int]
    own: list[int]
    walks: list[int]
    active: list[str]
    missing: list[str]


class TestRun(ctypes.Structure):
    """The beginning of struct bpf_test_run_opts (bpf/bpf.h): a run without data."""

    _fields_ = (("sz", ctypes.c_size_t), ("rest", ctypes.c_uint64 * 9))


def choose(libbpf: Libbpf, program: int) -> Parts:
    """Return the parts of the open object `program`; optional ones that this kernel can take are set to be loaded."""
    parts, optional = Parts([], [], [], [], []), []
    for part in each(libbpf, program):
        if libbpf.bpf_program__type(part) == _TYPE_SYSCALL:
            parts.own.append(part)
        elif libbpf.bpf_program__section_name(part).decode().startswith(_WALK):
            parts.walks.append(part)
        elif libbpf.bpf_program__autoload(part):
            parts.attached.append(part)
        else:
            optional.append(part)
    if not optional:
        return parts
    found: dict[str, bool] = {}
    with _kernel(libbpf) as kernel:
        for part in optional:
            tracepoint = libbpf.bpf_program__section_name(part).decode().removeprefix(_TRACEPOINT)
            loads = fits(libbpf.bpf_program__name(part).decode(), kernel.arguments(tracepoint))
            found[tracepoint] = found.get(tracepoint, False) or loads
            if loads:
                libbpf.bpf_program__set_autoload(part, True)
                parts.attached.append(part)
    for tracepoint, is_there in sorted(found.items()):
        (parts.active if is_there else parts.missing).append(tracepoint)
    return parts


def fits(name: str, arguments: int | None) -> bool:
    """Return whether the part `name` is for a tracepoint that gives so many arguments; None: that is not there."""
    form = _FORM.search(name)
    return arguments is not None and (form is None or int(form[1]) == arguments)


def each(libbpf: Libbpf, program: int) -> Iterator[int]:
    """Yield the handle of each part of the open object `program`."""
    part = None
    while part := libbpf.bpf_object__next_program(program, part):
        yield part


def run(libbpf: Libbpf, part: int) -> bool:
    """Run a loaded part that is the agent's to run, once, to its end; False where the kernel refuses."""
    options = TestRun(sz=ctypes.sizeof(TestRun))
    return not libbpf.bpf_prog_test_run_opts(libbpf.bpf_program__fd(part), ctypes.byref(options))


def walk(libbpf: Libbpf, link: int) -> bool:
    """Let the walk that is attached by `link` go over all of its things, once; False where the kernel refuses."""
    fd = libbpf.bpf_iter_create(libbpf.bpf_link__fd(link))
    if fd < 0:
        return False
    try:
        for _ in range(_READS_MAX):
            with contextlib.suppress(BlockingIOError, InterruptedError):
                if not os.read(fd, 1):
                    return True
        return False
    finally:
        os.close(fd)


@contextlib.contextmanager
def _kernel(libbpf: Libbpf) -> Iterator[Btf]:
    handle = libbpf.btf__load_vmlinux_btf()
    if not handle:
        raise libbpf.refusal("the kernel's BTF cannot be read")
    try:
        yield Btf(libbpf, handle)
    finally:
        libbpf.btf__free(handle)
