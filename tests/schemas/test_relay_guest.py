"""The guest's end against the host's own, without a byte of input or output."""

import copy

from schemas import relay, relay_host
from schemas.frame import encode
from schemas.relay import Hello
from schemas.relay_guest import Acked, Diverged, Greeted, GuestEnd, Ponged
from schemas.relay_host import Arrived, HostEnd
from schemas.surfaces import TOPIC_LOG
from tests._logs import frame

HOST = Hello("vm", "host", "hb", "host", 1 << 20, {})
CLAIMS = Hello("spool", "m", "b", "guest-kernel", 0, {TOPIC_LOG: 9})


def connected():
    guest, host = GuestEnd(), HostEnd(HOST)
    guest.opened()
    (event,) = guest.feed(host.opened())
    assert isinstance(event, Greeted)
    assert event.host == HOST
    assert host.feed(guest.hello(CLAIMS)) == [relay_host.Greeted(CLAIMS)]
    return guest, host


def sent(guest, offset, body=b""):
    payload = encode(frame(offset, body))
    return guest.frame(TOPIC_LOG, offset, payload) + payload


def test_frames_are_sent_and_acknowledged_together():
    guest, host = connected()
    arrived = host.feed(b"".join(sent(guest, n) for n in range(3)))
    assert [(each.topic, each.offset, each.damaged) for each in arrived] == [(TOPIC_LOG, n, False) for n in range(3)]
    assert guest.waiting
    assert guest.feed(host.ack(TOPIC_LOG, 3, arrived[2].check)) == [Acked(TOPIC_LOG, 3, 3)]
    assert not guest.waiting
    assert guest.feed(host.ack(TOPIC_LOG, 3, arrived[2].check)) == []


def test_no_more_than_the_window_is_sent_ahead():
    guest, _ = connected()
    count = 0
    while guest.room():
        sent(guest, count, bytes(range(256)) * 256)
        count += 1
    assert guest.unacked_bytes >= HOST.window_bytes
    assert count > 1


def test_nothing_is_sent_before_the_greeting():
    assert not GuestEnd().room()


def test_what_was_under_way_when_a_connection_broke_counts_for_nothing():
    guest, host = connected()
    late = sent(guest, 0)
    ack = host.ack(TOPIC_LOG, 1, relay.frame_check(late))
    host.closed()
    (event,) = guest.feed(host.opened())
    assert isinstance(event, Greeted)
    assert guest.feed(ack) == []
    assert host.feed(late) == []
    assert host.stale == 1


def test_an_acknowledgement_of_another_history_is_not_believed():
    guest, host = connected()
    host.feed(sent(guest, 0))
    restored = copy.deepcopy(guest)
    (other,) = host.feed(sent(guest, 1, b"before"))
    sent(restored, 1, b"after")
    assert restored.feed(host.ack(TOPIC_LOG, 2, other.check) * 2) == [Diverged(TOPIC_LOG, 2)]
    assert not restored.room()


def test_what_a_spool_lost_is_said_at_the_offset_before_what_it_has():
    guest, host = connected()
    lost = encode(frame(1))
    events = host.feed(b"".join(guest.frame(TOPIC_LOG, 7, lost) + lost for _ in range(2)) + sent(guest, 8))
    assert [each.offset for each in events if isinstance(each, Arrived)] == [7, 7, 8]
    assert guest.feed(host.ack(TOPIC_LOG, 8, relay.frame_check(lost))) == [Acked(TOPIC_LOG, 8, 1)]
    assert guest.feed(host.ack(TOPIC_LOG, 9, events[2].check)) == [Acked(TOPIC_LOG, 9, 2)]


def test_damaged_bytes_of_a_spool_are_told_as_such():
    guest, host = connected()
    for n, payload in enumerate((b"", b"what lies there", encode(frame(1))[:-1])):
        (event,) = host.feed(guest.frame(TOPIC_LOG, n, payload) + payload)
        assert (event.payload, event.damaged) == (payload, True)
    assert guest.feed(host.ack(TOPIC_LOG, 3, event.check)) == [Acked(TOPIC_LOG, 3, 3)]


def test_times_go_to_and_fro():
    guest, host = connected()
    assert host.feed(guest.ping(4, 100)) == [relay_host.Pinged(4, 100)]
    assert guest.feed(host.pong(4, 100, 5, 6)) == [Ponged(4, 100, 5, 6)]
    assert host.feed(guest.times(4, 100, 130)) == [relay_host.Timed(4, 100, 130)]
