"""Fixtures for tests of the programs: whatever a test begins in the kernel ends with it."""

import pytest

from tests.producers.bpf._bpf import skip_unless_loadable
from tests.producers.bpf_programs._programs import Running, Trace


@pytest.fixture
def run():
    """Call for a running program: its name, what makes a record of its bytes, and its settings."""
    skip_unless_loadable()
    made = []

    def start(name, unpack, **settings):
        made.append(Running(name, unpack, **settings))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def tracing():
    """Call for a trace of these events (SYSTEM/NAME)."""
    made = []

    def start(*events, **settings):
        made.append(Trace(*events, **settings))
        return made[-1]

    yield start
    for each in made:
        each.close()
