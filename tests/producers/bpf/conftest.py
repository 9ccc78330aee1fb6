"""The fixture for tests of pinned rings."""

import pytest

from tests.producers.bpf._pinned import Filesystem


@pytest.fixture
def bpf_fs(tmp_path):
    """A BPF filesystem, where `owner` pins the ring of somebody else's program."""
    made = Filesystem(tmp_path / "bpf-fs")
    yield made
    made.close()
