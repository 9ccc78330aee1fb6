"""One panic is one incident: what a VM's monitor told joins its guest's own, in whichever order the two came."""

import threading

import pytest

from consumers.alerts.case import Case
from consumers.alerts.follow import AlertFollower
from consumers.alerts.hosts import Hosts
from consumers.alerts.joins import Guest, part_of, read
from consumers.alerts.judge import Judge
from consumers.alerts.payload import Whose
from consumers.alerts.signs import SignReader
from consumers.incidents.incident import Source
from consumers.lake.storage import MemoryStorage
from consumers.reports.report import Kind
from consumers.transport.memory import MemoryLog, MemoryReader
from consumers.verdict.facts import Facts
from consumers.verdict.judge import judge
from schemas.config import AlertConfig
from tests.consumers.alerts._cases import Receiver, incident
from tests.consumers.alerts._monitors import Monitor
from tests.consumers.alerts._stalls import LOG, STATE, Kernel
from tests.consumers.alerts.test_follow import newest

S = 10**9
AT = 1000 * S
COLUMNS = "kind, state, ended_by, layer, vm, panicked"


def told(opened_ns=AT, ended_ns=None):
    source = Source("h1", "hb1", "virtual-platform")
    found = incident("panic", source=source, kind=Kind.PANIC, vm="web-7")
    return Case(found, Whose("web-7", "h1"), opened_ns, opened_ns, ended_ns)


def guest(key="g", opened_s=990, changed_s=995, ended_s=None, ended_by="", length_s=None):
    return Guest(key, opened_s * S, changed_s * S, ended_s and ended_s * S, ended_by, length_s)


@pytest.mark.parametrize(
    "found",
    [
        guest(),
        guest(changed_s=960, length_s=45.0),
        guest(ended_s=1005, ended_by="reboot"),  # by the reboot behind the panic
        guest(opened_s=1003, changed_s=1003),  # its lines took longer
    ],
)
def test_it_is_part_of_what_went_on_or_comes_late(found):
    assert part_of(told(), [found]) == "g"


@pytest.mark.parametrize(
    "found",
    [
        guest(changed_s=960),
        guest(ended_s=999, ended_by="reboot"),
        guest(ended_s=1005, ended_by="progress"),
    ],
)
def test_it_is_no_part_of_what_was_over_or_silent_for_long(found):
    assert part_of(told(), [found]) is None


def test_what_comes_long_after_its_end_is_of_another_boot():
    assert part_of(told(ended_ns=AT + 5 * S), [guest(opened_s=1010, changed_s=1010)]) == "g"
    assert part_of(told(ended_ns=AT + 5 * S), [guest(opened_s=1020, changed_s=1020)]) is None


def test_of_several_the_nearest_is_chosen():
    assert part_of(told(), [guest("far", opened_s=900, length_s=60.0), guest("near")]) == "near"


@pytest.fixture
def log():
    return MemoryLog([LOG.topic, STATE.topic])


@pytest.fixture
def storage():
    made = MemoryStorage()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setattr(
        Hosts, "guests", lambda _self, vm, host: frozenset({"m1"} if (vm, host) == ("web-7", "h1") else ())
    )


def alert(log, storage, url):
    config = AlertConfig(alertmanager=(url,), resend_s=1.0, ends_ahead_s=60.0, hold_s=0.1, commit_s=30.0)
    assess = Judge(lambda each: judge(each, Facts.none()))
    signs = SignReader(lambda: MemoryReader(log))
    AlertFollower(MemoryReader(log), storage, config, assess, signs).run(threading.Event(), until_end=True)


def kinds(receiver):
    return {each["labels"]["kind"] for each in receiver.alerts}


def test_a_panic_without_a_word_of_its_guest_is_paged_and_is_its_vms(log, storage):
    log.append(STATE, Monitor().event("GUEST_PANICKED", action="run"))
    with Receiver() as receiver:
        alert(log, storage, receiver.url)
        page, pages = receiver.alerts[-1], receiver.alerts
    assert newest(storage, COLUMNS) == [("panic", "open", "", "virtual-platform", "web-7", True)]
    labels = page["labels"]
    assert all(each["labels"] == labels for each in pages)
    assert (labels["alertname"], labels["kind"], labels["vm"], labels["host"]) == (
        "GuestIncident",
        "panic",
        "web-7",
        "h1",
    )
    assert page["annotations"]["owner"] == "undetermined"


@pytest.mark.parametrize("text_first", [True, False])
def test_a_panic_in_a_lockup_is_one_incident_and_one_page(log, storage, text_first):
    stall, panic = (LOG, Kernel().stalls()), (STATE, Monitor().event("GUEST_PANICKED"))
    for where, frame in [stall, panic] if text_first else [panic, stall]:
        log.append(where, frame)
    with Receiver() as receiver:
        alert(log, storage, receiver.url)
        assert kinds(receiver) == {"soft_lockup"}
    found = sorted(newest(storage, COLUMNS))
    assert found == [
        ("panic", "ended", "joined", "virtual-platform", "web-7", True),
        ("soft_lockup", "open", "", "guest-kernel", "", True),
    ]


@pytest.mark.parametrize("text_first", [True, False])
def test_a_panic_that_the_guest_tells_too_is_one_page(log, storage, text_first):
    said = (LOG, Kernel().says("Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b"))
    told = (STATE, Monitor().event("GUEST_PANICKED"))
    for where, frame in [said, told] if text_first else [told, said]:
        log.append(where, frame)
    with Receiver() as receiver:
        alert(log, storage, receiver.url)
        assert len({each["labels"]["incident_id"] for each in receiver.alerts}) == 1
    assert sorted(newest(storage, COLUMNS)) == [
        ("panic", "ended", "joined", "virtual-platform", "web-7", True),
        ("panic", "open", "", "guest-kernel", "", True),
    ]


def test_what_another_alerter_found_is_in_the_lake(log, storage):
    guests = MemoryLog([LOG.topic])
    guests.append(LOG, Kernel().stalls())
    with Receiver() as receiver:
        alert(guests, storage, receiver.url)
        log.append(STATE, Monitor().event("GUEST_PANICKED"))
        alert(log, storage, receiver.url)
        assert kinds(receiver) == {"soft_lockup"}
    (found,) = read(storage, frozenset({"m1"}))
    assert ("panic", "ended", "joined") in newest(storage, "kind, state, ended_by")
    assert found.length_s == 22.0


def test_a_replay_into_another_lake_finds_the_same(log, storage):
    kernel, monitor = Kernel(), Monitor()
    log.append(STATE, monitor.event("STOP"))
    log.append(LOG, kernel.stalls())
    for _ in range(4):
        log.append(STATE, monitor.status("paused"))
        log.append(LOG, kernel.beats())
    log.append(STATE, monitor.event("RESUME"))
    log.append(STATE, monitor.event("GUEST_PANICKED"))
    log.append(LOG, Kernel(boot="b2").stalls())
    sql = "incident_id, kind, state, ended_by, since_ns, duration_high_s, panicked"
    other = MemoryStorage()
    with Receiver() as receiver:
        alert(log, storage, receiver.url)
        alert(log, other, receiver.url)
    assert newest(storage, sql) == newest(other, sql)
    assert len(newest(storage, sql)) == 4
    other.close()
