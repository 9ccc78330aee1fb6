"""Compaction beside the collecting: when it runs, and what a day's trickle leaves behind."""

import logging
import time

import pytest

from consumers import housekeeping
from consumers.housekeeping import Housekeeper
from consumers.lake.audit import audit
from consumers.lake.compact import ExpireReport, compact, expire
from consumers.lake.layout import HOUR_NS
from consumers.lake.retire import Retention
from consumers.lake.storage import MemoryStorage
from consumers.lake.writer import CommitWriter
from schemas.errors import StorageError
from tests.consumers.lake._lakes import ARRIVAL_NS, batch, chain

SECOND_NS = 10**9


@pytest.fixture
def storage():
    made = MemoryStorage()
    yield made
    made.close()


def finished(housekeeper):
    housekeeper._thread.join(10)
    assert not housekeeper._thread.is_alive()


def test_it_runs_when_due_and_not_before(storage, monkeypatch):
    runs = []
    monkeypatch.setattr(housekeeping, "compact", lambda *_: runs.append(1) or compact(storage, 0))
    housekeeper = Housekeeper(storage)
    for now_s in (0.0, 599.0):
        housekeeper.tick(now_s)
    assert runs == []
    housekeeper.tick(600.0)
    finished(housekeeper)
    housekeeper.tick(601.0)
    assert runs == [1]
    housekeeper.tick(1200.0)
    finished(housekeeper)
    assert runs == [1, 1]


def test_sealed_hours_are_merged_in_the_background(storage):
    owner, writer = chain(storage), CommitWriter(storage)
    for i in range(4):
        rows = batch(i, i + 1)
        old = (time.time_ns() // HOUR_NS - 3) * HOUR_NS
        table = rows.tables["kmsg"].set_column(
            rows.tables["kmsg"].column_names.index("arrival_ns"), "arrival_ns", [[old]]
        )
        assert writer.commit(owner, rows._replace(tables={"kmsg": table}))
    assert audit(storage).files == 4
    housekeeper = Housekeeper(storage)
    housekeeper.tick(0.0)
    housekeeper.tick(600.0)
    finished(housekeeper)
    report = audit(storage, deep=True)
    assert (report.files, report.rows, report.closes) == (1, {"kmsg": 4}, True)


def test_a_disk_that_refuses_is_an_error_line_and_not_the_end(storage, monkeypatch, caplog):
    def refuse(*_):
        raise StorageError("disk full")

    monkeypatch.setattr(housekeeping, "compact", refuse)
    housekeeper = Housekeeper(storage)
    housekeeper.tick(0.0)
    with caplog.at_level(logging.ERROR):
        housekeeper.tick(600.0)
        finished(housekeeper)
    assert "disk full" in caplog.text


def test_what_nothing_names_is_deleted_though_nothing_could_be_merged(storage, monkeypatch):
    def refuse(*_):
        raise StorageError("disk full")

    expired = []
    monkeypatch.setattr(housekeeping, "compact", refuse)
    monkeypatch.setattr(housekeeping, "expire", lambda *_: expired.append(1) or ExpireReport())
    housekeeper = Housekeeper(storage)
    housekeeper.tick(0.0)
    housekeeper.tick(600.0)
    finished(housekeeper)
    assert expired == [1]


def test_a_trickle_of_one_record_a_second_leaves_one_file_an_hour(storage):
    owner, writer = chain(storage), CommitWriter(storage)
    storage.now_ns = start_ns = ARRIVAL_NS // HOUR_NS * HOUR_NS
    hours, cut_s = 3, 30
    for i in range(0, hours * 3600, cut_s):
        storage.now_ns = start_ns + i * SECOND_NS
        rows = batch(i, i + cut_s)
        arrived = [[storage.now_ns] * cut_s]
        place = rows.tables["kmsg"].column_names.index("arrival_ns")
        table = rows.tables["kmsg"].set_column(place, "arrival_ns", arrived)
        assert writer.commit(owner, rows._replace(tables={"kmsg": table}))
    storage.now_ns += 2 * HOUR_NS
    compact(storage, storage.now_ns)
    storage.now_ns += 2 * HOUR_NS
    expire(storage, storage.now_ns)
    report = audit(storage, deep=True)
    assert (report.files, report.closes, report.rows) == (hours, True, {"kmsg": hours * 3600})
    assert len(list(storage.list("data/"))) == hours
    # Commits that a checkpoint and the manifest cover are gone too.
    assert len(list(storage.list("commits/"))) < 150


def test_hours_over_the_retention_leave_and_their_files_follow(storage):
    owner, writer = chain(storage), CommitWriter(storage)
    for i, hours in enumerate((50, 3)):
        old_ns = (time.time_ns() // HOUR_NS - hours) * HOUR_NS
        assert writer.commit(owner, batch(i, i + 1, old_ns))
    housekeeper = Housekeeper(storage, Retention(hours=24))
    housekeeper.tick(0.0)
    housekeeper.tick(600.0)
    finished(housekeeper)
    report = audit(storage, deep=True)
    assert (report.rows, report.retired, report.closes) == ({"kmsg": 1}, {"kmsg": 1}, True)


def test_what_cannot_be_retired_is_an_error_line_and_the_rest_is_done(storage, monkeypatch, caplog):
    def refuse(*_):
        raise StorageError("disk full")

    done = []
    monkeypatch.setattr(housekeeping, "retire", refuse)
    monkeypatch.setattr(housekeeping, "compact", lambda *_: done.append(1) or compact(storage, 0))
    monkeypatch.setattr(housekeeping, "expire", lambda *_: done.append(2) or ExpireReport())
    housekeeper = Housekeeper(storage)
    housekeeper.tick(0.0)
    with caplog.at_level(logging.ERROR):
        housekeeper.tick(600.0)
        finished(housekeeper)
    assert "disk full; no hour was let go" in caplog.text
    assert done == [1, 2]
