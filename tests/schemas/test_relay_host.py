from schemas import relay
from schemas.relay import Kind, Refused
from schemas.relay_guest import GuestEnd
from schemas.relay_host import Arrived, Asked, Greeted, HostEnd, WentBack
from schemas.surfaces import TOPIC_LOG
from tests.schemas.test_relay_guest import CLAIMS, HOST, connected, sent


def test_a_guest_that_asks_before_it_answers_is_offered_the_same_connection():
    guest, host = GuestEnd(), HostEnd(HOST)
    greeting, asked = host.opened(), guest.opened()
    guest.feed(greeting)
    events = host.feed(asked + guest.hello(CLAIMS) + sent(guest, 0))
    assert [type(each) for each in events] == [Asked, Greeted, Arrived]
    assert guest.feed(host.greeting()) == []


def test_a_guest_that_lost_its_connection_gets_another():
    guest, host = connected()
    first, late = host.link, sent(guest, 0)
    assert host.feed(guest.opened() + late) == [Asked()]
    assert host.link != first
    assert len(guest.feed(host.greeting())) == 1
    assert guest.link == host.link


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
    assert host.feed(frames[2] + frames[3]) == [WentBack(TOPIC_LOG, 2)]
    assert len(guest.feed(host.greeting())) == 1


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
