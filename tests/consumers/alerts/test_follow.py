"""The whole alerter over a log in memory: raised, updated, ended, told to a real Alertmanager, through outages and rivals."""

import contextlib
import json
import threading
import time
from datetime import datetime

import pytest

from consumers.alerts import deliver
from consumers.alerts.follow import MESSAGES_UNTOLD_MAX
from consumers.alerts.partition import PartitionAlerter
from consumers.lake.audit import audit
from consumers.lake.storage import MemoryStorage
from consumers.transport.base import LogReplacedError
from consumers.transport.memory import MemoryLog
from consumers.views import run_query
from schemas.errors import StorageError, UnavailableError
from tests.consumers.alerts._cases import Alertmanager, Receiver, free_port, until
from tests.consumers.alerts._floods import RECORDS, flood
from tests.consumers.alerts._followers import Running, follower
from tests.consumers.alerts._stalls import HEALTHY, LOG, STATE, Kernel, reading


class FailingStorage(MemoryStorage):
    """Refuses every write while `full`."""

    full = False

    def put_exclusive(self, key, data):
        if self.full:
            raise StorageError("disk full")
        return super().put_exclusive(key, data)

    def replace(self, key, data):
        if self.full:
            raise StorageError("disk full")
        super().replace(key, data)


@pytest.fixture
def storage():
    made = FailingStorage()
    yield made
    made.close()


@pytest.fixture
def log():
    return MemoryLog([LOG.topic, STATE.topic])


@pytest.fixture
def alertmanager(tmp_path):
    made = Alertmanager(tmp_path)
    made.start()
    yield made
    made.close()


def rows(storage, columns="incident_id, version, state"):
    return run_query(storage, f"select {columns} from incidents order by opened_ns, incident_id, version")[1]


def newest(storage, columns="incident_id, state, ended_by"):
    sql = f"select {columns} from incidents qualify row_number() over (partition by incident_id order by version desc) = 1 order by incident_id"
    return run_query(storage, sql)[1]


def beat_until(log, kernel, condition):
    """Go on beating, as an agent does, until `condition`."""

    def beating():
        if condition():
            return True
        log.append(LOG, kernel.beats(after_s=0.01))
        time.sleep(0.05)
        return False

    until(beating, 30)


def test_what_is_found_is_told_before_the_flood_behind_it_is_read(log, storage, monkeypatch):
    log.append(LOG, Kernel("good").stalls())
    for frame in flood(Kernel("hostile"), 50 * RECORDS):
        log.append(LOG, frame)
    order = []
    add = PartitionAlerter.add

    def adding(alerter, messages):
        order.append(len(messages))
        return add(alerter, messages)

    monkeypatch.setattr(PartitionAlerter, "add", adding)
    each = follower(log, storage)
    monkeypatch.setattr(each, "_tell", lambda case: order.append(case.incident.source.machine))
    each.run(threading.Event(), until_end=True)
    assert order[:2] == [MESSAGES_UNTOLD_MAX, "good"]
    assert sum(each for each in order if isinstance(each, int)) == 51


def test_raised_updated_and_resolved(log, storage, alertmanager):
    kernel = Kernel()
    with Running(follower(log, storage, alertmanager.url)):
        log.append(LOG, kernel.says(HEALTHY))
        log.append(LOG, kernel.stalls(cpu=3))
        until(lambda: alertmanager.pages("firing"))
        (alert,) = alertmanager.alerts()
        assert alert["labels"] | {"incident_id": ""} == {
            "alertname": "GuestIncident",
            "kind": "soft_lockup",
            "layer": "guest-kernel",
            "machine": "m1",
            "boot_id": "b1",
            "incident_id": "",
        }
        until(lambda: alertmanager.alerts()[0]["annotations"]["owner"] == "host_cpu")
        log.append(LOG, Kernel(boot="b2").says(HEALTHY))
        until(lambda: alertmanager.pages("resolved"))
    assert [each for each, _ in alertmanager.pages()] == ["firing", "resolved"]
    (found,) = newest(storage, 'state, ended_by, owner, confidence, "row", rules, cpus, task, pid, kind, first_place')
    assert found == ("ended", "reboot", "host_cpu", "high", "C2", 1, [3], "stress", 77, "soft_lockup", 1)
    assert audit(storage, deep=True).closes


def test_a_storm_of_one_host_is_one_page_with_its_number(log, storage, alertmanager):
    for number in range(200):
        log.append(LOG, Kernel(machine=f"guest-{number:03d}").stalls())
    with Running(follower(log, storage, alertmanager.url)):
        until(lambda: len(alertmanager.alerts()) == 200)
        until(lambda: any(len(ids) == 200 for _, ids in alertmanager.pages("firing")))
    # Grouped: at most one page in a second, each with all that is there.
    assert len(alertmanager.pages("firing")) <= 3
    assert len(newest(storage)) == 200


def test_a_silenced_alert_is_told_and_pages_nobody(log, storage, alertmanager):
    alertmanager.silence("machine", "m1")
    with Running(follower(log, storage, alertmanager.url)):
        log.append(LOG, Kernel().stalls())
        until(lambda: any(each["status"]["state"] == "suppressed" for each in alertmanager.alerts()))
        log.append(LOG, Kernel(machine="m2").stalls())
        until(lambda: alertmanager.pages("firing"))
    assert len(alertmanager.pages()[0][1]) == 1


def test_an_alertmanager_that_was_away_gets_what_is_open_and_one_page_of_what_is_over(
    log, storage, alertmanager, caplog
):
    alertmanager.stop()
    gone, going = Kernel(machine="gone"), Kernel(machine="going")
    with Running(follower(log, storage, alertmanager.url, hold_s=1.0)):
        log.append(LOG, gone.stalls())
        log.append(LOG, going.stalls())
        log.append(LOG, Kernel(machine="gone", boot="b2").says(HEALTHY))
        until(lambda: len(newest(storage)) == 2)
        time.sleep(1)
        alertmanager.start()
        until(lambda: alertmanager.pages("firing"), 40)
        until(lambda: {each["labels"]["machine"] for each in alertmanager.alerts()} == {"going"}, 40)
    raised = {key for _, ids in alertmanager.pages("firing") for key in ids}
    assert raised == {key for key, *_ in newest(storage)}
    told = [each.message for each in caplog.records if "takes no alerts" in each.message]
    assert len(told) == 1, "an outage is said once"


def test_a_topic_made_anew_is_read_from_its_start(log, storage, monkeypatch, caplog):
    monkeypatch.setattr("consumers.alerts.follow._RELIST_NS", 10**8)
    monkeypatch.setattr("consumers.alerts.follow._LOOK_NS", 10**8)
    with Running(follower(log, storage)) as each:
        for _ in range(3):
            log.append(LOG, Kernel().says(HEALTHY))
        until(lambda: LOG in each._alerters and each._alerters[LOG].position == 3)
        with log.changed:
            log.create(LOG.topic)
            log.append(LOG, Kernel(machine="anew").stalls())
            for _ in range(3):
                log.append(LOG, Kernel(machine="anew").says(HEALTHY))
        until(lambda: newest(storage, "machine, state") == [("anew", "open")])
    assert sum("its topic was deleted and made again" in each.getMessage() for each in caplog.records) == 1


def test_a_run_to_the_end_says_that_a_topic_was_made_anew(log, storage, monkeypatch):
    monkeypatch.setattr("consumers.alerts.follow._RELIST_NS", 0)
    monkeypatch.setattr("consumers.alerts.follow._LOOK_NS", 0)
    for _ in range(3):
        log.append(LOG, Kernel().says(HEALTHY))
    each = follower(log, storage)
    real = each._reader.poll

    def poll(timeout_ms):
        found = real(timeout_ms)
        log.create(LOG.topic)
        return found

    each._reader.poll = poll
    with pytest.raises(LogReplacedError, match="start again to read the new one"):
        each.run(threading.Event(), until_end=True)


@pytest.mark.parametrize("status", [500, 503, 429, 404])
def test_an_answer_that_is_not_about_the_alert_is_tried_again(log, storage, status):
    answers = iter([(status, "no"), (status, "no")])
    with Receiver(lambda _: next(answers, (200, ""))) as receiver, Running(follower(log, storage, receiver.url)):
        log.append(LOG, Kernel().stalls())
        until(lambda: len(receiver.bodies) >= 3)
        assert len({json.dumps(each["labels"]) for each in receiver.alerts}) == 1


def test_one_bad_alert_does_not_hold_up_the_others(log, storage):
    def answer(body):
        return (400, "bad label") if any(each["labels"]["machine"] == "bad" for each in body) else (200, "")

    with Receiver(answer) as receiver:
        for name in ("a", "bad", "c"):
            log.append(LOG, Kernel(machine=name).stalls())
        with Running(follower(log, storage, receiver.url)) as each:
            until(lambda: each.counts["sent"] >= 2)
            alone = [body[0]["labels"]["machine"] for body in receiver.bodies if len(body) == 1]
            assert {"a", "bad", "c"} <= set(alone)


def test_a_slow_alertmanager_delays_neither_the_others_nor_the_lake(log, storage):
    def slow(_):
        time.sleep(1.0)
        return 200, ""

    with Receiver(slow) as tarpit, Receiver() as quick, contextlib.ExitStack() as running:
        urls = tarpit.url, quick.url
        running.enter_context(Running(follower(log, storage, alertmanager=urls, timeout_s=0.3)))
        log.append(LOG, Kernel().stalls())
        until(lambda: quick.alerts)
        until(lambda: rows(storage))


def test_a_lake_that_refuses_delays_no_page_and_gets_the_rows_later(log, storage):
    kernel = Kernel()
    with Receiver() as receiver, Running(follower(log, storage, receiver.url)):
        log.append(LOG, kernel.says(HEALTHY))
        until(
            lambda: (
                audit(storage)
                and any("commits/alerts." in key and "genesis" not in key for key in list(storage.objects))
            )
        )
        storage.full = True
        log.append(LOG, kernel.stalls())
        until(lambda: receiver.alerts)
        assert rows(storage) == []
        storage.full = False
        until(lambda: rows(storage))


def test_a_verdict_that_cannot_be_had_costs_nothing_but_itself(log, storage, caplog):
    def assess(_):
        raise ValueError("a bug")

    with Receiver() as receiver, Running(follower(log, storage, receiver.url, assess)):
        log.append(LOG, Kernel().stalls())
        until(lambda: any("was not judged" in each.message for each in caplog.records))
        log.append(LOG, Kernel(machine="m2").stalls())
        until(lambda: any(each["labels"]["machine"] == "m2" for each in receiver.alerts))


def test_open_alerts_are_told_again_with_their_end_ahead(log, storage):
    with Receiver() as receiver, Running(follower(log, storage, receiver.url)):
        log.append(LOG, Kernel().stalls())
        until(lambda: len({each["endsAt"] for each in receiver.alerts}) >= 3)
        assert len({(json.dumps(each["labels"]), each["startsAt"]) for each in receiver.alerts}) == 1


def test_a_restart_tells_what_is_open_with_the_same_labels_and_goes_on_with_its_versions(log, storage):
    kernel = Kernel()
    with Receiver() as receiver:
        with Running(follower(log, storage, receiver.url)):
            log.append(LOG, kernel.stalls())
            until(lambda: receiver.alerts)
            beat_until(log, kernel, lambda: len(rows(storage)) >= 1)
        before = len(receiver.alerts)
        with Running(follower(log, storage, receiver.url)):
            until(lambda: len(receiver.alerts) > before)
            log.append(LOG, Kernel(boot="b2").says(HEALTHY))
            until(lambda: newest(storage)[0][1] == "ended")
    assert len({(json.dumps(each["labels"]), each["startsAt"]) for each in receiver.alerts}) == 1
    found = rows(storage)
    assert [version for _, version, _ in found] == list(range(1, len(found) + 1))


def test_a_restart_raises_nothing_anew_that_the_log_it_has_yet_to_read_has_ended(log, storage, monkeypatch):
    kernel = Kernel()
    with Receiver() as receiver:
        with Running(follower(log, storage, receiver.url)) as each:
            log.append(LOG, kernel.stalls())
            beat_until(log, kernel, lambda: each.cases and each.cases[0].opened_by)
            log.append(LOG, kernel.beats())
        before = len(receiver.alerts)
        log.append(LOG, Kernel(boot="b2").says(HEALTHY))
        again = follower(log, storage, receiver.url)
        poll = again._reader.poll
        monkeypatch.setattr(again._reader, "poll", lambda timeout_ms: (time.sleep(0.3), poll(timeout_ms))[1])
        with Running(again):
            until(lambda: len(receiver.alerts) > before)
            time.sleep(0.5)
        ends = [datetime.fromisoformat(each["endsAt"]).timestamp() for each in receiver.alerts[before:]]
    assert max(ends) < time.time()


def test_what_ended_is_dropped_from_the_state_when_everybody_knows(log, storage):
    with Receiver() as receiver:
        with Running(follower(log, storage, receiver.url)) as each:
            log.append(LOG, Kernel().stalls())
            until(lambda: receiver.alerts)
            again = Kernel(boot="b2")
            log.append(LOG, again.says(HEALTHY))
            beat_until(log, again, lambda: not each.cases)
        told = len(receiver.alerts)
        with Running(follower(log, storage, receiver.url)):
            time.sleep(0.5)
    assert len(receiver.alerts) == told


def test_what_is_too_old_is_stored_and_wakes_nobody_until_it_goes_on(log, storage):
    kernel, old_ns = Kernel(), time.time_ns() - 3600 * 10**9
    log.append(LOG, kernel.stalls(), old_ns)
    with Receiver() as receiver, Running(follower(log, storage, receiver.url, page_age_s=60.0)):
        until(lambda: rows(storage))
        time.sleep(0.3)
        assert receiver.alerts == []
        log.append(LOG, kernel.stalls(s=48, after_s=26))
        until(lambda: receiver.alerts)


def test_a_reading_of_the_cpus_ends_it(log, storage):
    kernel = Kernel()
    with Receiver() as receiver, Running(follower(log, storage, receiver.url)) as each:
        log.append(LOG, kernel.stalls(cpu=1))
        until(lambda: receiver.alerts)
        until(lambda: each._signs._sought)
        for number in range(1, 3):
            log.append(STATE, reading(kernel, number, after_s=10 * number, user=(100, 100 + number)))
        beat_until(log, kernel, lambda: newest(storage)[0][1:] == ("ended", "progress"))


def test_of_two_one_tells_and_the_other_takes_over_when_it_stops(log, storage):
    kernel = Kernel()
    with Receiver() as one, Receiver() as two, contextlib.ExitStack() as first:
        first.enter_context(Running(follower(log, storage, one.url)))
        until(lambda: any("term-" in key for key in list(storage.objects)))
        with Running(follower(log, storage, two.url)):
            log.append(LOG, kernel.stalls())
            until(lambda: one.alerts)
            beat_until(log, kernel, lambda: rows(storage))
            assert two.alerts == []
            first.close()
            until(lambda: two.alerts)
            log.append(LOG, Kernel(boot="b2").says(HEALTHY))
            until(lambda: newest(storage)[0][1] == "ended")
    assert {json.dumps(each["labels"]) for each in one.alerts} == {json.dumps(each["labels"]) for each in two.alerts}
    assert audit(storage, deep=True).closes


def test_one_that_was_taken_over_steps_back_and_tells_nothing_more(log, storage, caplog):
    kernel = Kernel()
    with Receiver() as one, Receiver() as two, Running(follower(log, storage, one.url, lease_s=1.0)) as slow:
        log.append(LOG, kernel.stalls())
        until(lambda: one.alerts)
        until(lambda: newest(storage))  # else its commit may come between, and the other would step back in its turn
        rival = follower(log, storage, two.url, lease_s=1.0)
        rival._wanted.add(LOG)
        rival.assigned([LOG])  # as a group does that believes the other dead
        until(lambda: LOG not in slow._alerters)
        with Running(rival):
            log.append(LOG, Kernel(boot="b2").says(HEALTHY))
            until(lambda: newest(storage)[0][1:2] == ("ended",))
            told = len(one.alerts)
            time.sleep(1.5)
            assert len(one.alerts) == told


def test_until_the_end_everything_is_told_judged_and_committed(log, storage):
    log.append(LOG, Kernel().stalls())
    with Receiver() as receiver:
        follower(log, storage, receiver.url).run(threading.Event(), until_end=True)
        assert len(receiver.alerts) >= 1
    assert newest(storage, "state, owner") == [("open", "host_cpu")]


def test_until_the_end_nobody_waits_long_for_an_alertmanager_that_is_away(log, storage, monkeypatch):
    monkeypatch.setattr(deliver, "AWAY_S", 0.5)
    log.append(LOG, Kernel().stalls())
    with pytest.raises(UnavailableError, match="1 incidents are not told yet; the next start does"):
        follower(log, storage, f"http://127.0.0.1:{free_port()}").run(threading.Event(), until_end=True)
    assert newest(storage, "state, owner") == [("open", "host_cpu")]
    with Receiver() as receiver:
        follower(log, storage, receiver.url).run(threading.Event(), until_end=True)
        assert len(receiver.alerts) >= 1


def test_while_too_many_wait_no_more_is_read(log, storage, caplog):
    dead = f"http://127.0.0.1:{free_port()}"
    for number in range(30):
        log.append(LOG, Kernel(machine=f"m{number}").stalls())
    each = follower(log, storage, dead, queue_max=10)
    each._reader._batch_max = 5
    with Running(each):
        until(lambda: any("no more is read" in record.message for record in caplog.records))
        time.sleep(0.5)
        assert sum(one.position for one in each._alerters.values()) < 30
    assert len([record for record in caplog.records if "no more is read" in record.message]) == 1


def test_what_retention_deleted_unread_is_passed_over(log, storage, caplog):
    kernel = Kernel()
    with Running(follower(log, storage)):
        log.append(LOG, kernel.says(HEALTHY))
        until(lambda: any("commits/alerts.hypocenter.log/0/0000" in key for key in list(storage.objects)))
    for _ in range(5):
        log.append(LOG, kernel.says(HEALTHY))
    log.append(LOG, kernel.stalls())
    log.delete_before(LOG, 5)
    with Running(follower(log, storage)):
        until(lambda: rows(storage))
    assert any("deleted offsets 1 to 4 unread" in record.message for record in caplog.records)
