"""What a commit keeps of a machine: once, packed, with a bound whatever a kernel prints, and read back as it was."""

import json
import random
import string

import pytest

from consumers.alerts import stored
from consumers.alerts.case import Case
from consumers.alerts.machine import Machine
from consumers.alerts.partition import MACHINE_CASES_MAX
from consumers.alerts.payload import Whose
from consumers.incidents import codec
from schemas.errors import StorageError
from schemas.frame import decode
from schemas.stream import Stream
from tests.consumers.alerts._cases import S
from tests.consumers.alerts._stalls import HEALTHY, Kernel

WHERE = Stream("m1", "", "guest-kernel", "alerts", "", "")


def size(value):
    return len(json.dumps(value, separators=(",", ":")))


def followed(incidents, reports, text_of, apart_s=700.0):
    """Return a machine and the newest of its cases, of so many incidents of so many reports each."""
    kernel, machine, cases = Kernel(), Machine("m1", "guest-kernel"), {}
    for number in range(incidents):
        texts = []
        for report in range(reports):
            texts += [
                f"watchdog: BUG: soft lockup - CPU#{report} stuck for 99s! [{text_of(60)}:{report}]",
                *(f"NMI watchdog: {text_of(140)}" for _ in range(4)),
                f"CPU: {report} PID: {report} Comm: {text_of(15)} Tainted: G O L 6.1.{text_of(140)} #1",
                f"Hardware name: {text_of(140)}",
                *(f"workqueue: {text_of(140)} hogged CPU for >10000us 4 times, consider" for _ in range(12)),
                *(f" {text_of(60)}+0x1/0x2 [{text_of(60)}]" for _ in range(40)),
            ]
        frame = decode(kernel.says(*texts, after_s=apart_s))
        for incident in machine.feed(frame, number * 100 * S):
            case = cases.setdefault(incident.id, Case(incident, Whose("v", "h"), S, S))
            case.note(incident, number * 100 * S)
    return machine, list(cases.values())[-MACHINE_CASES_MAX:]


def chance():
    drawn = random.Random(7)
    return lambda length: "".join(drawn.choices(string.ascii_letters + string.digits, k=length))


def test_what_is_small_is_plain_and_is_not_changed_by_what_comes_later():
    machine, kernel = Machine("m1", "guest-kernel"), Kernel()
    machine.feed(decode(kernel.says(HEALTHY)), S)
    value = stored.pack(machine, [])
    before = json.dumps(value)
    assert (value["v"], value["cases"]) == (stored.VERSION, [])
    assert value["kernel"]["histories"][0]["boot_id"] == "b1"
    machine.feed(decode(kernel.says(HEALTHY)), 2 * S)
    assert json.dumps(value) == before


def test_what_is_large_is_packed_and_nothing_of_it_is_lost():
    machine, cases = followed(10, 8, lambda length: "x" * length)
    value = stored.pack(machine, cases)
    assert set(value) == {"v", "size", "zstd"}
    assert size(value) < value["size"] / 10
    again = stored.unpack(WHERE, json.loads(json.dumps(value)))
    assert again.cases == cases
    assert again.machine.state() == machine.state()


def test_an_incident_that_is_held_is_one_object_again():
    machine, cases = followed(3, 2, lambda length: "x" * length)
    again = stored.unpack(WHERE, stored.pack(machine, cases))
    assert len(again.cases) == 3
    assert all(each.incident is again.machine.incident(each.incident.id) for each in again.cases)


def test_what_does_not_compress_has_a_bound_and_says_what_it_lacks():
    machine, cases = followed(20, 16, chance())
    assert len(cases) == MACHINE_CASES_MAX
    assert any(machine.holds(each.incident.id) for each in cases)
    whole = sum(size(codec.to_dict(each.incident)) for each in cases)
    assert whole > 1.5 * stored.STATE_SIZE_MAX
    value = stored.pack(machine, cases)
    assert size(value) <= stored.STATE_SIZE_MAX
    again = stored.unpack(WHERE, value)
    for before, after in zip(cases, again.cases, strict=True):
        assert after.alert() == before.alert()
        kept, had = after.incident, before.incident
        assert len(kept.reports) + kept.dropped_reports == len(had.reports) + had.dropped_reports
        assert len(kept.root.lines) + kept.root.dropped_lines == len(had.root.lines) + had.root.dropped_lines
    assert any(after.incident != before.incident for before, after in zip(cases, again.cases, strict=True))


def test_the_state_of_version_1_is_read():
    machine, cases = followed(8, 3, lambda length: "x" * length)
    old = {"kernel": machine.state(), "cases": [case.to_json() for case in cases]}
    for each in old["cases"]:
        del each["id"]
    again = stored.unpack(WHERE, json.loads(json.dumps(old)))
    assert again.cases == cases


def test_a_newer_version_and_damage_are_one_clear_error_each():
    machine, cases = followed(4, 8, lambda length: "x" * length)
    value = stored.pack(machine, cases)
    with pytest.raises(StorageError, match="of guest-kernel m1 is of version 3, and this program reads"):
        stored.unpack(WHERE, value | {"v": 3})
    for damage in ({"zstd": "x"}, {"zstd": "AAAA"}, {"size": value["size"] + 1}, {"size": 1 << 40}, {"size": "1"}):
        with pytest.raises(StorageError, match="of guest-kernel m1 is damaged"):
            stored.unpack(WHERE, value | damage)
    lost = json.loads(json.dumps({"kernel": {"histories": []}, "cases": [cases[0].to_json(whole=False)]}))
    with pytest.raises(StorageError, match="is damaged"):
        stored.unpack(WHERE, lost)
