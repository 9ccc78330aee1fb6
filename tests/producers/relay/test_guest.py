"""One guest at the relay: whose its frames become, what it may claim, what it may send, and how fast."""

import zlib

import pytest

from producers.relay.guest import Bucket, Guest, Host, boottime_ns
from producers.relay.history import History
from producers.relay.vms import Connect, Vm
from schemas import frame as frames
from schemas.frame import encode
from schemas.relay import Hello, Refused
from schemas.relay_host import Arrived, Timed
from schemas.stream import Stream
from schemas.surfaces import TOPIC_LOG, TOPIC_TRACE
from tests._logs import frame

UUID = "5d1f8c1e-2b5c-4b6a-9a55-0f3a1c2d3e4f"
CLAIMED = Stream("claimed", "boot", "guest-kernel", "kmsg", "", "printk")
CLAIMS = Hello("spool", "claimed", "boot", "guest-kernel", 0, {TOPIC_LOG: 9})


@pytest.fixture
def guest(tmp_path):
    made = Guest(Vm("web", UUID, Connect(tmp_path / "web.sock")), Host("the-host", "host-boot"), History())
    made.greeted(CLAIMS)
    return made


def arrived(number, stream=CLAIMED, *, body=b"", topic=TOPIC_LOG, damaged=False):
    payload = encode(frame(number, body, stream))
    return Arrived(1, topic, number, payload, 0, damaged)


def account(guest):
    return guest.account()[0].fields


def test_a_frame_is_stamped_with_the_guest_that_the_socket_names_and_else_unchanged(guest):
    taken = guest.take(arrived(3), 0.0)
    found = frames.decode(b"".join(taken.parts))
    assert found.stream == taken.stream == CLAIMED._replace(machine=UUID)
    assert found == frames.decode(encode(frame(3, b"", found.stream)))
    assert (taken.topic, taken.at.next, taken.at.number) == (TOPIC_LOG, 40, 3)
    assert (account(guest)["frames"], account(guest)["mismatches"]) == (1, 0)


@pytest.mark.parametrize("layer", ["host", "hypervisor", "firmware", "virtual-platform", "none that there is"])
def test_a_layer_that_no_guest_has_becomes_its_kernels(guest, layer):
    assert guest.take(arrived(0, CLAIMED._replace(layer=layer)), 0.0).stream.layer == "guest-kernel"
    assert guest.take(arrived(1, CLAIMED._replace(layer="guest-userspace")), 0.0).stream.layer == "guest-userspace"
    assert account(guest)["mismatches"] == 1


def test_another_machine_than_the_greetings_is_counted_and_becomes_the_guest(guest):
    assert guest.take(arrived(0, CLAIMED._replace(machine="the-host")), 0.0).stream.machine == UUID
    assert account(guest)["mismatches"] == 1


def test_a_topic_is_that_of_the_surface_whatever_the_packet_says(guest):
    assert guest.take(arrived(0, topic=TOPIC_TRACE), 0.0).topic == TOPIC_LOG
    unknown = CLAIMED._replace(surface="of a later version")
    assert guest.take(arrived(0, unknown, topic=TOPIC_TRACE), 0.0).topic == TOPIC_TRACE


def test_a_frame_sent_again_is_dropped_and_one_with_other_content_is_of_another_history(guest):
    assert guest.take(arrived(0), 0.0)
    assert guest.take(arrived(0), 0.0) is None
    assert guest.take(arrived(0, body=b"another"), 0.0).stream.boot_id == "boot+1"
    found = account(guest)
    assert (found["frames"], found["duplicates"], found["generation"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("reason", "was", "becomes"),
    [
        ("boot-id", b"boot", b"bo+1"),
        ("limit", b"claimed", b"cla\0med"),
        ("malformed", b"\xa4boot", b"\xc4boot"),
        ("malformed", b"\xa4boot", b"\xa4\xff\xff\xff\xff"),
    ],
)
def test_what_may_not_be_is_refused_and_kept_as_a_sample(guest, reason, was, becomes):
    head = encode(frame(0, b"", CLAIMED))[:-4].replace(was, becomes, 1)
    payload = head + zlib.crc32(head[:-1]).to_bytes(4, "big")
    assert guest.take(Arrived(1, TOPIC_LOG, 0, payload, 0, damaged=False), 0.0) is None
    told, sample = guest.account()
    assert told.fields["refused"] == {reason: 1}
    assert (sample.kind, sample.fields["reason"], sample.fields["data"]) == ("relay_refused", reason, payload[:256])


def test_bytes_of_a_damaged_spool_are_refused_as_such(guest):
    assert guest.take(Arrived(1, TOPIC_LOG, 0, b"what lies there", 0, damaged=True), 0.0) is None
    assert account(guest)["refused"] == {"spool-damaged": 1}


def test_of_many_refusals_the_first_are_kept_until_the_next_account_and_all_are_counted(guest):
    for _ in range(100):
        guest.refuse(Refused("garbage", b"?" * 1000, 1000))
    told, *samples = guest.account()
    assert told.fields["refused"] == {"garbage": 100}
    assert len(samples) == 16
    assert {(len(each.fields["data"]), each.fields["size_bytes"]) for each in samples} == {(256, 1000)}
    assert len(guest.account()) == 1


def test_new_streams_are_as_many_as_an_hour_has_and_known_ones_go_on(guest):
    def instance(n):
        return CLAIMED._replace(instance=str(n))

    assert all(guest.take(arrived(0, instance(n)), 1.0) for n in range(4096))
    assert guest.take(arrived(0, instance(4096)), 2.0) is None
    assert account(guest)["refused"] == {"too-many-streams": 1}
    assert guest.take(arrived(1, instance(7)), 3.0)
    assert guest.take(arrived(0, instance(4097)), 3700.0)


def test_a_spool_that_ends_below_what_came_of_it_is_of_a_restored_guest(guest):
    for n in range(5):
        guest.take(arrived(n), 0.0)
    guest.greeted(CLAIMS._replace(ends={TOPIC_LOG: 5}))
    assert guest.history.generation == 0
    guest.greeted(CLAIMS._replace(name="another spool", ends={}))
    assert guest.history.generation == 0
    guest.greeted(CLAIMS._replace(ends={TOPIC_LOG: 4}))
    assert (guest.history.generation, guest.claimed_boot) == (1, "boot+1")


def test_another_boot_is_another_generation_and_few_spools_are_remembered(guest):
    for n in range(9):
        guest.greeted(CLAIMS._replace(name=f"spool-{n}", boot_id=f"boot-{n}"))
    assert guest.history.generation == 9
    assert list(guest.reached) == [f"spool-{n}" for n in range(5, 9)]


def test_an_exchange_of_times_is_a_record_under_the_boot_that_the_guest_is_in(guest):
    guest.pinged(7, 100, 5000, 5010)
    guest.timed(Timed(7, 100, 150))
    guest.pinged(8, 200, 6000, 6010)
    guest.timed(Timed(8, 200, 230))
    ((boot, one), (_, other)) = guest.take_pings()
    assert (boot, one.kind, one.ts_ns) == ("boot", "clock_pings", 150)
    assert [one.fields[name] for name in ("t0_ns", "t1_ns", "t2_ns", "t3_ns")] == [100, 5000, 5010, 150]
    assert (one.fields["host_machine"], one.fields["host_boot_id"], one.fields["vm"]) == (
        "the-host",
        "host-boot",
        "web",
    )
    assert other.fields["t0_ns"] == 200
    assert guest.take_pings() == []
    assert account(guest)["rtt_ns"] == 20
    assert account(guest)["rtt_ns"] is None


@pytest.mark.parametrize("times", [Timed(9, 100, 150), Timed(7, 101, 150), Timed(7, 100, 99)])
def test_times_that_do_not_belong_together_are_left_alone(guest, times):
    guest.pinged(7, 100, 5000, 5010)
    guest.timed(times)
    assert guest.take_pings() == []


def test_times_of_a_guest_that_never_said_its_boot_and_more_than_fit_are_left_alone(guest):
    for n in range(1000):
        guest.pinged(n, n, n, n)
        guest.timed(Timed(n, n, n))
    assert len(guest.take_pings()) == 256
    for n in range(1000):
        guest.pinged(n, n, n, n)
    assert len(guest._pings) == 32
    silent = Guest(guest.vm, Host("h", "b"), History())
    silent.pinged(1, 1, 1, 1)
    silent.timed(Timed(1, 1, 1))
    assert silent.take_pings() == []


def test_a_bucket_lets_its_rate_pass_over_any_time_and_a_second_of_it_at_once():
    bucket, at_s, passed = Bucket(1000, 0.0), 0.0, 0
    while at_s < 60:
        rest_s = bucket.take(130, at_s)
        passed += 130
        at_s += max(rest_s, 0.001)
    assert passed == pytest.approx(60 * 1000 + 1000, rel=0.01)


def test_a_bucket_saves_no_more_than_a_second_and_pays_a_large_amount_off():
    bucket = Bucket(1000, 0.0)
    assert bucket.take(1000, 100.0) == 0
    assert bucket.take(500, 100.0) == 0.5
    assert bucket.take(4000, 100.5) == 4
    assert bucket.take(1, 104.5) == 0.001


def test_the_clock_is_that_of_the_time_since_boot():
    before = boottime_ns()
    assert before <= boottime_ns() < before + 10**9
