"""Blind spans of the sample's second guest, whose agent was away from 9 s to 29 s after its boot and ended at 62 s."""

import pytest

from consumers.export.scope import When
from consumers.timeline.build import Choice, build
from consumers.timeline.entries import Kind
from tests.consumers import _sample
from tests.consumers._sample import LOCKED, START_NS

S = 10**9
BOOT_NS = START_NS + 40 * S


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return _sample.build(tmp_path_factory.mktemp("blind") / "lake")


def blind(lake, since_s, until_s):
    """Return (from, to) in seconds after the boot, and whether that is known with a bound."""
    since, until = (When("arrival_ns", BOOT_NS + at_s * S) for at_s in (since_s, until_s))
    found = build(lake, Choice(None, LOCKED.machine, since, until), 1000)
    return [
        (round((row.at_ns - BOOT_NS) / 1e9, 3), round((row.until_at_ns - BOOT_NS) / 1e9, 3), row.bound_ns is not None)
        for row in found.entries
        if row.kind is Kind.BLIND
    ]


@pytest.mark.parametrize(
    ("since_s", "until_s", "spans"),
    [
        (2, 8, []),
        (30, 60, []),
        (5, 40, [(9, 29, True)]),
        (10, 20, [(10, 20, True)]),
        # Behind the last heartbeat its clock is known no more, and nobody looked.
        (50, 80, [(62, 80, False)]),
        (100, 110, [(100, 110, False)]),
        (-20, -10, [(-20, -10, False)]),
    ],
)
def test_what_was_not_watched_of_a_window(lake, since_s, until_s, spans):
    found = blind(lake, since_s, until_s)
    assert [span[2] for span in found] == [span[2] for span in spans]
    for one, two in zip(found, spans, strict=True):
        assert one[:2] == pytest.approx(two[:2], abs=1e-3)
