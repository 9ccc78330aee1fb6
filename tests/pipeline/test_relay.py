"""Guests without a network, the relay on their host, and what the lake has at the end: exact, whatever breaks."""

import shutil
import signal

import pytest

from tests._relay import BOOT, NOISE, GuestLog
from tests.pipeline._processes import kill_all
from tests.pipeline._relayed import Relayed, expected

UUID = "5d1f8c1e-2b5c-4b6a-9a55-0f3a1c2d3e4f"
OTHER_BOOT = "1c8b4d63-7d2f-4b46-8a1f-3e5c9b7d8f22"


@pytest.fixture
def relayed(tmp_path):
    made = Relayed(tmp_path)
    yield made
    made.close()
    kill_all(tmp_path)


def test_frames_of_guests_reach_the_lake_under_the_names_that_the_host_gives_them(relayed):
    web, db = relayed.guest("web-1", UUID), relayed.guest("db-1")
    web.spool.write(range(50))
    db.spool.write(range(30), "other")
    relay = relayed.start()
    for guest in (web, db):
        assert guest.start().end() == 0, guest.shipper.story()
    assert relay.stop() == 0, relay.story()
    relayed.collect()
    assert web.rows() == expected(range(50))
    assert db.rows() == expected(range(30), "other")
    assert relayed.query("select distinct machine, layer from kmsg order by all") == [
        (UUID, "guest-kernel"),
        ("db-1", "guest-kernel"),
    ]
    (row,) = relayed.query(
        "select uuid, frames, duplicates, mismatches, claimed_machine, claimed_boot_id from relay_guests "
        "where vm = 'web-1' order by ts_ns desc limit 1"
    )
    assert row == (UUID, 50, 0, 0, "id-of-web-1", BOOT)


def test_a_connection_that_breaks_again_and_again_loses_and_doubles_nothing(relayed):
    guest = relayed.guest("web-1")
    guest.spool.write(range(400), NOISE)
    relay = relayed.start()
    shipper = guest.start()
    for _ in range(4):
        start = guest.port.carried
        relayed.until(lambda start=start: guest.port.carried > start + 1_000_000 or _over(guest), "bytes to come")
        guest.port.cut()
    assert shipper.end(60) == 0, shipper.story()
    assert relay.stop() == 0
    relayed.collect()
    assert guest.rows() == expected(range(400), NOISE)


def _over(guest):
    noted = guest.spool.path / "shipped.json"
    return noted.exists() and '"hypocenter.log/0": 400' in noted.read_text()


@pytest.mark.parametrize("where", ["relay:durable:3", "relay:acked:2", "log:synced:4", "log:rolled"])
def test_a_relay_that_is_killed_goes_on_where_it_was(relayed, where):
    guest = relayed.guest("web-1")
    guest.spool.write(range(100), NOISE)
    relayed.config.write_text("[relay]\nreport_s = 0.2\n[log]\nsegment_bytes = 65536\n")
    relay = relayed.start(crash_at=where)
    shipper = guest.start()
    assert relay.wait() == -signal.SIGKILL
    relay = relayed.start()
    assert shipper.end(60) == 0, shipper.story()
    assert relay.stop() == 0
    relayed.collect()
    assert guest.rows() == expected(range(100), NOISE)
    assert relayed.query("select kind, reason, count from losses where machine = 'web-1'") == []


def test_a_guest_that_boots_anew_begins_new_streams(relayed):
    guest = relayed.guest("web-1")
    guest.spool.write(range(20))
    relay = relayed.start()
    assert guest.start().end() == 0
    after = GuestLog(guest.spool.path, machine="id-of-web-1", boot=OTHER_BOOT, run="run-2")
    after.write(range(10), "after")
    assert guest.start(boot=OTHER_BOOT).end() == 0
    assert relay.stop() == 0
    relayed.collect()
    assert guest.rows() == sorted(expected(range(20)) + expected(range(10), "after", boot=OTHER_BOOT))
    assert relayed.query("select max(generation) from relay_guests") == [(1,)]


@pytest.mark.parametrize("restarted", [False, True], ids=["same relay", "relay restarted"])
def test_a_guest_taken_back_to_a_snapshot_goes_on_as_another_history_of_its_boot(relayed, restarted):
    guest = relayed.guest("web-1")
    guest.spool.write(range(20))
    relay = relayed.start()
    assert guest.start().end() == 0
    shutil.copytree(guest.spool.path, relayed.folder / "snapshot")
    guest.spool.write(range(20, 50), "before")
    assert guest.start().end() == 0
    if restarted:
        assert relay.stop() == 0
        relay = relayed.start()
    for n in (1, 2):
        shutil.rmtree(guest.spool.path)
        shutil.copytree(relayed.folder / "snapshot", guest.spool.path)
        guest.spool.write(range(20, 40), f"again {n}:", realtime_ns=1_800_000_000_000_000_000)
        assert guest.start().end() == 0, guest.shipper.story()
    assert relay.stop() == 0
    relayed.collect()
    histories = [
        *expected(range(20)),
        *expected(range(20, 50), "before"),
        *expected(range(20, 40), "again 1:", boot=f"{BOOT}+1"),
        *expected(range(20, 40), "again 2:", boot=f"{BOOT}+2"),
    ]
    assert guest.rows() == sorted(histories)
    assert relayed.query("select max(generation) from relay_guests") == [(2,)]
