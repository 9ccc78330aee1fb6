"""Each row of the decision table gives its answer (constructed; tests of the captures have real ones), and no row is idle."""

import pytest

from consumers.verdict.judge import judge
from consumers.verdict.table import HINTS, PARTS, ROWS
from consumers.verdict.text import QUESTIONS
from consumers.verdict.verdict import Confidence, Owner
from tests.consumers.verdict import _rows

#: As the specification numbers them; C10, S6 and S7 move the accusation, C12, S4 and S6 name nobody.
ALL = {*(f"C{i}" for i in range(1, 17)), *(f"S{i}" for i in range(1, 10)), "K1", "K2", "K3", "K4", "N1"}
#: Of what a VM's monitor tells there are rows of our own.
ALL |= {f"V{i}" for i in range(1, 6)}
#: And of what a kernel that panics says itself.
ALL |= {f"P{i}" for i in range(1, 9)}


@pytest.mark.parametrize("case", _rows.CASES, ids=lambda case: f"{case.row}-{case.name}".replace(" ", "-"))
def test_a_row_names_its_owner(case):
    found = judge(case.incident, case.facts)
    assert (found.row, found.owner, found.confidence) == (case.row, case.owner, case.confidence), found
    assert found.shared == case.shared
    if found.owner is not Owner.UNDETERMINED:
        assert found.evidence
        assert found.owner not in {each.owner for each in found.rejected}


def test_every_row_of_the_specification_has_a_case():
    assert {case.row for case in _rows.CASES} | {"S7"} >= ALL
    moved = judge(*next((each.incident, each.facts) for each in _rows.CASES if each.name == "behind an RCU stall"))
    assert any(each.text.startswith("S7: ") for each in moved.evidence)


def test_every_row_of_the_table_is_the_answer_of_a_case():
    told = {(case.row, case.owner) for case in _rows.CASES}
    assert {(row.id, row.owner) for row in ROWS} <= told
    assert {(row.id, row.owner) for row in PARTS} <= told
    assert {row.id for row in ROWS} | {hint.id for hint in HINTS} <= ALL


def test_questions_are_known_and_no_row_is_sure_of_nothing():
    assert {hint.question for hint in HINTS} <= set(QUESTIONS)
    assert all(row.conditions and row.confidence is not Confidence.NONE for row in ROWS)
