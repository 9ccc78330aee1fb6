"""What only a real kernel shows: its ring overtakes the reader, restarts, silence, permissions, and no echo of our own."""

import os
import random
import secrets
import signal
import sys
import time
from pathlib import Path

import pytest

from schemas.errors import AccessError
from tests.pipeline._processes import AGENT, ROOT, Running, children, open_files, switches

pytestmark = pytest.mark.kernel
DMESG_RESTRICT = Path("/proc/sys/kernel/dmesg_restrict")


def test_an_agent_that_sleeps_through_a_flood_counts_what_it_missed_exactly(pipeline):
    agent = pipeline.agent()
    pipeline.kernel.write(50)
    agent.signal(signal.SIGSTOP)
    agent.stopped()
    first = pipeline.kernel.newest() + 1
    pipeline.kernel.flood(6000)
    last = pipeline.kernel.newest()
    agent.signal(signal.SIGCONT)
    assert agent.stop() == 0, agent.story()
    pipeline.drain()
    pipeline.audit()
    ((stored,),) = pipeline.query(f"select count(*) from kmsg where seq between {first} and {last}")
    ((lost, kinds),) = pipeline.query(
        f"""select sum(least(first_position + count, {last} + 1) - greatest(first_position, {first})),
        list(distinct kind) from losses
        where surface = 'kmsg' and first_position <= {last} and first_position + count > {first}"""
    )
    assert (stored + lost, kinds) == (last - first + 1, ["overwrite"])
    assert stored > 0
    assert lost > 1000
    ((everything,),) = pipeline.query("select (select count(*) from kmsg) + (select sum(count) from losses)")
    ((newest,),) = pipeline.query("select max(seq) from kmsg")
    assert everything == newest + 1  # from the boot's first record on


def test_an_agent_killed_at_random_twenty_times_neither_repeats_nor_misses(pipeline):
    seed = secrets.randbits(32)
    print("seed", seed)
    rng = random.Random(seed)
    with pipeline.kernel.load(burst=5, every_s=0.01):
        for _ in range(20):
            agent = pipeline.agent()
            time.sleep(rng.uniform(0, 0.15))
            agent.signal(signal.SIGKILL)
            agent.wait()
        agent = pipeline.agent()
    assert agent.stop() == 0, agent.story()
    pipeline.drain()
    pipeline.check()


def test_an_idle_agent_sleeps(pipeline):
    agent = pipeline.agent("--heartbeat-s", "10")
    for _ in range(4):
        time.sleep(1)
        processes = [agent.pid, *children(agent.pid)]
        newest, before = pipeline.kernel.newest(), [switches(pid) for pid in processes]
        time.sleep(5)
        woken = [switches(pid) - count for pid, count in zip(processes, before, strict=True)]
        if pipeline.kernel.newest() == newest:
            break
    else:
        pytest.skip("the kernel log of this machine is never silent for five seconds")
    assert max(woken) < 50, f"{woken} voluntary context switches of agent and shipper in 5 s"


def test_the_agents_own_messages_never_reach_the_kernel_log(pipeline):
    first = pipeline.kernel.newest() + 1
    agent = pipeline.agent("--verbose")
    pipeline.kernel.write(10)
    # The device is open, and only for reading.
    (fd,) = [fd for fd, target in open_files(agent.pid) if target == "/dev/kmsg"]
    (flags,) = [
        int(line.split()[1], 8)
        for line in Path(f"/proc/{agent.pid}/fdinfo/{fd}").read_text().splitlines()
        if line.startswith("flags:")
    ]
    assert flags & os.O_ACCMODE == os.O_RDONLY
    assert agent.stop() == 0, agent.story()
    said = agent.messages()
    assert any("watching kmsg" in text for text in said)
    pipeline.kernel.skip_if_noisy()
    new = [text for seq, text in pipeline.kernel.held() if seq >= first]
    assert sum(text.startswith(pipeline.kernel.tag) for text in new) == 10
    assert not [text for text in new for message in said if message in text]
    assert not [text for text in new if '"logger"' in text]


@pytest.fixture
def restricted(kernel_log):
    """The setting under which the kernel log is for the privileged alone; `kernel_log` lets no other run set it too."""
    before = DMESG_RESTRICT.read_text()
    DMESG_RESTRICT.write_text("1\n")
    yield
    DMESG_RESTRICT.write_text(before)


# A user who may read files, because this checkout or its Python can lie where only root may look, and nothing else.
UNPRIVILEGED = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] + [
    f"--{which}=-all,+dac_read_search" for which in ("bounding-set", "inh-caps", "ambient-caps")
]


def test_an_agent_without_permission_names_every_remedy_in_one_line(restricted, tmp_path):
    running = Running(tmp_path, [*UNPRIVILEGED, *AGENT, "run", "--log", str(tmp_path / "log")])
    assert running.wait() == AccessError.exit_code == 77, running.story()
    (line,) = running.err.splitlines()
    assert all(word in line for word in ("/dev/kmsg", "root", "CAP_SYSLOG", "kernel.dmesg_restrict"))
    assert running.out == ""
    assert not (tmp_path / "log").exists()


def test_the_modules_under_test_are_those_of_this_tree():
    assert Path(sys.modules["schemas.errors"].__file__).is_relative_to(ROOT)
