"""What is written of an incident is read again as the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.incidents import codec
from consumers.incidents.incident import Incident, Source, StartLine, State
from consumers.reports.report import Kind, Line, Report, Seconds, Shape
from schemas.errors import BadInputError

numbers = st.integers(0, 1 << 62)
maybe = st.none() | numbers
texts = st.text(max_size=12)
seconds = st.builds(Seconds, st.floats(0, 1e6), st.floats(0, 1e6))
lines = st.builds(Line, numbers, maybe, texts, texts, st.booleans())
cpus = st.lists(numbers, max_size=4).map(tuple)
words = st.lists(texts, max_size=4).map(tuple)
reports = st.builds(
    Report,
    kind=st.sampled_from(Kind),
    place=numbers,
    ts_ns=maybe,
    structured=st.booleans(),
    cpus=cpus,
    by=maybe,
    task=st.none() | texts,
    pid=maybe,
    duration=st.none() | seconds,
    flavor=texts,
    shape=st.none() | st.sampled_from(Shape),
    numbers=st.dictionaries(texts, numbers, max_size=3),
    frames=words,
    notes=words,
    lines=st.lists(lines, max_size=3),
    last_ts_ns=maybe,
    ended=st.booleans(),
    corrupted=st.booleans(),
)
incidents = st.builds(
    Incident,
    id=texts,
    source=st.builds(Source, texts, texts, texts),
    kind=st.sampled_from(Kind),
    first_kind=st.sampled_from(Kind),
    first_place=numbers,
    last_place=numbers,
    since_ns=maybe,
    until_ns=maybe,
    duration=st.none() | seconds,
    duration_from=texts,
    cpus=cpus,
    task=st.none() | texts,
    pid=maybe,
    victims=words,
    root=reports,
    reports=st.lists(reports, max_size=3),
    start_lines=st.lists(st.builds(StartLine, numbers, st.sampled_from(Kind)), max_size=4),
    panicked=st.booleans(),
    state=st.sampled_from(State),
    ended_by=texts,
    lengths=st.dictionaries(texts, seconds, max_size=3),
    version=numbers,
)


@given(incidents)
def test_an_incident_comes_back_as_it_was_and_gives_the_same_bytes(incident):
    text = codec.encode(incident)
    assert codec.decode(text) == incident
    assert codec.encode(codec.decode(text)) == text
    assert "\n" not in text


@given(incidents.filter(lambda each: each.reports))
def test_the_root_stays_one_of_the_reports(incident):
    incident.root = incident.reports[-1]
    again = codec.decode(codec.encode(incident))
    assert any(again.root is report for report in again.reports)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"root": 3, "reports": []}', "null"])
def test_what_is_no_incident_is_refused_by_name(text):
    with pytest.raises(BadInputError, match="bad-incident"):
        codec.decode(text)


@given(incidents)
def test_what_an_older_writer_did_not_know_has_its_default(incident):
    value = codec.to_dict(incident)
    del value["lengths"], value["joined"]
    assert codec.from_dict(value).lengths == {}
