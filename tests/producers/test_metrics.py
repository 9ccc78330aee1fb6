"""The agent's metrics without an agent: what a frame adds, and which families there are."""

import pytest

from producers import metrics
from producers.metrics import AgentMetrics, Shipping, Tally
from producers.ship_report import ShipReport, create
from producers.writer import WriterThread
from schemas.frame import Frame
from schemas.loss import Loss, LossUnit
from schemas.surfaces import HEARTBEAT_ENCODING
from tests._logs import STREAM, frame, writer
from tests._metrics import Scraped, parse


class Child:
    running, restarts = True, 3


@pytest.fixture
def tally():
    return Tally()


@pytest.fixture
def thread(tmp_path):
    log = writer(tmp_path / "log")
    made = WriterThread(log, lambda: None)
    yield made
    made.stop(10)
    log.close()


def agent_metrics(tally, thread, shipping=None):
    return AgentMetrics(tally, thread, 10.0, 1 << 25, 1 << 29, shipping)


def scraped(found):
    return Scraped(parse(found.text()))


def test_every_family_is_there_with_and_without_a_shipper(tally, thread, tmp_path):
    shipping = Shipping(tmp_path / "log", Child(), create())
    texts = agent_metrics(tally, thread).text() + agent_metrics(tally, thread, shipping).text()
    told = {line.split()[2].decode() for line in texts.splitlines() if line.startswith(b"# TYPE")}
    assert told == {each.name for each in metrics.FAMILIES}


def test_a_frame_is_counted_by_its_surface(tally, thread):
    for number in (1, 2):
        tally.put(frame(number, b"12345"))
    found = scraped(agent_metrics(tally, thread))
    assert found.one("hypocenter_agent_frames_total", surface="kmsg") == 2
    assert found.one("hypocenter_agent_records_total", surface="kmsg") == 20
    assert found.one("hypocenter_agent_positions_total", surface="kmsg") == 20
    assert found.one("hypocenter_agent_body_bytes_total", surface="kmsg") == 10


def test_a_heartbeat_is_a_frame_without_records(tally, thread):
    tally.put(Frame(STREAM, "r", 1, 5, 5, 0, HEARTBEAT_ENCODING, 1, b"beat"))
    found = scraped(agent_metrics(tally, thread))
    assert found.one("hypocenter_agent_frames_total", surface="kmsg") == 1
    assert found.by("hypocenter_agent_records_total", "surface") == {}
    assert ("hypocenter_agent_heartbeat_timestamp_seconds", ()) not in found
    tally.beat_realtime_ns = 1_500_000_000
    assert scraped(agent_metrics(tally, thread)).one("hypocenter_agent_heartbeat_timestamp_seconds") == 1.5


def test_losses_go_by_kind_reason_and_unit(tally, thread):
    losses = [
        Loss("overwrite", 0, 7, "ring-overwritten", "producer"),
        Loss("overwrite", 7, 2, "ring-overwritten", "producer"),
        Loss("overwrite", 9, 40, "ring-overwritten", "producer", LossUnit.EVENT),
        Loss("drop", 9, None, "killed", "producer"),
        Loss("reset", 0, 0, "new-boot", "producer"),
    ]
    tally.put(Frame(STREAM, "r", 1, 9, 9, 0, HEARTBEAT_ENCODING, 1, b"", losses))
    found = scraped(agent_metrics(tally, thread))
    overwrite = {"surface": "kmsg", "kind": "overwrite", "reason": "ring-overwritten"}
    assert found.one("hypocenter_agent_losses_total", **overwrite) == 3
    assert found.one("hypocenter_agent_lost_positions_total", **overwrite) == 9
    assert found.one("hypocenter_agent_lost_events_total", **overwrite) == 40
    assert found.one("hypocenter_agent_unknown_losses_total", surface="kmsg", kind="drop", reason="killed") == 1
    assert found.total("hypocenter_agent_lost_positions_total") == 9


def test_what_the_shipper_tells_is_shown(tally, thread, tmp_path):
    fd = create()
    report = ShipReport(fd)
    report.arrived(4, 400, 2_500_000_000)
    report.failed(2)
    report.dropped(9)
    report.dropped(None)
    report.tell()
    found = scraped(agent_metrics(tally, thread, Shipping(tmp_path / "log", Child(), fd)))
    shown = {name.removeprefix("hypocenter_agent_"): value for (name, _), value in found.items()}
    assert shown["shipped_frames_total"] == 4
    assert shown["shipped_bytes_total"] == 400
    assert shown["shipped_timestamp_seconds"] == 2.5
    assert shown["delivery_errors_total"] == 2
    assert shown["spool_dropped_positions_total"] == 9
    assert shown["spool_dropped_unknown_total"] == 1
    assert (shown["shipper_up"], shown["shipper_restarts_total"]) == (1, 3)
    assert shown["unshipped_age_seconds"] == 0
    assert shown["spool_limit_bytes"] == 1 << 29
    assert "log_limit_bytes" not in shown


def test_a_spool_that_cannot_be_read_leaves_out_the_age_alone(tally, thread, tmp_path):
    (tmp_path / "log" / "shipped.json").mkdir()
    found = scraped(agent_metrics(tally, thread, Shipping(tmp_path / "log", Child(), create())))
    assert ("hypocenter_agent_unshipped_age_seconds", ()) not in found
    assert found.one("hypocenter_agent_shipper_up") == 1
