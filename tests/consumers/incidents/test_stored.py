"""Incidents of a lake by the beginning of their id; of versions that came twice, or out of order, each once."""

import pyarrow as pa
import pytest

from consumers.alerts.case import Case
from consumers.alerts.payload import Whose
from consumers.incidents import stored
from consumers.incidents.incident import State
from consumers.lake.chain import Chain
from consumers.lake.layout import ALERTS, open_lake
from consumers.lake.tables import TABLES
from consumers.lake.writer import Batch, CommitWriter
from consumers.transport.base import Partition
from consumers.verdict.verdict import Confidence, Evidence, Owner, Record, Verdict
from schemas.errors import StorageError, UsageError
from tests.consumers.alerts._cases import S, incident

P = Partition("hypocenter.log", 0)
HIGH = Verdict(
    Owner.HOST_CPU, Confidence.HIGH, "C2", 1, "it waited",
    (Evidence("H1", "waited", (Record("vcpu_time", "h", "vcpu-time", "", 3, 9),)),), beside=(Owner.INJECTED,),
)  # fmt: skip


def rows(key, *verdicts, opened_ns=5 * S, state=State.OPEN):
    case = Case(incident(key, state=state), Whose("web-7", "h"), opened_ns, opened_ns)
    found = []
    for number, verdict in enumerate(verdicts, 1):
        case.verdict, case.version = verdict, number
        found.append(case.row(P, number, opened_ns + number))
    return found


@pytest.fixture
def lake(tmp_path):
    """Write lists of rows of `incidents`, a commit each, and return the lake."""
    storage = open_lake(tmp_path / "lake", create=True)

    def call(*commits):
        chain = Chain(storage, ALERTS + P.topic, P.number, log_id="l", topic_id="t", first_offset=0)
        chain.load()
        for at, found in enumerate(commits):
            table = pa.Table.from_pylist(found, schema=TABLES["incidents"].schema)
            assert CommitWriter(storage).commit(chain, Batch(at, at + 1, {"incidents": table}, {}, {}))
        return storage

    return call


def test_the_newest_version_counts_in_whatever_order_they_came(lake):
    one, two, three = rows("aa11", None, HIGH, HIGH)
    storage = lake([one, three], [two], rows("bb22", None, opened_ns=9 * S))
    found = stored.newest(storage)
    assert [(each["incident_id"], each["version"], each["owner"]) for each in found] == [
        ("bb22", 1, None),
        ("aa11", 3, "host_cpu"),
    ]
    assert "incident_json" not in found[0]
    whole = stored.read(storage, "aa")
    assert [each.number for each in whole.versions] == [1, 2, 3]
    assert (whole.version, whole.verdict, whole.whose) == (3, HIGH, Whose("web-7", "h"))


def test_a_version_that_was_said_again_is_one(lake):
    (one,) = rows("aa11", HIGH)
    whole = stored.read(lake([one], [one | {"offset": 7, "arrival_ns": one["arrival_ns"] + 1}]), "aa11")
    assert [(each.number, each.arrival_ns) for each in whole.versions] == [(1, one["arrival_ns"] + 1)]


def test_an_id_that_is_no_or_several_incidents_is_refused(lake):
    storage = lake([*rows("aa11", None), *rows("aa1", None), *rows("aa2", None)])
    assert stored.read(storage, "aa1").incident.id == "aa1"  # exactly that
    with pytest.raises(UsageError, match="3 incidents begin with aa: aa1, aa11, aa2"):
        stored.read(storage, "aa")
    with pytest.raises(UsageError, match="the lake has no incident ; `hypocenter"):
        stored.read(storage, "")
    with pytest.raises(UsageError, match="did you mean aa2"):
        stored.read(storage, "ab2")


def test_what_cannot_be_read_is_said_to_be_so(lake):
    (one,) = rows("aa11", HIGH)
    storage = lake([one | {"verdict_json": '{"owner": "nobody"}'}])
    with pytest.raises(StorageError, match="incident aa11, version 1: what is stored cannot be read"):
        stored.read(storage, "aa11")


def test_short_ids_are_as_long_as_they_must_be():
    assert stored.short_ids(["0123456789a", "0123456780b", "f" * 20]) == {
        "0123456789a": "0123456789",
        "0123456780b": "0123456780",
        "f" * 20: "f" * 10,
    }
