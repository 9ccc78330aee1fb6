"""Who reads a ring, seen from another process: real rings, real mappings."""

import os

import pytest

from producers.bpf import readers, ring
from tests.producers.bpf._pinned import reading

pytestmark = pytest.mark.kernel


def seen(owner, ring_bytes=1 << 16):
    fd = owner.open()
    try:
        return readers.others(ring.map_info(fd).id, ring_bytes)
    finally:
        os.close(fd)


def test_a_process_that_has_mapped_the_ring_is_its_reader_and_one_that_holds_it_is_not(bpf_fs):
    owner = bpf_fs.owner(ring_bytes=1 << 16)
    with reading(owner.pin, map_it=False):
        assert seen(owner) == []
    with reading(owner.pin) as process:
        assert seen(owner) == [process.pid]
        assert readers.named([process.pid]).startswith(f"process {process.pid} (python")
    assert seen(owner) == []
    assert readers.named([process.pid]) == f"process {process.pid} (gone)"


def test_another_ring_that_a_holder_reads_is_not_this_one(bpf_fs):
    owner, same_size = bpf_fs.owner(ring_bytes=1 << 16), bpf_fs.owner("other", ring_bytes=1 << 16)
    larger = bpf_fs.owner("larger", ring_bytes=1 << 17)
    with reading(same_size.pin, holds=owner.pin), reading(larger.pin, holds=owner.pin):
        assert seen(owner) == []
