"""What real processes serve of the real kernel log: the numbers are those of the lake's books."""

import os
import signal
import sys
import time
import urllib.error

import pytest

from tests._metrics import scrape, url_of
from tests.pipeline._kernel import until
from tests.pipeline._processes import AGENT, Running, children, kill_all

pytestmark = pytest.mark.kernel
QUIET = {"hypocenter_agent_queue_bytes": 0, "hypocenter_agent_unshipped_age_seconds": 0}


def steady(pipeline, agent):
    """Return what `agent` serves and the lake's books of one moment in which nothing else came."""
    url = url_of(agent)
    for _ in range(60):
        time.sleep(0.2)
        before = scrape(url)
        if any(before.get((name, ()), value) != value for name, value in QUIET.items()):
            continue
        pipeline.drain()
        report, after = pipeline.audit(), scrape(url)
        if _read(before) == _read(after):
            return after, report
    raise AssertionError("the kernel log never stood still")


def _read(found):
    return found.one("hypocenter_agent_records_total", surface="kmsg"), found.total("hypocenter_agent_losses_total")


def test_an_agent_counts_what_the_books_say(pipeline):
    agent = pipeline.agent("--metrics", "0", "--heartbeat-s", "5")
    pipeline.kernel.write(50)
    until(lambda: scrape(url_of(agent)).total("hypocenter_agent_records_total") >= 50, agent.story)
    agent.signal(signal.SIGSTOP)
    agent.stopped()
    pipeline.kernel.flood(6000)
    agent.signal(signal.SIGCONT)
    until(
        lambda: scrape(url_of(agent)).total("hypocenter_agent_lost_positions_total", reason="ring-overwritten"),
        "losses",
    )
    found, report = steady(pipeline, agent)
    book = pipeline.book(report)
    assert found.one("hypocenter_agent_positions_total", surface="kmsg") == book["stored"]
    assert found.one("hypocenter_agent_records_total", surface="kmsg") == book["rows"]
    assert found.by("hypocenter_agent_lost_positions_total", "kind") == book["lost"]
    assert found.total("hypocenter_agent_lost_positions_total", reason="ring-overwritten") > 1000
    ((bodies,),) = pipeline.query("select count(*) from losses where count > 0")
    assert found.total("hypocenter_agent_losses_total") == bodies
    assert found.one("hypocenter_agent_body_bytes_total", surface="kmsg") > 50 * len(pipeline.kernel.tag)
    if pipeline.kafka:
        assert found.one("hypocenter_agent_shipper_up") == 1
        assert found.one("hypocenter_agent_shipper_restarts_total") == 0
        assert found.one("hypocenter_agent_shipped_frames_total") > 0
        assert found.one("hypocenter_agent_spool_limit_bytes") == 512 << 20
    else:
        assert found.one("hypocenter_agent_log_limit_bytes") == 1 << 30
    assert agent.stop() == 0, agent.story()
    with pytest.raises(urllib.error.URLError):
        scrape(url_of(agent))


def test_a_collector_counts_what_its_lake_holds(pipeline):
    agent = pipeline.agent()
    collector = pipeline.collector("--metrics", "0")
    pipeline.kernel.write(200)
    assert agent.stop() == 0, agent.story()
    url = url_of(collector)
    newest = max(pipeline.kernel.written)
    until(lambda: (pipeline.query("select max(seq) from kmsg")[0][0] or 0) >= newest, collector.story)
    until(lambda: _caught_up(scrape(url)), collector.story)
    found, report = scrape(url), pipeline.audit()
    book = pipeline.book(report)
    assert found.one("hypocenter_collector_rows_total", table="kmsg") == book["rows"]
    assert found.by("hypocenter_collector_rows_total", "table") == {t: n for t, n in report["rows"].items() if n}
    assert found.by("hypocenter_collector_lost_positions_total", "kind") == book["lost"]
    assert found.one("hypocenter_collector_duplicates_total") == book["duplicates"]
    assert found.one("hypocenter_collector_unbalanced_books") == 0
    # Of every topic: a broker that others had used before has frames in all.
    made = list(pipeline.lake.glob("commits/*/*/[0-9]*.json"))
    assert found.total("hypocenter_collector_commits_total") == len(made)
    assert collector.stop() == 0, collector.story()


def _caught_up(found):
    lags = found.by("hypocenter_collector_lag_offsets", "topic")
    return lags.get("hypocenter.log", 0) == 0 and found.one("hypocenter_collector_buffered_bytes") == 0


def test_a_relay_that_is_away_and_a_shipper_that_dies_are_seen(kernel, tmp_path):
    target = ["--relay", str(tmp_path / "no-port"), "--spool", str(tmp_path / "spool")]
    agent = Running(tmp_path, [*AGENT, "run", *target, "--machine", kernel.tag, "--metrics", "0"])
    url = url_of(agent)
    kernel.write(5)
    until(lambda: scrape(url).one("hypocenter_agent_delivery_errors_total") >= 2, agent.story)
    found = scrape(url)
    assert found.one("hypocenter_agent_shipper_up") == 1
    assert found.one("hypocenter_agent_shipped_frames_total") == 0
    assert found.one("hypocenter_agent_unshipped_age_seconds") > 0
    assert ("hypocenter_agent_shipped_timestamp_seconds", ()) not in found
    (child,) = children(agent.pid)
    os.kill(child, signal.SIGKILL)
    until(lambda: scrape(url).one("hypocenter_agent_shipper_restarts_total") == 1, agent.story)
    until(lambda: scrape(url).one("hypocenter_agent_shipper_up") == 1, agent.story)
    errors = found.one("hypocenter_agent_delivery_errors_total")
    until(lambda: scrape(url).one("hypocenter_agent_delivery_errors_total") > errors + 1, agent.story)
    agent.signal(signal.SIGKILL)
    agent.wait()
    kill_all(tmp_path)


def test_a_second_agent_on_the_machine_says_so_and_goes_on_without_metrics(kernel, tmp_path):
    first = Running(tmp_path, [*AGENT, "run", "--log", str(tmp_path / "a"), "--metrics", "0"])
    port = url_of(first).rpartition(":")[2].partition("/")[0]
    second = Running(tmp_path, [*AGENT, "run", "--log", str(tmp_path / "b"), "--metrics", port])
    second.said("no metrics: .* cannot be served")
    second.said("watching")
    assert scrape(url_of(first)).one("hypocenter_agent_build_info", version="0.1.0") == 1
    assert (second.stop(), first.stop()) == (0, 0)


def test_metrics_are_on_the_loopback_where_nobody_says_otherwise(kernel, tmp_path):
    agent = Running(tmp_path, [*AGENT, "run", "--log", str(tmp_path / "log")])
    # There, or somebody else's port already.
    agent.said(r"metrics are at http://127\.0\.0\.1:9477/metrics|Address already in use")
    assert agent.stop() == 0


@pytest.mark.parametrize("where", ["example.org:9477", ":9477", "x"])
def test_an_address_that_is_none_is_refused_before_anything_starts(tmp_path, where):
    agent = Running(tmp_path, [*AGENT, "run", "--log", str(tmp_path / "log"), "--metrics", where])
    assert agent.wait() == 2
    assert agent.plain() == [
        f"hypocenter-agent: metrics is HOST:PORT with a numeric HOST, a PORT of 127.0.0.1, or off, not {where!r}"
    ]
    assert not (tmp_path / "log").exists()


def test_a_run_to_the_end_serves_nothing_unless_told(kernel, pipeline_log):
    log, lake = pipeline_log
    command = [sys.executable, "-m", "consumers.cli", "collect", "--log", str(log), "--lake", str(lake), "--until-end"]
    quiet = Running(log.parent, command)
    assert quiet.wait() == 0
    assert not [each for each in quiet.messages() if "metrics" in each]
    told = Running(log.parent, [*command, "--metrics", "0"])
    assert told.wait() == 0
    assert [each for each in told.messages() if each.startswith("metrics are at http://127.0.0.1:")]


@pytest.fixture
def pipeline_log(tmp_path):
    agent = Running(tmp_path, [*AGENT, "run", "--log", str(tmp_path / "log"), "--for", "0.5", "--metrics", "off"])
    assert agent.wait() == 0
    assert not [each for each in agent.messages() if "metrics" in each]
    return tmp_path / "log", tmp_path / "lake"
