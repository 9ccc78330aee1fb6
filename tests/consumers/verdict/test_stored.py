"""Incidents by their ids, out of the table that the alerter writes."""

import pytest

from consumers.lake.layout import open_lake
from consumers.verdict.stored import find
from schemas.errors import UsageError
from tests.consumers.verdict import _lake
from tests.consumers.verdict._lake import SCENARIOS


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    storage = _lake.build(tmp_path_factory.mktemp("stored") / "lake", SCENARIOS["frozen"])
    _lake.alert(storage, SCENARIOS["frozen"])
    return storage


def test_an_incident_comes_back_whole_by_its_id_or_the_beginning_of_it(stored):
    incident = _lake.incident(SCENARIOS["frozen"].dump)
    found = find(stored, incident.id)
    assert (found.id, found.root.cpus, found.duration) == (incident.id, (1,), incident.duration)
    assert find(stored, incident.id[:6]) == found


def test_an_unknown_id_names_the_nearest(stored, tmp_path):
    incident = _lake.incident(SCENARIOS["frozen"].dump)
    wrong = incident.id[:-1] + ("0" if incident.id[-1] != "0" else "1")
    with pytest.raises(UsageError, match=f"no incident {wrong}; the nearest is {incident.id} of 1"):
        find(stored, wrong)
    with pytest.raises(UsageError, match="the lake has no incidents"):
        find(open_lake(tmp_path / "empty", create=True), wrong)
