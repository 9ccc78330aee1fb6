"""The alerter as a process, killed at each of its steps and started again, in front of a real Alertmanager.

No page is missed, none comes twice, none is withdrawn; the table has every version once, and the lake closes.
"""

import json
import re
import signal
from collections import Counter

import kafka
import pytest

from consumers.alerts.follow import TOPICS
from consumers.lake.audit import audit
from consumers.lake.layout import open_lake
from consumers.topics import create_topics
from consumers.views import run_query
from schemas.crashpoints import CRASH_POINTS
from schemas.frame import decode
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import TOPIC_INCIDENT, TOPIC_LOG
from tests.consumers.alerts._cases import Alertmanager, until
from tests.consumers.alerts._stalls import HEALTHY, Kernel, write_log
from tests.pipeline._processes import COLLECTOR, Running, kill_all

#: Each incident a group of its own, so that what is notified is notified of it.
APART = "route: {receiver: hook, group_by: [incident_id], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}\n"
CONFIG = '[alert]\nmetrics = "off"\nresend_s = 1\nends_ahead_s = 120\nhold_s = 2\ncommit_s = 0.2\n'
#: With Kafka alone.
ELSEWHERE = ("alert:told",)
POINTS = [each for each in CRASH_POINTS["consumer"] if each.startswith(("alert:", "writer:")) and each not in ELSEWHERE]


class Alerting:
    """A log and a lake in `folder`, and a real Alertmanager that is told."""

    def __init__(self, folder, kafka=None):
        self.folder, self.log, self.lake, self.kafka = folder, folder / "log", folder / "lake", kafka
        self.running = []
        self.alertmanager = Alertmanager(folder, APART)
        self.alertmanager.start()
        (folder / "alert.toml").write_text(CONFIG)

    def start(self, crash_at=None, *flags):
        source = ["--kafka", self.kafka] if self.kafka else ["--log", str(self.log)]
        words = ["--lake", str(self.lake), *source, "--config", str(self.folder / "alert.toml")]
        words += ["--alertmanager", self.alertmanager.url, *flags]
        self.running.append(Running(self.folder, [*COLLECTOR, "alert", *words], crash_at))
        return self.running[-1]

    def append(self, *frames):
        if self.kafka is None:
            write_log(self.log, frames)
            return
        producer = kafka.KafkaProducer(bootstrap_servers=self.kafka, acks="all")
        for each in frames:
            producer.send(TOPIC_LOG, key=decode(each).stream.machine.encode(), value=each)
        producer.flush()
        producer.close()

    def published(self):
        """Return the objects on the topic of incidents."""
        consumer = kafka.KafkaConsumer(
            TOPIC_INCIDENT, bootstrap_servers=self.kafka, auto_offset_reset="earliest", consumer_timeout_ms=1500
        )
        found = [json.loads(each.value) for each in consumer]
        consumer.close()
        return found

    def query(self, sql):
        return run_query(open_lake(self.lake, create=False), sql)[1]

    def notified(self):
        """Return what was notified of each machine's incidents, in order."""
        found = {}
        for body in self.alertmanager.hook.bodies:
            for each in body["alerts"]:
                found.setdefault(each["labels"]["machine"], []).append(each["status"])
        return found

    def newest(self):
        """Return (machine, state) of each incident."""
        sql = "select machine, max_by(state, version) from incidents group by machine, incident_id order by all"
        return self.query(sql)

    def check(self):
        """Prove that every version is there once, and that the lake holds together."""
        numbered = self.query("select count(*), max(version) from incidents group by incident_id")
        assert all(count == newest for count, newest in numbered), numbered
        report = audit(open_lake(self.lake, create=False), deep=True)
        assert report.closes, report.problems

    def close(self):
        kill_all(self.folder)
        for each in self.running:
            each.wait()
        self.alertmanager.close()


@pytest.fixture
def alerting(tmp_path):
    made = Alerting(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("passing", [1, 2])
@pytest.mark.parametrize("point", [*POINTS, "chain:created"])
def test_an_alerter_killed_at(alerting, point, passing):
    ends, stays, later = Kernel(machine="ends"), Kernel(machine="stays"), Kernel(machine="later")
    alerting.append(ends.says(HEALTHY), ends.stalls())
    killed = alerting.start(f"{point}:{passing}")
    # Until it has died, the log goes on as it does.
    until(lambda: (alerting.append(stays.beats()), killed.process.poll() is not None)[1], 30)
    assert killed.wait() == -signal.SIGKILL, killed.story()
    alerting.append(stays.stalls(), Kernel(machine="ends", boot="b2").says(HEALTHY), later.stalls())
    again = alerting.start()
    wanted = {"ends": ["firing", "resolved"], "stays": ["firing"], "later": ["firing"]}
    until(lambda: alerting.notified() == wanted, 30)
    until(lambda: (alerting.append(stays.beats()), len(alerting.newest()) == 3)[1], 30)
    assert again.stop() == 0, again.story()
    # And once more, when nothing is new.
    once_more = alerting.start()
    once_more.said("going on at offset")
    until(lambda: len(alerting.alertmanager.alerts()) == 2)
    assert once_more.stop() == 0, once_more.story()
    assert alerting.notified() == wanted
    assert alerting.newest() == [("ends", "ended"), ("later", "open"), ("stays", "open")]
    alerting.check()


def test_one_that_was_stopped_while_another_took_over_raises_nothing_again(alerting):
    with (alerting.folder / "alert.toml").open("a") as config:
        config.write("lease_s = 1\n")
    kernel = Kernel()
    alerting.append(kernel.stalls())
    first = alerting.start()
    until(lambda: alerting.notified() == {"m1": ["firing"]})
    first.signal(signal.SIGSTOP)
    second = alerting.start()
    second.said("going on at offset")
    alerting.append(kernel.stalls(s=48, after_s=26))
    alerting.append(Kernel(boot="b2").says(HEALTHY))
    until(lambda: alerting.notified() == {"m1": ["firing", "resolved"]})
    first.signal(signal.SIGCONT)
    first.said("another alerter")
    until(lambda: (alerting.append(kernel.beats()), alerting.newest() == [("m1", "ended")])[1])
    assert first.stop() == second.stop() == 0
    assert alerting.notified() == {"m1": ["firing", "resolved"]}
    alerting.check()


def test_until_the_end_it_stops_by_itself_and_says_how_much_it_found(alerting):
    alerting.append(Kernel().stalls())
    done = alerting.start(None, "--until-end")
    assert done.wait() == 0, done.story()
    assert any("1 incidents" in each for each in done.messages()), done.story()
    assert alerting.notified() == {"m1": ["firing"]}


@pytest.fixture(scope="module")
def bootstrap(broker_factory):
    address = broker_factory().bootstrap
    create_topics(KafkaConfig(address), partitions=4, replication=1)
    return address


@pytest.mark.broker
def test_two_share_kafkas_partitions_and_one_that_is_killed_is_replaced(bootstrap, tmp_path):
    alerting = Alerting(tmp_path, bootstrap)
    try:
        with (tmp_path / "alert.toml").open("a") as config:
            config.write("group_session_s = 6\n")
        names = [f"m{number}" for number in range(8)]
        both = [alerting.start(None, "--group", "alerters") for _ in range(2)]
        # Each has half of either topic at the end; who came first had all of it before.
        until(lambda: all(took(each, topic) >= 2 for each in both for topic in TOPICS), 60)
        assert [min(took(each, topic) for each in both) for topic in TOPICS] == [2, 2]
        alerting.append(*(Kernel(machine=name).stalls() for name in names))
        until(lambda: alerting.notified() == {name: ["firing"] for name in names}, 60)
        killed, other = both
        killed.signal(signal.SIGKILL)
        alerting.append(*(Kernel(machine=name, boot="b2").says(HEALTHY) for name in names))
        until(lambda: alerting.notified() == {name: ["firing", "resolved"] for name in names}, 60)
        beating = [Kernel(machine=name, boot="b3") for name in names]
        ended = [(name, "ended") for name in names]
        until(lambda: (alerting.append(*(each.beats() for each in beating)), alerting.newest() == ended)[1], 60)
        # No version waits for its verdict: that makes another one.
        until(lambda: all(each["verdict"] for each in latest(alerting.published()).values()), 60)
        assert other.stop(60) == 0, other.story()
        assert alerting.newest() == ended
        alerting.check()
        published = alerting.published()
        rows = set(alerting.query("select incident_id, version, state from incidents"))
        assert rows <= {(each["incident_id"], each["version"], each["state"]) for each in published}
        last = latest(published)["m7"]
        assert (last["state"], last["incident"]["kind"]) == ("ended", "soft_lockup")
        assert last["verdict"]["owner"] == last["owner"]
    finally:
        alerting.close()


def took(alerter, topic):
    """Return how many partitions of `topic` an alerter took over so far."""
    return len(set(re.findall(rf"{topic}-(\d+): going on at", alerter.err)))


def latest(published):
    """Return the last version of what each machine had."""
    return {each["machine"]: each for each in sorted(published, key=lambda each: each["version"])}


def numbered(published):
    """Return how often each version was said."""
    return Counter((each["incident_id"], each["version"]) for each in published)


@pytest.mark.broker
def test_an_alerter_killed_between_topic_and_commit_says_it_again(bootstrap, tmp_path):
    alerting = Alerting(tmp_path, bootstrap)
    try:
        before = numbered(alerting.published())
        alerting.append(Kernel(machine="told").stalls())
        killed = alerting.start("alert:told")
        assert killed.wait(60) == -signal.SIGKILL, killed.story()
        done = alerting.start(None, "--until-end")
        assert done.wait(60) == 0, done.story()
        again = numbered(alerting.published()) - before
        assert max(again.values()) == 2
        stored = set(alerting.query("select incident_id, version from incidents"))
        assert stored == set(again)
        assert alerting.notified()["told"] == ["firing"]
        alerting.check()
    finally:
        alerting.close()
