"""One guest for all tests that can share it, and another for those that need it otherwise."""

import pytest

from tests.guest import _kernel
from tests.guest._vm import Vm
from tests.pipeline.conftest import kafka

__all__ = ["kafka"]


@pytest.fixture(scope="session")
def kernel():
    try:
        return _kernel.fetch()
    except _kernel.GuestError as e:
        pytest.skip(str(e))


# Gone with the last test here: an idle guest takes a quarter of a CPU, without hardware virtualisation.
@pytest.fixture(scope="package")
def guest(kernel, tmp_path_factory):
    with Vm(tmp_path_factory.mktemp("guest"), kernel, memory_mib=1024, in_turns=True) as made:
        yield made.booted()
