"""The thread that tells one Alertmanager, and what it does when its process was stopped for long."""

import time

from consumers.alerts.deliver import Deliverer
from consumers.alerts.outbox import Timing, Told
from consumers.alerts.post import Client
from tests.consumers.alerts._cases import Receiver, S, alert, free_port, until

TIMING = Timing(60 * S, 900 * S, 0)


def deliverer(url, confirm=list, pause_ns=3600 * S):
    return Deliverer(Client(url, 2), TIMING, confirm, pause_ns)


def test_it_tells_and_says_what_was_told():
    with Receiver() as receiver:
        each = deliverer(receiver.url)
        each.put(alert(), opened=False)
        told = []
        until(lambda: told.extend(each.told()) or told)
        assert told == [Told("i1", 1, ended=False)]
        assert (each.waiting, each.sent, each.errors, each.failing) == (0, 1, 0, False)
        assert each.close(1)
    assert [each["labels"]["incident_id"] for each in receiver.alerts] == ["i1"]


def test_a_close_waits_for_what_waits_but_not_for_who_does_not_answer():
    with Receiver(lambda _: (time.sleep(0.3), (200, ""))[1]) as receiver:
        each = deliverer(receiver.url)
        each.put(alert(), opened=False)
        assert each.close(5)
    assert len(receiver.alerts) == 1
    each = deliverer(f"http://127.0.0.1:{free_port()}")
    each.put(alert(), opened=False)
    until(lambda: each.failing)
    began_s = time.monotonic()
    assert not each.close(5)
    assert time.monotonic() - began_s < 4


def test_after_a_long_stop_it_asks_first_what_is_still_its_own():
    asked = []

    def confirm():
        asked.append(True)
        return ["theirs"]

    with Receiver() as receiver:
        # Any time between two looks counts as a stop here.
        each = deliverer(receiver.url, confirm, pause_ns=0)
        each.put(alert("theirs"), opened=False)
        each.put(alert("ours"), opened=False)
        until(lambda: receiver.alerts)
        each.close(1)
    assert asked
    assert {each["labels"]["incident_id"] for each in receiver.alerts} == {"ours"}


def test_an_outage_and_its_end_are_said_once_each(caplog):
    caplog.set_level("INFO")
    answers = iter([(503, "x")] * 3)
    with Receiver(lambda _: next(answers, (200, ""))) as receiver:
        each = deliverer(receiver.url)
        each.put(alert(), opened=False)
        until(lambda: each.sent)
        each.close(1)
    said = [record.message for record in caplog.records if record.name.endswith("deliver")]
    assert len(said) == 2
    assert "takes no alerts" in said[0]
    assert "nothing is lost" in said[0]
    assert "takes alerts again" in said[1]
    assert each.errors == 3
