"""Several collectors on one log, asleep, awake or dead: of two at one frontier one wins, and nothing is stored twice."""

import signal

import pytest
from kafka.partitioner import murmur2

from tests.pipeline._kernel import until
from tests.pipeline.conftest import PARTITIONS

pytestmark = pytest.mark.kernel
LOST = "another collector committed"
TAKEN = "going on at offset"


@pytest.mark.parametrize("point", ["collector:added", "writer:files", "chain:created"])
def test_a_collector_that_wakes_behind_another_follows_it(pipeline, point):
    agent = pipeline.agent()
    sleeper = pipeline.collector("--cut-rows", "1", crash_at=f"stop:{point}:5")
    with pipeline.kernel.load():
        sleeper.stopped()
        other = pipeline.collector("--cut-rows", "1")
        until(lambda: pipeline.won(other) > 5, other.story)
        won = pipeline.won(sleeper)
        sleeper.signal(signal.SIGCONT)
        sleeper.said(LOST)
        assert other.stop() == 0, other.story()
        until(lambda: pipeline.won(sleeper) > won + 5, sleeper.story)
    assert agent.stop() == 0, agent.story()
    assert sleeper.stop() == 0, sleeper.story()
    pipeline.drain()
    pipeline.check()


def test_two_collectors_on_the_same_partitions_store_nothing_twice(pipeline):
    agent = pipeline.agent()
    one, two = (pipeline.collector("--cut-rows", "1") for _ in range(2))
    with pipeline.kernel.load():
        until(lambda: min(pipeline.won(one), pipeline.won(two)) > 5, pipeline.stories)
        until(lambda: LOST in one.err and LOST in two.err, pipeline.stories)
    assert agent.stop() == 0, agent.story()
    assert (one.stop(), two.stop()) == (0, 0), pipeline.stories()
    pipeline.drain()
    pipeline.check()


@pytest.mark.parametrize("pipeline", ["log"], indirect=True)
def test_two_compactions_at_once_and_a_collector_beside_them_replace_nothing_twice(pipeline):
    agent, collector = pipeline.agent(), pipeline.collector()
    with pipeline.kernel.load(every_s=0.02):
        until(lambda: len(pipeline.files()) > 8, pipeline.stories)
        both = [pipeline.compact() for _ in range(2)]
        assert [each.wait() for each in both] == [0, 0], pipeline.stories()
    assert agent.stop() == 0, agent.story()
    assert collector.stop() == 0, collector.story()
    pipeline.drain()
    pipeline.check()


@pytest.mark.broker
@pytest.mark.parametrize("pipeline", ["kafka"], indirect=True)
def test_the_members_of_a_group_share_its_partitions_and_take_over_from_the_dead(pipeline):
    # The least session that a broker grants by default.
    (pipeline.folder / "collector.toml").write_text("[collect]\ngroup_session_s = 6\n")
    flags = ("--config", str(pipeline.folder / "collector.toml"), "--group", f"g.{pipeline.machine}", "--cut-rows", "1")
    # Two agents whose names lead to the two partitions of the kernel log's topic.
    names = names_for_each_partition(pipeline.machine)
    agents = [
        pipeline.agent(machine=name, log=pipeline.folder / f"spool-{number}") for number, name in enumerate(names)
    ]
    with pipeline.kernel.load():
        one = pipeline.collector(*flags)
        pipeline.advanced(partitions=PARTITIONS)
        two = pipeline.collector(*flags)
        two.said(TAKEN)
        # Whoever has the first partition dies without a word; a third comes, and the second goes in good order.
        dies, stays = (one, two) if pipeline.owner(0) == one.pid else (two, one)
        dies.signal(signal.SIGKILL)
        dies.wait()
        pipeline.advanced(partitions=PARTITIONS)
        third = pipeline.collector(*flags)
        third.said(TAKEN)
        assert stays.stop() == 0, stays.story()
        pipeline.advanced(partitions=PARTITIONS)
    assert [agent.stop() for agent in agents] == [0, 0], pipeline.stories()
    assert third.stop() == 0, third.story()
    pipeline.drain()
    for name in names:
        pipeline.machine = name
        pipeline.check()
    assert LOST not in pipeline.stories()


def names_for_each_partition(tag):
    names = {}
    for number in range(1000):
        name = f"{tag}-{number}"
        names.setdefault((murmur2(name.encode()) & 0x7FFFFFFF) % PARTITIONS, name)
    return [names[number] for number in range(PARTITIONS)]
