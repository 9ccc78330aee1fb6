"""Every row of the decision table has words for what it asks and for what would contradict it."""

from dataclasses import replace

import pytest

from consumers.incidents import wording
from consumers.incidents.wording import RESOURCES, contradictions, open_rows, row_of, row_words
from consumers.verdict.table import HINTS, ROWS, RULES_VERSION, Says
from consumers.verdict.verdict import Confidence, Owner, Rejected, Verdict
from tests.consumers.incidents._reports import hung, play, soft


def verdict(row, sentence=None, **fields):
    told = f"CPU 1 stood still, because {row.says}" if sentence is None else sentence
    return Verdict(row.owner, row.confidence, row.id, RULES_VERSION, told, **fields)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.id}-{row.owner}-{row.confidence}")
def test_a_row_is_found_again_and_told(row):
    made = verdict(row)
    found = row_of(made)
    assert (found.id, found.owner, found.says) == (row.id, row.owner, row.says)
    told = row_words(made)
    assert told.startswith("if ") and row.says in told
    against = list(contradictions(made, "lines 1 to 2"))
    assert len(against) == len(found.conditions)
    assert all(each and each[0].islower() for each in against)


def test_a_share_is_contradicted_by_the_rest_of_the_time():
    (row,) = (row for row in ROWS if row.id == "C1")
    assert list(contradictions(verdict(row), "")) == [
        "the vCPU was something else than paused, stopped or frozen for more than 0.5 of the time"
    ]


def test_a_row_of_another_table_is_not_guessed():
    made = replace(verdict(ROWS[0]), rules=RULES_VERSION + 1)
    assert row_of(made) is None
    assert row_words(made) == (
        f"it is of version {RULES_VERSION + 1} of the table; this program has version {RULES_VERSION}"
    )


@pytest.mark.parametrize("hint", HINTS, ids=lambda hint: hint.id)
def test_a_hint_is_no_verdict(hint):
    made = Verdict(Owner.UNDETERMINED, Confidence.NONE, hint.id, RULES_VERSION, f"undetermined: {hint.says}")
    assert row_words(made) == (
        f"no row decided; where {wording.QUESTIONS[hint.question][1]}, {hint.says}: a hint, and no verdict"
    )


def test_what_the_text_denies_or_somebody_rejected_is_not_open():
    (incident,) = play(soft(1, 100, 22)).incidents
    nobody = Verdict(Owner.UNDETERMINED, Confidence.NONE, "-", RULES_VERSION, "undetermined")
    owners = {owner for owner, _ in open_rows(incident, nobody)}
    assert owners >= {Owner.VMM_PAUSE, Owner.HOST_CPU, Owner.HOST_KERNEL}
    assert Owner.CONFIG_THRESHOLD not in owners  # 22 s are not short
    rejected = replace(nobody, rejected=(Rejected(Owner.HOST_CPU, "it had one"),))
    assert Owner.HOST_CPU not in {owner for owner, _ in open_rows(incident, rejected)}
    (blocked,) = play(hung(5, 100, 122, "schedule", "msleep")).incidents
    assert Owner.STORAGE_BACKEND in {owner for owner, _ in open_rows(incident, nobody)}
    assert {row for _, row in open_rows(blocked, nobody)} != {row for _, row in open_rows(incident, nobody)}


def test_every_owner_is_a_resource_and_no_row_asks_of_the_text_twice():
    assert set(RESOURCES) == set(Owner)
    (incident,) = play(soft(1, 100, 22)).incidents
    nobody = Verdict(Owner.UNDETERMINED, Confidence.NONE, "-", RULES_VERSION, "undetermined")
    said = [wording.QUESTIONS[each.question][1] for row in ROWS for each in row.conditions if isinstance(each, Says)]
    assert not [row for _, row in open_rows(incident, nobody) if any(row.startswith(each) for each in said)]
