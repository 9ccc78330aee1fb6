"""Parts of real BTFs: the layout that the collector makes of a part is the one that it makes of the whole."""

from pathlib import Path

import pytest

from consumers.decode import bpf_layout
from consumers.decode.bpf_btf import Btf
from producers.bpf import btf as own_btf
from producers.bpf import libbpf as bpf_libbpf
from producers.bpf import program as bpf_program
from producers.bpf.subset import subset
from schemas.errors import AccessError

_KERNEL = Path("/sys/kernel/btf/vmlinux")


def whole(name):
    """Return the BTF of a program that comes with the agent."""
    try:
        libbpf = bpf_libbpf.load()
        program = libbpf.open_object(bpf_program._file(name).read_bytes(), name)
    except AccessError as e:
        pytest.skip(str(e))
    try:
        return own_btf.Btf(libbpf, libbpf.bpf_object__btf(program)).raw()
    finally:
        libbpf.bpf_object__close(program)


@pytest.mark.parametrize("name", ["sched-delay", "block-io", "hang", "irq-off"])
def test_a_part_describes_what_the_whole_does(name):
    struct = name.replace("-", "_")
    btf = whole(name)
    part = subset(btf, struct)
    assert bpf_layout.layout(Btf(part), struct) == bpf_layout.layout(Btf(btf), struct)
    assert len(part) < len(btf) / 2
    assert subset(part, struct) == part


def test_what_is_not_there_is_none():
    assert subset(whole("hang"), "hang_") is None
    assert subset(whole("hang"), "han") is None


# With enumerations, unions, bit fields, arrays, pointers, and names of types.
@pytest.mark.parametrize("name", ["timespec64", "task_struct", "sk_buff", "siginfo", "pt_regs", "atomic_t", "ethhdr"])
def test_a_part_of_the_kernels_own_is_small_and_can_be_laid_out(name):
    if not _KERNEL.exists():
        pytest.skip("this kernel has no BTF")
    part = subset(_KERNEL.read_bytes(), name)
    if part is None:
        pytest.skip(f"this kernel has no {name}")
    assert len(part) < 1 << 16
    found = Btf(part)
    assert found.size_bytes(1) == found.struct(name).size > 0
