from schemas import relay
from schemas.relay import Kind, Refused
from schemas.relay_host import Arrived, Asked, Greeted, HostEnd, WentBack
from schemas.surfaces import TOPIC_LOG
from tests.schemas.test_relay_guest import CLAIMS, HOST, connected, sent


def test_a_greeting_that_was_not_answered_is_offered_again_and_an_answered_one_is_another():
    host = HostEnd(HOST)
    host.opened()
    first = host.link
    host.opened()
    assert host.link == first
    _, host = connected()
    first = host.link
    host.opened()
    assert host.link not in (0, first)


def test_a_guest_without_a_connection_asks_for_one():
    guest, host = connected()
    assert host.feed(guest.opened()) == [Asked()]


def test_a_frame_before_the_answer_is_left_alone():
    guest, _host = connected()
    data = sent(guest, 0)
    other = HostEnd(HOST, draw=lambda: guest.link)
    other.opened()
    assert other.feed(data) == []
    assert other.feed(guest.hello(CLAIMS) * 2) == [Greeted(CLAIMS)]
    (event,) = other.feed(data)
    assert isinstance(event, Arrived)


def test_a_guest_whose_offsets_go_back_was_restored():
    guest, host = connected()
    frames = [sent(guest, n) for n in range(5)]
    host.feed(b"".join(frames))
    assert host.feed(frames[2]) == [WentBack(TOPIC_LOG, 2)]


def test_what_only_a_host_may_send_is_refused():
    _, host = connected()
    (event,) = host.feed(host.ack(TOPIC_LOG, 1, 0))
    assert event == Refused("direction", bytes(4), 4 + relay.HEADER_BYTES)
    (event,) = host.feed(relay.encode(Kind.HELLO, host.link, payload=b"\x80"))
    assert event.reason == "hello"


def test_what_began_when_the_guest_went_away_is_given_up():
    guest, host = connected()
    host.feed(sent(guest, 0)[:-1])
    assert host.open
    assert host.closed().reason == "broken-off"
    assert not host.open
