"""What is around us fails: the broker dies, retention is faster, disks are full, the last write is torn."""

import contextlib
import os
import random
import secrets
import signal
import subprocess
import time

import pytest

from schemas import log_dir
from schemas.errors import StorageError, UnavailableError
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import TOPIC_LOG
from tests.pipeline._kernel import until
from tests.pipeline._pipeline import Pipeline
from tests.pipeline._processes import children, status
from tests.pipeline.conftest import PARTITIONS, delete_before, topics

pytestmark = pytest.mark.kernel
RSS_KIB_MAX = 120 << 10
OUTAGE_S = 30


@pytest.mark.broker
def test_a_broker_killed_for_thirty_seconds_under_load(broker_factory, kernel, tmp_path):
    broker = broker_factory()
    topics().create_topics(KafkaConfig(broker.bootstrap), partitions=PARTITIONS, replication=1)
    pipeline = Pipeline(tmp_path, kernel, broker.bootstrap)
    try:
        agent, collector = pipeline.agent(), pipeline.collector()
        (shipper,) = children(agent.pid)
        other = {"machine": f"{pipeline.machine}-other", "log": tmp_path / "other"}
        leaving = pipeline.agent(**other)
        with kernel.load(burst=20, every_s=0.02):
            pipeline.advanced()
            broker.kill()
            killed_s = time.monotonic()
            # Who is told to stop meanwhile says that the broker did not take everything, and keeps it for the next run.
            assert leaving.stop() == UnavailableError.exit_code, leaving.story()
            time.sleep(killed_s + OUTAGE_S - time.monotonic())
            broker.start()
            back = pipeline.agent(**other)
            pipeline.advanced(60)
        assert children(agent.pid) == [shipper], agent.story()
        assert collector.process.poll() is None, collector.story()
        peaks = [status(pid, "VmHWM") for pid in (agent.pid, shipper)]
        assert max(peaks) < RSS_KIB_MAX, f"agent and shipper took {peaks} KiB"
        assert (agent.stop(), back.stop()) == (0, 0), pipeline.stories()
        assert collector.stop() == 0, collector.story()
        pipeline.drain()
        pipeline.check()
        pipeline.machine = other["machine"]
        pipeline.check_lossy()
        told = [line for running in pipeline.running for line in running.plain()]
        assert len(told) == 1, told  # the one about what waits
    finally:
        pipeline.kill()


def test_what_retention_deletes_unread_is_counted_exactly(pipeline):
    agent = pipeline.agent()
    pipeline.kernel.write(100)
    assert agent.stop() == 0, agent.story()
    pipeline.drain()
    ((last,),) = pipeline.query("select max(seq) from kmsg")
    ((number, frontier),) = pipeline.written_to().items()
    if not pipeline.kafka:
        pipeline.configure(segment_bytes=8 << 10, retention_bytes=30_000)
    agent = pipeline.agent()
    with pipeline.kernel.load():
        time.sleep(1.0)
    assert agent.stop() == 0, agent.story()
    if pipeline.kafka:
        delete_before(pipeline.kafka, {number: frontier + 20})
    pipeline.drain()
    start = pipeline.start(number)
    ((after,),) = pipeline.query(f"select min(seq) from kmsg where seq > {last}")
    pipeline.kernel.skip_if_noisy()
    assert pipeline.offsets_lost() == [("retention", frontier, start - frontier, "offsets-deleted-unread")]
    assert pipeline.losses() == [("retention", last + 1, after - last - 1, "log-retention")]
    assert start > frontier
    assert after > last + 1
    pipeline.check_lossy()


def test_a_collector_that_sleeps_while_retention_deletes_what_it_reads_goes_on(pipeline):
    if not pipeline.kafka:
        pipeline.configure(segment_bytes=8 << 10, retention_bytes=30_000)
    agent, collector = pipeline.agent(), pipeline.collector()
    with pipeline.kernel.load():
        pipeline.advanced()
        collector.signal(signal.SIGSTOP)
        collector.stopped()
        ((number, frontier),) = pipeline.written_to().items()
        time.sleep(1.0)
        if pipeline.kafka:
            delete_before(pipeline.kafka, {number: pipeline.end(number) - 5})
        assert pipeline.start(number) > frontier
        collector.signal(signal.SIGCONT)
        pipeline.advanced()
    assert agent.stop() == 0, agent.story()
    assert collector.stop() == 0, collector.story()
    pipeline.drain()
    pipeline.check_lossy()
    pipeline.kernel.skip_if_noisy()
    assert {(kind, reason) for kind, _, _, reason in pipeline.losses()} == {("retention", "log-retention")}
    assert {(kind, reason) for kind, _, _, reason in pipeline.offsets_lost()} == {
        ("retention", "offsets-deleted-unread")
    }


class SmallDisk:
    """A filesystem of 64 MiB, which really refuses."""

    def __init__(self, path):
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, free_bytes=0):
        """Leave only `free_bytes` free."""
        with self._ballast.open("wb") as file:
            while True:
                free = os.statvfs(self.path)
                # Somebody writes meanwhile.
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - free_bytes))
                    return

    def empty(self):
        self._ballast.unlink()


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs root to mount a small tmpfs: {mounted.stderr.strip()}")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_lake_on_a_full_disk_is_filled_on_when_there_is_space(pipeline, small_disk):
    pipeline.lake = small_disk.path / "lake"
    seed = secrets.randbits(32)
    print("seed", seed)
    rng = random.Random(seed)
    agent, collector = pipeline.agent(), pipeline.collector("--cut-age-s", "0.2")
    with pipeline.kernel.load(every_s=0.02):
        pipeline.advanced()
        for free_bytes in (0, *(rng.randrange(0, 40_000) for _ in range(2))):
            said = collector.err.count("No space left on device")
            small_disk.fill(free_bytes)
            until(lambda said=said: collector.err.count("No space left on device") > said, collector.story)
            small_disk.empty()
            pipeline.advanced()
    assert agent.stop() == 0, agent.story()
    assert collector.stop() == 0, collector.story()
    pipeline.drain()
    pipeline.check()
    expired = pipeline.expire()
    assert expired.wait() == 0, expired.story()
    assert pipeline.files() == pipeline.live_files()
    pipeline.check()


def test_collecting_to_the_end_on_a_full_disk_is_one_sentence(pipeline, small_disk):
    pipeline.lake = small_disk.path / "lake"
    agent = pipeline.agent()
    pipeline.kernel.write(50)
    pipeline.drain()
    pipeline.kernel.write(50)
    assert agent.stop() == 0, agent.story()
    small_disk.fill()
    running = pipeline.collector("--until-end")
    assert running.wait() == StorageError.exit_code == 74, running.story()
    (sentence,) = running.plain()
    assert sentence.startswith(f"hypocenter: {pipeline.lake}")
    assert sentence.endswith("No space left on device")
    small_disk.empty()
    pipeline.drain()
    pipeline.check()


def test_an_agent_whose_log_is_on_a_full_disk_goes_on_when_there_is_space(pipeline, small_disk):
    pipeline.log = small_disk.path / "log"
    agent, collector = pipeline.agent(), pipeline.collector()
    with pipeline.kernel.load():
        pipeline.advanced()
        for free_bytes in (0, 5_000, 20_000):
            small_disk.fill(free_bytes)
            until(lambda: stands_still(pipeline.log), agent.story)
            small_disk.empty()
            pipeline.advanced()
        agent.said("records wait in memory")
        agent.said("can be written again")
    assert agent.stop() == 0, agent.story()
    assert collector.stop() == 0, collector.story()
    pipeline.drain()
    pipeline.check()


def stands_still(log):
    """Tell whether nothing is published for a while, though records and heartbeats come all the time."""
    folder = log_dir.partition_dir(log, TOPIC_LOG, 0)
    before = log_dir.read_end(folder)
    time.sleep(0.5)
    return log_dir.read_end(folder) == before


TEARS = {
    "a byte": lambda tail: tail[:-1],
    "half": lambda tail: tail[: len(tail) // 2],
    "all but a byte": lambda tail: tail[:1],
    "zeros": lambda tail: bytes(len(tail)),
    "half zeros": lambda tail: tail[: len(tail) // 2] + bytes(len(tail) - len(tail) // 2),
}


@pytest.mark.parametrize("tear", TEARS)
@pytest.mark.parametrize("pipeline", ["log"], indirect=True)
def test_a_torn_last_write_is_read_from_the_kernel_again(pipeline, tear):
    end, path = killed_in_a_write(pipeline)
    data = path.read_bytes()
    assert len(data) > end.position  # written, and not yet shown to anybody
    path.write_bytes(data[: end.position] + TEARS[tear](data[end.position :]))
    goes_on(pipeline)
    pipeline.check()


@pytest.mark.parametrize("pipeline", ["log"], indirect=True)
def test_published_bytes_that_a_disk_lost_are_dead_letters_and_their_records_read_again(pipeline):
    end, path = killed_in_a_write(pipeline)
    os.truncate(path, end.position - 1)
    goes_on(pipeline)
    pipeline.check()
    reasons = pipeline.query('select reason, "offset" from dead_letters')
    assert [offset for _, offset in reasons] == [end.offset - 1]


def killed_in_a_write(pipeline):
    """Return what was published, and the newest segment, of an agent killed between a write and its sync."""
    agent = pipeline.agent(crash_at="log:written:10")
    with pipeline.kernel.load():
        assert agent.wait() == -signal.SIGKILL, agent.story()
    folder = log_dir.partition_dir(pipeline.log, TOPIC_LOG, 0)
    end = log_dir.read_end(folder)
    return end, log_dir.segment_path(folder, end.base)


def goes_on(pipeline):
    agent = pipeline.agent()
    pipeline.kernel.write(50)
    assert agent.stop() == 0, agent.story()
    pipeline.drain()
