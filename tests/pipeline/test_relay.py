"""Guests without a network, the relay on their host, and what the lake has at the end: exact, whatever breaks."""

import contextlib
import io
import json
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
import zlib

import pytest

from consumers.cli import main
from producers.identity import boot_id
from schemas import kmsg, state
from schemas.frame import Frame, decode, encode
from schemas.log_cursor import LogCursor
from schemas.relay import MAGIC, Hello
from schemas.relay_guest import GuestEnd
from schemas.stream import Stream
from schemas.surfaces import TOPIC_LOG, TOPIC_STATE
from tests._metrics import scrape, url_of
from tests._relay import BOOT, NOISE, GuestLog
from tests.pipeline._kernel import until
from tests.pipeline._processes import AGENT, COLLECTOR, Running, kill_all
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
    web, db = relayed.guest("web-1", UUID), relayed.guest("db-1", vsock=True)
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
    assert row == (UUID, 50, 0, 0, "id-of-web-1", BOOT), web.shipper.story() + relay.story()


@pytest.mark.parametrize("vsock", [False, True], ids=["port", "vsock"])
def test_a_connection_that_breaks_again_and_again_loses_and_doubles_nothing(relayed, vsock):
    guest = relayed.guest("web-1", vsock=vsock)
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


def test_when_nobody_relayed_is_seen_in_coverage_and_timeline(relayed):
    guest, _ = relayed.guest("web-1", UUID), relayed.guest("db-1")
    guest.spool.write(range(5))
    relay = relayed.start()
    assert guest.start().end() == 0, guest.shipper.story()
    assert relay.stop() == 0
    ended_ns = time.time_ns()
    time.sleep(1.0)
    again = relayed.start("--for", "1")
    assert again.wait() == 0, again.story()
    relayed.collect()
    rows = relayed.query(
        "select instance, min(since_realtime_ns) as since, max(until_realtime_ns), "
        "sum(until_realtime_ns - since_realtime_ns), max(counters['connected']) "
        "from coverage where surface = 'relay' and machine = 'the-host' group by run, instance order by instance, since"
    )
    assert [row[0] for row in rows] == ["", "", "db-1", "db-1", "web-1", "web-1"]
    assert rows[4][4] == 1
    for _, since_ns, until_ns, watched_ns, _ in rows:
        assert until_ns - since_ns == watched_ns  # each span begins where the one before ended
    for before, after in zip(rows[::2], rows[1::2], strict=True):
        assert before[2] < ended_ns < ended_ns + 10**9 < after[1]
    # A host cannot read a guest's clocks, and must not make it look alive.
    assert relayed.query("select distinct machine from coverage") == [("the-host",)]
    window = (rows[4][1] + 10**6, rows[5][2] - 10**6)
    blind = [each for each in _blind(relayed, *window) if each["machine"] == "the-host"]
    assert sorted(each["instance"] for each in blind) == ["", "web-1"]
    for each, at in zip(sorted(blind, key=lambda each: each["instance"]), (0, 4), strict=True):
        gap = (rows[at][2], rows[at + 1][1])
        assert (each["at_ns"], each["until_at_ns"]) == pytest.approx(gap, abs=10**6)


def _blind(relayed, since_ns, until_ns):
    out = io.StringIO()
    words = ["--vm", "web-1", "--since", str(since_ns), "--until", str(until_ns), "--format", "json"]
    with contextlib.redirect_stdout(out):
        assert main(["timeline", "--lake", str(relayed.lake), *words]) == 0
    return [each for each in json.loads(out.getvalue())["rows"] if each["kind"] == "blind"]


def test_metrics_say_of_each_guest_what_the_accounts_say(relayed):
    web, db = relayed.guest("web-1", UUID), relayed.guest("db-1")
    web.spool.write(range(20))
    relay = relayed.start("--metrics", "0")
    url = url_of(relay)
    assert web.start().end() == 0, web.shipper.story()
    db.spool.write(range(3))
    assert db.start().end() == 0, db.shipper.story()
    found = scrape(url)
    assert found.by("hypocenter_relay_frames_total", "vm") == {"web-1": 20, "db-1": 3}
    assert found.one("hypocenter_relay_guests") == 2
    assert found.one("hypocenter_relay_queue_bytes") == found.one("hypocenter_relay_ack_lag_seconds") == 0
    relay.said("disconnected")  # the shippers have ended
    assert relay.stop() == 0
    relayed.collect()
    sql = "select vm, max(bytes) from relay_guests group by all"
    assert found.by("hypocenter_relay_bytes_total", "vm") == dict(relayed.query(sql))


def _over(guest):
    noted = guest.spool.path / "shipped.json"
    return noted.exists() and '"hypocenter.log/0": 400' in noted.read_text()


@pytest.mark.parametrize("where", ["relay:durable:3", "relay:acked:2", "log:synced:4", "log:rolled"])
def test_a_relay_that_is_killed_goes_on_where_it_was(relayed, where):
    guest = relayed.guest("web-1", vsock=where == "relay:acked:2")
    guest.spool.write(range(200), NOISE)  # more than a window: one acknowledgement is never for all
    relayed.config.write_text("[relay]\nreport_s = 0.2\nwindow_bytes = 2097152\n[log]\nsegment_bytes = 65536\n")
    relay = relayed.start(crash_at=where)
    shipper = guest.start()
    assert relay.wait() == -signal.SIGKILL
    relay = relayed.start()
    assert shipper.end(60) == 0, shipper.story()
    assert relay.stop() == 0
    relayed.collect()
    assert guest.rows() == expected(range(200), NOISE)
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


def test_a_hostile_guest_costs_another_one_nothing(relayed):
    web, evil = relayed.guest("web-1"), relayed.guest("evil")
    web.spool.write(range(200), NOISE)
    relay = relayed.start()
    shipper = web.start()
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(str(evil.port.guest))
        end = GuestEnd()
        made.sendall(end.opened())
        until(lambda: end.feed(made.recv(4096)), "a greeting")
        forged = Stream("web-1", BOOT, "host", "kmsg", "", "printk")
        frames = [_frame(forged, n) for n in range(3)] + [_frame(forged._replace(boot_id=f"{BOOT}+1"), 3)]
        claims = Hello("spool", "web-1", BOOT, "host", 0, {})
        data = [end.hello(claims), *(end.frame(TOPIC_LOG, n, each) + each for n, each in enumerate(frames))]
        broken = bytearray(_frame(forged, 4))
        broken[6] = 0xC1  # a map that is none, under a checksum that holds
        broken[-4:] = zlib.crc32(memoryview(broken)[:-5]).to_bytes(4, "big")
        data.append(end.frame(TOPIC_LOG, 4, bytes(broken)) + bytes(broken))
        made.sendall(b"".join(data) + random.Random(1).randbytes(3_000_000) + MAGIC * 20_000)
        made.sendall(end.frame(TOPIC_LOG, 5, frames[0])[:20])  # and says no more
        assert shipper.end(60) == 0, shipper.story()
        sql = "select count(*) from relay_refused where vm = 'evil' and reason = 'header'"
        until(lambda: relayed.collect() and relayed.query(sql)[0][0] > 0, relay.story, 60)
    assert relay.stop() == 0
    relayed.collect()
    assert web.rows() == expected(range(200), NOISE)
    assert evil.rows() == [(BOOT, n, "forged") for n in range(3)]
    assert relayed.query("select distinct layer from kmsg") == [("guest-kernel",)]
    refused, mismatches, claimed = relayed.query(
        "select refused, mismatches, claimed_machine from relay_guests where vm = 'evil' order by ts_ns desc limit 1"
    )[0]
    assert (refused["boot-id"], refused["malformed"], mismatches, claimed) == (1, 1, 3, "web-1")
    assert refused["header"] > 1000
    assert refused["garbage"] >= 1
    assert relayed.query("select count(*) from relay_refused where vm = 'evil'")[0][0] < 1000


def _frame(stream, n):
    body = kmsg.pack([b"6,%d,1,-;forged\n" % n])
    return encode(Frame(stream, "run", n, n, n + 1, 1, "kmsg", 1, body))


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", path], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs root to mount a small tmpfs")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.kernel
def test_guests_keep_what_the_hosts_disk_has_no_room_for(relayed, small_disk):
    guest = relayed.guest("web-1")
    guest.spool.write(range(300), NOISE)
    relayed.log = small_disk / "log"
    (small_disk / "ballast").write_bytes(bytes(14_000_000))
    relay = relayed.start()
    shipper = guest.start()
    relay.said("No space left")
    (small_disk / "ballast").unlink()
    relay.said("can be written again")
    assert shipper.end(60) == 0, shipper.story()
    assert relay.stop() == 0, relay.story()
    relayed.collect()
    assert guest.rows() == expected(range(300), NOISE)


def test_what_a_guests_spool_gave_up_is_a_loss_with_exact_positions(relayed):
    guest = relayed.guest("web-1")
    guest.spool.kwargs |= {"segment_bytes": 20_000, "retention_bytes": 200_000}
    guest.spool.write(range(5), NOISE)
    relay = relayed.start()
    assert guest.start().end() == 0
    guest.spool.write(range(5, 60), NOISE)
    assert guest.start().end() == 0, guest.shipper.story()
    assert relay.stop() == 0
    relayed.collect()
    losses = relayed.query("select kind, reason, first_position, count from losses where count > 0")
    ((kind, reason, first, count),) = losses
    assert (kind, reason, first) == ("drop", "spool-full", 50)
    kept = range((first + count) // 10, 60)
    assert guest.rows() == expected([*range(5), *kept], NOISE)


@pytest.mark.kernel
def test_an_agent_in_a_guest_gives_its_kernel_log_to_the_relay(relayed, kernel_log):
    guest = relayed.guest("web-1")
    relay = relayed.start()
    words = ["run", "--relay", str(guest.port.guest), "--spool", str(guest.spool.path), "--layer", "guest-kernel"]
    agent = Running(relayed.folder, [*AGENT, *words])
    agent.said("relayed by the-host as web-1")
    kernel_log.write(50)
    relayed.until(lambda: len(_pings(relayed.log)) >= 10, "a burst of pings")
    asked_ns = time.monotonic_ns()
    assert agent.stop() == 0, agent.story()
    assert relay.stop() == 0
    relayed.collect()
    found = [message for _, _, message in guest.rows() if kernel_log.tag in message]
    assert len(found) == 50
    sql = "select count(*), count(other) from clock_pings where machine = 'web-1' and vm = 'web-1' and t0_ns < t3_ns"
    assert relayed.query(sql) == [(len(_pings(relayed.log)), 0)]
    # The end of a run is known on the host's clock too.
    assert relayed.query("select max(t0_ns) from clock_pings")[0][0] > asked_ns
    assert relayed.query("select count(*) from dead_letters where surface = 'clocks'") == [(0,)]
    for stream, times in _pings(relayed.log):
        assert stream == Stream("web-1", boot_id(), "guest-kernel", "clocks", "relay", "mono")
        assert times["t0_ns"] < times["t3_ns"] and times["t1_ns"] <= times["t2_ns"]
        assert (times["host_machine"], times["host_boot_id"], times["vm"]) == ("the-host", boot_id(), "web-1")


def _pings(log):
    found = [each for each in _frames(log, TOPIC_STATE) if each.encoding == "clocks"]
    return [(each.stream, record.fields) for each in found for record in state.unpack(each.body)]


def _frames(log, topic):
    cursor = LogCursor(log, topic, 0)
    while entries := cursor.read():
        yield from (decode(payload) for _, _, payload in entries)
    cursor.close()


def test_a_spool_that_is_full_deletes_nothing_and_guests_wait(relayed):
    guest = relayed.guest("web-1")
    guest.spool.write(range(600), NOISE)
    relayed.config.write_text("[relay]\nwindow_bytes = 2097152\n[spool]\nretention_bytes = 100000\n")
    relay = relayed.start("--kafka", "127.0.0.1:1", "--spool", str(relayed.log))
    shipper = guest.start()
    relay.said("the spool is full")
    assert shipper.end() == 69, shipper.story()
    assert relay.stop(40) == 69, relay.story()
    relay = relayed.start()
    assert guest.start().end(60) == 0, guest.shipper.story()
    assert relay.stop() == 0
    relayed.collect()
    assert guest.rows() == expected(range(600), NOISE)


@pytest.mark.broker
def test_what_guests_send_goes_on_to_kafka_under_their_names(relayed, kafka):
    guest = relayed.guest(f"vm-{uuid.uuid4().hex[:12]}")
    guest.spool.write(range(30))
    relay = relayed.start("--kafka", kafka, "--spool", str(relayed.log))
    assert guest.start().end() == 0, guest.shipper.story()
    assert relay.stop() == 0, relay.story()
    words = ["--kafka", kafka, "--lake", str(relayed.lake), "--until-end"]
    assert Running(relayed.folder, [*COLLECTOR, "collect", *words]).wait(60) == 0
    assert guest.rows() == expected(range(30))
