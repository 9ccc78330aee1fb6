"""Killed at every numbered step, under load, and started again: nothing is lost, nothing is twice, the books close."""

import signal

import pytest

from schemas.crashpoints import CRASH_POINTS
from schemas.errors import UnavailableError
from tests.pipeline._kernel import until

pytestmark = pytest.mark.kernel
#: At which passing: in mid-work where there is one, not at the start.
FIRST = ("agent:opened", "ship:evicted", "chain:checkpoint", "compact:file", "compact:files", "compact:manifest")
SECOND = ("log:created", "log:rolled", "log:deleted", "ship:saved", "expire:deleted")
AGENT_POINTS = [point for point in CRASH_POINTS["producer"] if not point.startswith(("ship:", "relay:"))]
SHIPPER_POINTS = [point for point in CRASH_POINTS["producer"] if point.startswith("ship:")]
COLLECTOR_POINTS = [
    point for point in CRASH_POINTS["consumer"] if not point.startswith(("compact:", "retire:", "expire:", "alert:"))
]
COMPACT_POINTS = [point for point in CRASH_POINTS["consumer"] if point.startswith(("compact:", "expire:"))]


def at(point):
    return f"{point}:{1 if point in FIRST else 2 if point in SECOND else 10}"


@pytest.mark.parametrize("point", AGENT_POINTS)
def test_an_agent_killed_at(pipeline, point):
    deleting = point == "log:deleted"
    pipeline.kernel.write(50)
    if deleting:
        # Only who has read a log misses what it deletes.
        assert pipeline.agent().stop() == 0
        pipeline.drain()
    # Segments of a few frames; where deleting is the point, retention deletes each as soon as it is closed.
    pipeline.configure(segment_bytes=8 << 10, retention_bytes=1 if deleting else 1 << 30)
    agent = pipeline.agent(crash_at=at(point))
    with pipeline.kernel.load():
        assert agent.wait() == -signal.SIGKILL, agent.story()
    pipeline.kernel.write(50)
    again = pipeline.agent()
    pipeline.kernel.write(50)
    assert again.stop() == 0, again.story()
    pipeline.drain()
    if deleting:
        pipeline.check_lossy()
    else:
        pipeline.check()


@pytest.mark.parametrize("point", SHIPPER_POINTS)
@pytest.mark.parametrize("pipeline", [pytest.param("kafka", marks=pytest.mark.broker)], indirect=True)
def test_a_shipper_killed_at(pipeline, point):
    pipeline.configure(segment_bytes=8 << 10)
    agent = pipeline.agent(crash_at=at(point))
    with pipeline.kernel.load():
        agent.said(f"the shipper ended with code -{int(signal.SIGKILL)},")
    pipeline.kernel.write(50)
    assert agent.stop() == UnavailableError.exit_code, agent.story()
    again = pipeline.agent()
    pipeline.kernel.write(50)
    assert again.stop() == 0, again.story()
    pipeline.drain()
    book = pipeline.check()
    if point == "ship:acked":
        assert book["duplicates"] > 0


@pytest.mark.parametrize("point", COLLECTOR_POINTS)
def test_a_collector_killed_at(pipeline, point):
    agent = pipeline.agent()
    collector = pipeline.collector("--cut-rows", "1", crash_at=at(point))
    with pipeline.kernel.load():
        assert collector.wait() == -signal.SIGKILL, collector.story()
    again = pipeline.collector()
    pipeline.kernel.write(50)
    assert agent.stop() == 0, agent.story()
    assert again.stop() == 0, again.story()
    pipeline.drain()
    pipeline.check()


# Of the lake alone, whatever log it was filled from.
@pytest.mark.parametrize("point", COMPACT_POINTS)
@pytest.mark.parametrize("pipeline", ["log"], indirect=True)
def test_a_compaction_killed_at(pipeline, point):
    expiring = point.startswith("expire:")
    agent, collector = pipeline.agent(), pipeline.collector()
    with pipeline.kernel.load(every_s=0.02):
        until(lambda: len(pipeline.files()) > 8, "files to merge")
        if expiring:
            assert collector.stop() == 0, collector.story()
        killed = pipeline.expire(at(point)) if expiring else pipeline.compact(crash_at=at(point))
        assert killed.wait() == -signal.SIGKILL, killed.story()
        again = pipeline.expire() if expiring else pipeline.compact()
        assert again.wait() == 0, again.story()
    assert agent.stop() == 0, agent.story()
    if not expiring:
        assert collector.stop() == 0, collector.story()
    pipeline.drain()
    pipeline.check()
    last = pipeline.expire()
    assert last.wait() == 0, last.story()
    pipeline.check()
    assert pipeline.files() == pipeline.live_files()
