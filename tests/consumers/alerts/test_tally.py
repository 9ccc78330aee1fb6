"""Metrics of the loop: counted once, whatever thread it happened in."""

from types import SimpleNamespace

from consumers.alert_metrics import AlertMetrics
from consumers.alerts.case import Case
from consumers.alerts.payload import Whose
from consumers.alerts.tally import Tally
from consumers.incidents.incident import State
from consumers.verdict.verdict import Confidence, Owner, Verdict
from tests._metrics import Scraped, parse
from tests.consumers.alerts._cases import incident

VERDICT = Verdict(Owner.HOST_CPU, Confidence.HIGH, "C2", 1, "it waited")


def case(key="i1", verdict=None, **fields):
    return Case(incident(key, **fields), Whose(), 0, 0, verdict=verdict)


def test_an_incident_counts_once_with_the_owner_that_was_named_first():
    metrics = AlertMetrics()
    tally, one = Tally(metrics), case()
    tally.judged(one, None, 0.1)
    tally.judged(one, VERDICT, 0.2)
    tally.judged(case("i2"), VERDICT, 0.2)
    found = Scraped(parse(metrics.text()))
    assert found.one("hypocenter_alert_incidents_total", kind="soft_lockup", owner="undetermined") == 1
    assert found.one("hypocenter_alert_incidents_total", kind="soft_lockup", owner="host_cpu") == 1
    assert found.one("hypocenter_alert_verdict_seconds_count") == 3


def test_a_look_enters_what_came_since_the_last_one():
    metrics = AlertMetrics(["am"])
    tally, am = Tally(metrics), SimpleNamespace(sent=3, errors=1, waiting=2)
    cases = [case(), case("i2", VERDICT), case("i3", state=State.ENDED)]
    tally.look(cases, {"am": am}, 5)
    am.sent, am.waiting = 4, 0
    tally.look(cases, {"am": am}, 5)
    tally.polled()
    found = Scraped(parse(metrics.text()))
    assert found.one("hypocenter_alert_pages_total", target="am") == 4
    assert found.one("hypocenter_alert_delivery_errors_total", target="am") == 1
    assert found.one("hypocenter_alert_queue_length") == 0
    assert found.one("hypocenter_alert_near_misses_total") == 5
    assert found.total("hypocenter_alert_incidents_open") == 2
    assert found.one("hypocenter_alert_poll_timestamp_seconds") > 0
