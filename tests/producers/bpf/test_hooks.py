"""Programs at one hook, on the real kernel: each sees every switch, alone or one behind the other, and they part freely."""

import contextlib
import os
import sys
import threading
from pathlib import Path

import pytest

from producers.bpf import source as bpf
from producers.bpf.program import Program
from producers.registry import Identity, Opening
from schemas.config import BpfConfig, BpfProgram, Config
from tests.producers.bpf._bpf import skip_unless_loadable

pytestmark = pytest.mark.kernel
_ME = {"pids": os.getpid().to_bytes(4, sys.byteorder), "by_name": 0}


@pytest.fixture
def loaded():
    """Call for a program, loaded."""
    skip_unless_loadable()
    made = []

    def load(name, **settings):
        made.append(Program(name, 4096, settings))
        return made[-1]

    yield load
    for each in made:
        each.close()


@pytest.fixture
def switches():
    """Call to let this thread go to sleep and come back some times."""
    asked, answered, ended = threading.Event(), threading.Event(), threading.Event()

    def answer():
        while asked.wait() and not ended.is_set():
            asked.clear()
            answered.set()

    other = threading.Thread(target=answer)
    other.start()

    def switch():
        for _ in range(100):
            answered.clear()
            asked.set()
            assert answered.wait(10)

    yield switch
    ended.set()
    asked.set()
    other.join()


def stays(vcpu):
    return sum(sum(slots) for name, slots in vcpu.measures().items() if name.endswith("_ns"))


def waits(sched_delay):
    return sum(sched_delay.measures()["wait_ns"])


def grows(count, program, switch):
    before = count(program)
    switch()
    return count(program) - before


def test_who_follows_runs_at_the_hook_of_its_lead_and_has_its_own_when_that_goes(loaded, switches):
    lead = loaded("sched-delay")
    follower = loaded("vcpu", **_ME)
    lead.attach()
    follower.attach(lead.room)
    follower.run_own(0.0)
    assert grows(stays, follower, switches) >= 100
    assert grows(waits, lead, switches) >= 100
    lead.detach()
    assert grows(stays, follower, switches) >= 100
    assert grows(waits, lead, switches) == 0
    follower.detach()
    assert grows(stays, follower, switches) == 0


def test_who_followed_leaves_its_lead_at_work_and_room_for_another(loaded, switches):
    lead = loaded("sched-delay")
    lead.attach()
    for _ in range(2):
        follower = loaded("vcpu", **_ME)
        follower.attach(lead.room)
        follower.run_own(0.0)
        assert grows(stays, follower, switches) >= 100
        follower.detach()
        assert grows(stays, follower, switches) == 0
        assert grows(waits, lead, switches) >= 100


def test_who_finds_no_room_behind_a_lead_has_a_hook_of_its_own(loaded, switches):
    lead, others = loaded("sched-delay"), [loaded("irq-off"), loaded("vcpu"), loaded("sched-delay")]
    lead.attach()
    for each in others:
        each.attach(lead.room)
    lead.detach()
    assert grows(waits, others[-1], switches) >= 100


def links():
    """Return how many links of the kernel's this process has."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(each.readlink()))
    return found.count("anon_inode:bpf_link")


@pytest.mark.parametrize("names", [("sched-delay", "vcpu"), ("vcpu", "irq-off", "sched-delay")])
def test_an_agent_with_both_has_one_hook_at_the_switch_in_whatever_order_they_are_named(names):
    skip_unless_loadable()
    me = Identity("m", "65e71522-0000-0000-0000-000000000000", "guest-kernel")
    alone, found = [], links()
    for name in names:
        with contextlib.ExitStack() as opened:
            for source in bpf.open_sources(Opening(me, {}, Config(bpf=BpfConfig((BpfProgram(name),))), None)):
                opened.callback(source.close)
            alone.append(links() - found)
    with contextlib.ExitStack() as opened:
        config = Config(bpf=BpfConfig(tuple(map(BpfProgram, names))))
        for source in bpf.open_sources(Opening(me, {}, config, None)):
            opened.callback(source.close)
        assert links() - found == sum(alone) - 1
    assert links() == found
