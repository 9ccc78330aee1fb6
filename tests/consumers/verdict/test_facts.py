"""A fact is known, or it is said why not."""

from dataclasses import fields

import pytest

from consumers.verdict.facts import ABOUT, NAMES, Fact, Facts, holds, known, unknown


def test_every_fact_has_an_id_of_the_inventory_and_a_remedy():
    assert {*NAMES, "vcpu"} == set(ABOUT)
    assert len(fields(Facts)) == len(NAMES) + 3
    assert all(
        about.id[0] in "GHM" and about.id[1:].isdigit() and about.title and about.remedy for about in ABOUT.values()
    )


@pytest.mark.parametrize(
    ("fact", "answer"),
    [
        (known(True), True),
        (known(True, complete=False), True),
        (known(False), False),
        (known(False, complete=False), None),  # blind in part: what was not found may have been there
        (unknown("nobody looked"), None),
        (Fact(), None),
    ],
)
def test_blind_is_never_absent(fact, answer):
    assert holds(fact) is answer


def test_nothing_but_the_text_is_no_fact():
    none = Facts.none()
    assert all(getattr(none, name).value is None for name in NAMES)
    assert not none.vcpus
