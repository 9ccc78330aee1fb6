"""What a relay says of its own: positions that go on over its restarts, and spans of watching that close."""

from pathlib import Path

import pytest

from producers.relay.accounts import Accounts
from producers.relay.guest import Guest, Host
from producers.relay.history import History
from producers.relay.vms import Connect, Vm
from schemas import heartbeat, state
from schemas.relay import Hello
from schemas.relay_host import Timed
from schemas.segment import StreamPosition
from schemas.stream import Stream

HOST = Host("the-host", "host-boot")
OWN = Stream("the-host", "host-boot", "host", "relay", "", "boot")


@pytest.fixture
def accounts():
    return Accounts(HOST, "run", {})


def guest(accounts, name="web"):
    made = Guest(Vm(name, "", Connect(Path(f"/run/{name}.sock"))), HOST, History())
    accounts.watch(made)
    return made


def beats(made):
    return {each.stream.instance: heartbeat.unpack(each.body) for each in made if each.encoding == "heartbeat"}


def test_an_account_is_a_record_of_each_guest_and_a_heartbeat_of_each_port(accounts):
    guests = [guest(accounts), guest(accounts, "db")]
    guests[0].connected, guests[0].connections, guests[0].bytes = True, 3, 900
    made = accounts.frames(guests, strangers=5)
    records = [record for each in made if each.encoding == "relay" for record in state.unpack(each.body)]
    assert [record.fields["vm"] for record in records] == ["web", "db"]
    found = beats(made)
    assert list(found) == ["", "web", "db"]
    assert found[""].counters == {"guests": 2, "strangers": 5}
    assert found["web"].counters == {"connected": 1, "connections": 3, "bytes": 900}
    assert {each.stream._replace(instance="") for each in made} == {OWN}


def test_spans_of_watching_join_and_all_have_one_reading_of_the_clocks(accounts):
    web = guest(accounts)
    one, two = beats(accounts.frames([web])), beats(accounts.frames([web]))
    for name in ("", "web"):
        assert one[name].since_realtime_ns < one[name].until_realtime_ns == two[name].since_realtime_ns
    assert len({(each.realtime_ns, each.monotonic_ns, each.boottime_ns) for each in two.values()}) == 1
    assert (two[""].first_position, two["web"].first_position) == (1, 0)


def test_numbers_and_positions_of_every_stream_rise_by_what_it_says(accounts):
    web = guest(accounts)
    made = [*accounts.frames([web]), *accounts.frames([web]), *accounts.leave(web)]
    own = [(each.number, each.first, each.next) for each in made if each.stream == OWN]
    assert own == [(0, 0, 1), (1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 3)]
    port = [(each.number, each.first, each.next) for each in made if each.stream.instance == "web"]
    assert port == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]


def test_while_a_guest_was_gone_nobody_watched_its_port(accounts):
    web = guest(accounts)
    last = beats(accounts.leave(web))["web"]
    assert list(beats(accounts.frames([]))) == [""]
    again = guest(accounts)
    (frame,) = [each for each in accounts.frames([again]) if each.stream.instance == "web"]
    assert heartbeat.unpack(frame.body).since_realtime_ns > last.until_realtime_ns
    assert frame.number == 1


def test_another_run_goes_on_where_the_log_stands():
    port = OWN._replace(instance="web")
    made = Accounts(HOST, "run 2", {OWN: StreamPosition(40, 7), port: StreamPosition(0, 9)})
    found = [(each.number, each.first, each.next, each.run) for each in made.frames([guest(made)])]
    assert found == [(8, 40, 41, "run 2"), (9, 41, 41, "run 2"), (10, 0, 0, "run 2")]


def test_exchanges_of_times_are_of_the_guest_and_it_gets_no_heartbeat(accounts):
    web = guest(accounts)
    for boot in ("boot", "boot 2", "boot"):
        web.greeted(Hello("spool", "m", boot, "guest-kernel", 0, {}))
        web.pinged(1, 10, 20, 30)
        web.timed(Timed(1, 10, 40))
    clocks = [each for each in accounts.frames([web]) if each.stream.surface == "clocks"]
    assert [(each.stream, each.count, each.encoding) for each in clocks] == [
        (Stream("web", "boot", "guest-kernel", "clocks", "relay", "mono"), 2, "clocks"),
        (Stream("web", "boot 2", "guest-kernel", "clocks", "relay", "mono"), 1, "clocks"),
    ]
