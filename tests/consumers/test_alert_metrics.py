"""The alerter's metrics: every family, labels that nobody can multiply, and counts from 0 for receivers."""

from consumers import alert_metrics
from consumers.alert_metrics import AlertMetrics
from consumers.reports.report import Kind
from consumers.verdict.verdict import Owner
from tests._metrics import Scraped, parse


def scraped(metrics):
    return Scraped(parse(metrics.text()))


def test_every_family_is_there_from_the_start():
    told = {line.split()[2].decode() for line in AlertMetrics().text().splitlines() if line.startswith(b"# TYPE")}
    assert told == {each.name for each in alert_metrics.FAMILIES}


def test_incidents_by_kind_and_owner():
    metrics = AlertMetrics()
    metrics.opened(Kind.SOFT_LOCKUP, Owner.HOST_CPU)
    metrics.opened(Kind.SOFT_LOCKUP, Owner.HOST_CPU)
    metrics.opened(Kind.RCU_STALL, Owner.UNDETERMINED)
    metrics.now_open({(Kind.SOFT_LOCKUP, Owner.HOST_CPU): 1})
    found = scraped(metrics)
    assert found.one("hypocenter_alert_incidents_total", kind="soft_lockup", owner="host_cpu") == 2
    assert found.one("hypocenter_alert_incidents_total", kind="rcu_stall", owner="undetermined") == 1
    assert found.one("hypocenter_alert_incidents_open", kind="soft_lockup", owner="host_cpu") == 1
    metrics.now_open({})
    assert scraped(metrics).total("hypocenter_alert_incidents_open") == 0


def test_words_of_nobody_here_are_summed_up():
    metrics = AlertMetrics()
    for n in range(1000):
        metrics.opened(f"kind {n}", f"owner {n}")
    metrics.now_open({("a", "b"): 2, ("c", "d"): 3})
    found = scraped(metrics)
    assert found.one("hypocenter_alert_incidents_total", kind="other", owner="other") == 1000
    assert found.one("hypocenter_alert_incidents_open", kind="other", owner="other") == 5


def test_a_receiver_counts_from_0_on():
    metrics = AlertMetrics(["pager", "topic"])
    metrics.not_paged("pager")
    metrics.paged("topic")
    found = scraped(metrics)
    assert found.by("hypocenter_alert_delivery_errors_total", "target") == {"pager": 1, "topic": 0}
    assert found.by("hypocenter_alert_pages_total", "target") == {"pager": 0, "topic": 1}


def test_an_alerter_that_tells_nobody_has_a_number_for_it():
    assert scraped(AlertMetrics()).one("hypocenter_alert_targets") == 0
    assert scraped(AlertMetrics(["pager", "topic", "pager"])).one("hypocenter_alert_targets") == 2


def test_the_rest_is_what_was_entered():
    metrics = AlertMetrics()
    assert ("hypocenter_alert_poll_timestamp_seconds", ()) not in scraped(metrics)
    metrics.polled(2_500_000_000)
    metrics.queued(4)
    metrics.judged(0.02)
    metrics.near_miss()
    metrics.near_miss(2)
    metrics.skipped(7)
    found = scraped(metrics)
    assert found.one("hypocenter_alert_poll_timestamp_seconds") == 2.5
    assert found.one("hypocenter_alert_queue_length") == 4
    assert found.one("hypocenter_alert_near_misses_total") == 3
    assert found.one("hypocenter_alert_skipped_records_total") == 7
    assert found.one("hypocenter_alert_verdict_seconds_count") == 1
    assert found.one("hypocenter_alert_verdict_seconds_bucket", le="0.03") == 1
    assert found.one("hypocenter_alert_verdict_seconds_bucket", le="0.01") == 0
