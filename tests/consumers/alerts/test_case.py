"""A case goes through JSON as it is, and its row has what the table wants."""

import json

import pyarrow as pa
import pytest

from consumers.alerts.case import Case, verdict_from_json, verdict_to_json
from consumers.alerts.payload import Whose
from consumers.incidents import codec
from consumers.incidents.incident import State
from consumers.lake.tables import TABLES
from consumers.transport.base import Partition
from consumers.verdict.verdict import Confidence, Evidence, Missing, Owner, Record, Rejected, Verdict
from tests.consumers.alerts._cases import S, incident

P = Partition("hypocenter.log", 3)
VERDICT = Verdict(
    Owner.HOST_CPU,
    Confidence.HIGH,
    "C2",
    4,
    "it waited",
    (Evidence("H1", "run_delay", (Record("vcpu_time", "h", "vcpu-time", "", 3, 9),), against=True),),
    (Missing("M2", "losses", "look"),),
    (Rejected(Owner.GUEST_KERNEL, "it did not run"),),
    Owner.HOST_MEMORY,
    (Owner.GUEST_KERNEL,),
)


def test_a_verdict_goes_through_json():
    assert verdict_from_json(json.loads(json.dumps(verdict_to_json(VERDICT)))) == VERDICT
    assert verdict_from_json(verdict_to_json(None)) is None


def test_a_case_goes_through_json():
    case = Case(incident(), Whose("v", "h"), 1 * S, 2 * S, None, VERDICT, 5, 9, {"a"}, set())
    again = Case.from_json(json.loads(json.dumps(case.to_json())), {}.__getitem__)
    assert again == case
    assert again.alert() == case.alert()


def test_of_an_incident_that_stands_elsewhere_a_case_has_the_id():
    case = Case(incident(), Whose("v", "h"), 1 * S, 2 * S)
    value = case.to_json(whole=False)
    assert "stress" not in json.dumps(value)
    assert Case.from_json(value, {"i1": case.incident}.__getitem__).incident is case.incident
    with pytest.raises(KeyError):
        Case.from_json(value, {}.__getitem__)


def test_its_end_is_when_it_ended_first_and_going_on_takes_that_back():
    case = Case(incident(), Whose(), 1 * S, 1 * S)
    case.note(incident(state=State.ENDED, ended_by="progress"), 5 * S)
    case.ended_by.add("am")
    case.note(incident(state=State.ENDED, ended_by="progress", version=2), 8 * S)
    assert (case.ended_ns, case.changed_ns) == (5 * S, 8 * S)
    case.note(incident(version=3), 9 * S)
    assert (case.ended_ns, case.ended_by) == (None, set())


def test_a_verdict_that_says_the_same_is_no_change():
    case = Case(incident(), Whose(), 1 * S, 1 * S)
    assert case.judged(VERDICT)
    assert not case.judged(verdict_from_json(verdict_to_json(VERDICT)))
    assert case.changes == 1


def test_a_row_fits_the_table_judged_or_not():
    rows = []
    for verdict in (None, VERDICT):
        case = Case(incident(), Whose("v", "h"), 1 * S, 2 * S, 3 * S, verdict, version=4)
        rows.append(case.row(P, 17, 20 * S))
    assert set(rows[1]) == set(TABLES["incidents"].schema.names)
    table = pa.Table.from_pylist(rows, schema=TABLES["incidents"].schema).to_pylist()
    assert (table[0]["owner"], table[1]["owner"], table[1]["shared"]) == (None, "host_cpu", "host_memory")
    assert (table[1]["offset"], table[1]["partition"], table[1]["cpus"]) == (17, 3, [3])
    assert codec.decode(table[1]["incident_json"]) == incident()
    assert verdict_from_json(json.loads(table[1]["verdict_json"])) == VERDICT
