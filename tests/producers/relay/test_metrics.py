"""The relay's metrics without a relay: one series for each guest that the host names."""

from pathlib import Path

import pytest

from producers.relay import metrics
from producers.relay.guest import Guest, Host
from producers.relay.history import History
from producers.relay.metrics import RelayMetrics, Standing
from producers.relay.vms import VMS_MAX, Connect, Vm
from producers.writer import WriterThread
from schemas.relay import Refused
from tests._logs import writer
from tests._metrics import Scraped, parse


@pytest.fixture
def thread(tmp_path):
    log = writer(tmp_path / "log")
    made = WriterThread(log, lambda: None)
    yield made
    made.stop(10)
    log.close()


def guest(name):
    return Guest(Vm(name, "", Connect(Path(f"/run/{name}.sock"))), Host("h", "b"), History())


def scraped(thread, guests, waiting=0, lag_s=0.0):
    standing = Standing(guests, waiting, lag_s, 1_500_000_000)
    return Scraped(parse(RelayMetrics(thread, 1 << 25, lambda: standing).text()))


def test_every_family_is_told(thread):
    text = RelayMetrics(thread, 1, lambda: Standing([], 0, 0.0, 0)).text()
    told = {line.split()[2].decode() for line in text.splitlines() if line.startswith(b"# TYPE")}
    assert told == {each.name for each in metrics.FAMILIES}


def test_what_a_guest_did_is_under_the_name_that_the_host_gives_it(thread):
    web, db = guest("web"), guest("db")
    web.connected, web.connections, web.bytes, web.frames, web.duplicates, web.mismatches = True, 2, 900, 8, 1, 3
    web.history.generation = 4
    for reason in ("garbage", "garbage", "checksum"):
        web.refuse(Refused(reason, b"", 0))
    found = scraped(thread, [web, db], waiting=1, lag_s=2.5)
    shown = {name: value for (name, labels), value in found.items() if labels == (("vm", "web"),)}
    assert {name.removeprefix("hypocenter_relay_"): value for name, value in shown.items()} == {
        "guest_connected": 1,
        "connections_total": 2,
        "bytes_total": 900,
        "frames_total": 8,
        "duplicates_total": 1,
        "mismatches_total": 3,
        "generation": 4,
    }
    assert found.by("hypocenter_relay_refused_total", "reason") == {"garbage": 2, "checksum": 1}
    assert found.by("hypocenter_relay_guest_connected", "vm") == {"web": 1, "db": 0}
    assert (found.one("hypocenter_relay_guests"), found.one("hypocenter_relay_waiting_guests")) == (2, 1)
    assert found.one("hypocenter_relay_ack_lag_seconds") == 2.5
    assert found.one("hypocenter_relay_heartbeat_timestamp_seconds") == 1.5
    assert found.one("hypocenter_relay_queue_limit_bytes") == 1 << 25


def test_as_many_guests_as_a_relay_serves_have_each_their_own_series(thread):
    found = scraped(thread, [guest(f"vm-{n}") for n in range(VMS_MAX)])
    assert len(found.by("hypocenter_relay_bytes_total", "vm")) == VMS_MAX
