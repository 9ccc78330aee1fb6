"""The text of metrics, judged by the parser of Prometheus's client, also for names that a guest chose."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from schemas import metrics
from schemas.metrics import Counts, Family, Histogram, Type, expose
from tests._metrics import parse

PLAIN = Family("hypocenter_test_total", Type.COUNTER, "What a \\ and a\nline do.")
LABELLED = Family("hypocenter_test_bytes", Type.GAUGE, "By two.", ("a", "b"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def test_families_have_help_and_type_and_values_come_back():
    text = expose([(PLAIN, 3), (LABELLED, {("x", "y"): 1.5, ("x", "z"): 2})])
    families = list(text_string_to_metric_families(text.decode()))
    assert [(each.type, each.documentation) for each in families] == [("counter", PLAIN.help), ("gauge", "By two.")]
    assert parse(text) == {
        ("hypocenter_test_total", ()): 3,
        ("hypocenter_test_bytes", (("a", "x"), ("b", "y"))): 1.5,
        ("hypocenter_test_bytes", (("a", "x"), ("b", "z"))): 2,
    }


def test_what_nobody_knows_has_no_sample_and_is_described_all_the_same():
    text = expose([(PLAIN, None), (LABELLED, {})])
    assert parse(text) == {}
    assert text.count(b"# HELP") == text.count(b"# TYPE") == 2


@given(st.dictionaries(st.tuples(TEXTS, TEXTS), st.integers(0, 1 << 53)))
def test_no_label_breaks_out_of_its_quotes(values):
    text = expose([(LABELLED, values)])
    assert parse(text) == {("hypocenter_test_bytes", (("a", a), ("b", b))): value for (a, b), value in values.items()}
    # Another parser may end lines elsewhere than at \n, and the format's own does not.
    assert text.count(b"\n") == 2 + len(values)


@pytest.mark.parametrize("value", [0, 1, 1 << 53, 0.1, 1795988097.237806, 1e-9, 3.5e20])
def test_a_number_keeps_its_value(value):
    assert parse(expose([(PLAIN, value)]))["hypocenter_test_total", ()] == value


def test_half_a_character_does_not_end_the_scrape():
    assert b'a="?"' in expose([(LABELLED, {("\udc80", "b"): 1})])


def test_label_sets_are_bounded_and_nothing_is_left_out():
    counts = Counts()
    for n in range(10 * metrics.LABEL_SETS_MAX):
        counts.add((f"invented-{n}", "x"), 2)
    found = counts.taken()
    assert len(found) == metrics.LABEL_SETS_MAX + 1
    assert sum(found.values()) == 20 * metrics.LABEL_SETS_MAX
    assert found["other", "other"] == 18 * metrics.LABEL_SETS_MAX
    counts.add(("invented-0", "x"), 1)
    assert counts.taken()["invented-0", "x"] == 3


def test_a_label_is_cut_at_its_bound():
    counts = Counts()
    for _ in range(2):
        counts.add(("x" * 5000,))
    assert counts.taken() == {("x" * metrics.LABEL_CHARS_MAX,): 2}


def test_what_was_taken_does_not_change():
    counts = Counts()
    counts.add(("a",))
    taken = counts.taken()
    counts.add(("a",))
    assert (taken, counts.taken()) == ({("a",): 1}, {("a",): 2})


def test_a_histogram_counts_each_value_up_to_its_bounds():
    family, histogram = Family("hypocenter_test_seconds", Type.HISTOGRAM, "How long."), Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)
    found = parse(expose([(family, histogram)]))
    assert {dict(labels).get("le"): value for (_, labels), value in found.items() if labels} == {
        "0.1": 2, "1": 3, "+Inf": 4,
    }  # fmt: skip
    assert found["hypocenter_test_seconds_count", ()] == 4
    assert math.isclose(found["hypocenter_test_seconds_sum", ()], 7.65)
