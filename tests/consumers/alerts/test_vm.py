"""What the monitor of a VM says, and which incidents that makes; the state after each frame goes on as the whole."""

import json

import pytest

from consumers.alerts.vm import Vm, Who
from consumers.incidents import codec
from consumers.incidents.incident import State
from consumers.reports.report import Kind
from schemas.errors import BadInputError
from schemas.frame import decode
from tests.consumers.alerts._monitors import Monitor, S

WHO = Who("h1", "virtual-platform", "web-7")


class Watched:
    """A VM that is restored from its state after every frame."""

    def __init__(self):
        self.vm = Vm(WHO, 10 * S)
        self.found = {}

    def feed(self, *frames):
        changed = []
        for frame in frames:
            changed += self.vm.feed(decode(frame))
            self.vm = Vm.restore(WHO, 10 * S, json.loads(json.dumps(self.vm.state())))
        self.found |= {each.id: codec.decode(codec.encode(each)) for each in changed}
        return changed

    @property
    def said(self):
        return [(each.kind, each.state, each.ended_by) for each in self.found.values()]


@pytest.fixture
def watched():
    return Watched()


@pytest.fixture
def monitor():
    return Monitor()


@pytest.mark.parametrize("event", ["GUEST_PANICKED", "GUEST_CRASHLOADED"])
def test_a_panic_is_one_incident_however_often_it_is_told(watched, monitor, event):
    (panic,) = watched.feed(monitor.event(event, action="pause"))
    assert (panic.kind, panic.panicked, panic.vm, panic.source) == (Kind.PANIC, True, "web-7", ("h1", "hb1", WHO.layer))
    assert panic.root.lines[0].text == f'{event} {{"action": "pause"}}'
    more = monitor.event("GUEST_PANICKED"), monitor.event("STOP"), monitor.status("guest-panicked"), monitor.beats()
    assert watched.feed(*more) == []


def test_it_ends_when_the_guest_is_reset_and_a_panic_soon_behind_is_the_same(watched, monitor):
    watched.feed(monitor.event("GUEST_PANICKED"), monitor.event("RESET", 5, reason="guest-reset"))
    assert watched.said == [(Kind.PANIC, State.ENDED, "reboot")]
    watched.feed(monitor.event("GUEST_PANICKED", 20))
    assert watched.said == [(Kind.PANIC, State.OPEN, "")]
    watched.feed(monitor.event("RESET"), monitor.beats(100), monitor.event("GUEST_PANICKED"))
    assert len(watched.found) == 2


def test_a_vm_that_its_panic_shut_down_is_not_well_until_it_runs_again(watched, monitor):
    watched.feed(monitor.event("GUEST_PANICKED"), monitor.event("SHUTDOWN", reason="guest-panic"))
    assert watched.said == [(Kind.PANIC, State.OPEN, "")]
    watched.feed(monitor.status("running"))
    assert watched.said == [(Kind.PANIC, State.ENDED, "reboot")]


def test_a_state_alone_tells_of_a_panic_that_nobody_heard(watched, monitor):
    (panic,) = watched.feed(monitor.status("guest-panicked"))
    assert panic.root.lines[0].text == "status guest-panicked"


def test_a_short_stop_is_nobodys_business(watched, monitor):
    watched.feed(monitor.event("STOP"), monitor.status("paused", 1), monitor.event("RESUME", 8), monitor.beats(60))
    assert watched.found == {}


def test_who_stays_stopped_is_told_when_the_time_is_over_and_until_it_runs(watched, monitor):
    assert watched.feed(monitor.event("STOP"), monitor.status("paused", 9)) == []
    (stopped,) = watched.feed(monitor.beats(2))
    assert (stopped.kind, stopped.duration, stopped.since_ns) == (Kind.VM_STOPPED, (11.0, 11.0), monitor.at_ns - 11 * S)
    assert [line.text for line in stopped.root.lines] == ["STOP", "status paused"]
    assert watched.feed(monitor.status("paused"), monitor.beats()) == []
    (ended,) = watched.feed(monitor.event("RESUME", 5))
    assert (ended.id, ended.ended_by, ended.proof, ended.duration.high) == (
        stopped.id,
        "progress",
        "qmp_events 3",
        36.0,
    )


def test_a_stop_is_confirmed_by_a_run_state_or_the_error_that_made_it(watched, monitor):
    assert watched.feed(monitor.event("STOP"), monitor.beats(30)) == []
    watched.feed(monitor.event("RESUME"), monitor.event("BLOCK_IO_ERROR", action="stop"), monitor.event("STOP"))
    (stopped,) = watched.feed(monitor.beats(12))
    assert stopped.root.lines[0].text.startswith("BLOCK_IO_ERROR")
    watched.feed(monitor.event("BLOCK_IO_ERROR", action="report"))
    assert len(watched.found) == 1


@pytest.mark.parametrize("status", ["prelaunch", "inmigrate", "postmigrate", "suspended", "shutdown", "running"])
def test_who_never_ran_here_or_went_on_elsewhere_is_not_stopped(watched, monitor, status):
    watched.feed(monitor.event("STOP"), monitor.status(status, 1), monitor.beats(60), monitor.status(status))
    assert watched.found == {}


@pytest.mark.parametrize("status", ["paused", "io-error", "internal-error"])
def test_an_agent_that_comes_later_sees_that_it_stands(watched, monitor, status):
    watched.feed(monitor.status(status), monitor.status(status))
    assert watched.said == [(Kind.VM_STOPPED, State.OPEN, "")]


@pytest.mark.parametrize(("event", "by"), [("SHUTDOWN", "shutdown"), ("RESET", "reboot"), ("RESUME", "progress")])
def test_a_stop_ends_by_what_ends_it(watched, monitor, event, by):
    watched.feed(monitor.event("STOP"), monitor.status("paused", 1), monitor.beats(10), monitor.event(event))
    assert watched.said == [(Kind.VM_STOPPED, State.ENDED, by)]
    assert watched.feed(monitor.event("STOP"), monitor.beats(20)) == []


def test_another_boot_of_the_host_ends_what_its_vms_had(watched, monitor):
    watched.feed(monitor.event("GUEST_PANICKED"), Monitor(boot="hb2").beats())
    assert watched.said == [(Kind.PANIC, State.ENDED, "reboot")]
    assert watched.feed(monitor.event("GUEST_PANICKED")) == []


def test_a_watchdog_that_fires_again_is_the_same_and_stops_nothing_else(watched, monitor):
    watched.feed(monitor.event("WATCHDOG", action="pause"), monitor.event("STOP"), monitor.status("watchdog"))
    watched.feed(monitor.event("WATCHDOG", 30, action="pause"), monitor.beats(30))
    (incident,) = watched.found.values()
    assert (incident.kind, len(incident.start_lines)) == (Kind.WATCHDOG, 2)
    watched.feed(monitor.event("RESET"))
    assert watched.said == [(Kind.WATCHDOG, State.ENDED, "reboot")]


def test_silence_makes_it_stale_and_ends_nothing(watched, monitor):
    watched.feed(monitor.event("GUEST_PANICKED"), monitor.beats(200))
    assert watched.said == [(Kind.PANIC, State.STALE, "")]


def test_what_is_part_of_another_is_told_once(watched, monitor):
    (panic,) = watched.feed(monitor.event("GUEST_PANICKED"))
    joined = watched.vm.joined(panic.id, "other")
    assert (joined.state, joined.ended_by, joined.joined) == (State.ENDED, "joined", "other")
    assert watched.vm.joined(panic.id, "other") is None
    assert watched.vm.holds(panic.id)


def test_records_that_were_taken_are_not_taken_again(watched, monitor):
    frame = monitor.event("GUEST_PANICKED")
    assert watched.feed(frame) != []
    watched.feed(monitor.event("RESET"))
    assert watched.feed(frame) == []


def test_its_state_is_bounded_whatever_it_says(watched, monitor):
    for _ in range(300):
        watched.feed(monitor.event("GUEST_PANICKED", 70, info="x" * 4000), monitor.event("RESET"))
        watched.feed(*(monitor.event("WATCHDOG", info="\0" * 900) for _ in range(2)))
    assert len(json.dumps(watched.vm.state())) < 32 << 10


def test_a_frame_that_is_none_is_an_error_and_changes_nothing(watched, monitor):
    frame = decode(monitor.event("GUEST_PANICKED"))
    before = watched.vm.state()
    for body in (b"\xc1", b"\x90"):
        frame.body = body
        with pytest.raises(BadInputError):
            watched.vm.feed(frame)
    assert watched.vm.state() == before


def test_a_panic_is_told_though_the_agent_numbers_from_0_again(watched, monitor):
    watched.feed(*(monitor.status("running") for _ in range(5)))
    monitor.anew()
    before = monitor.beats(), monitor.status("running")
    assert watched.feed(*before) == []
    (panic,) = watched.feed(monitor.event("GUEST_PANICKED"))
    assert panic.root.lines[0].place == 6
    # What is sent again is known.
    assert watched.feed(*before) == []
    assert watched.said == [(Kind.PANIC, State.OPEN, "")]
