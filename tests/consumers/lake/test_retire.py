"""Hours leave the lake, and the books still close."""

import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import consumers.lake.retire as module
from consumers.decode import registry
from consumers.lake import layout
from consumers.lake.audit import audit
from consumers.lake.compact import compact, expire
from consumers.lake.layout import HOUR_NS, open_lake
from consumers.lake.retire import Retention, retire, retired_before_ns
from consumers.lake.snapshot import snapshot
from consumers.lake.writer import CommitWriter
from consumers.views import run_query
from schemas.errors import StorageError
from tests.consumers.lake._lakes import ARRIVAL_NS, STREAM, batch, chain

FIRST_NS = ARRIVAL_NS // HOUR_NS * HOUR_NS
CODE = """
import sys
from pathlib import Path
from tests.consumers.lake.test_retire import DAY, HOUR_NS, FIRST_NS, fill
from consumers.lake.compact import compact, expire
from consumers.lake.layout import open_lake
from consumers.lake.retire import retire
storage = open_lake(Path(sys.argv[1]), create=True)
fill(storage, 4)
now = FIRST_NS + 26 * HOUR_NS
retire(storage, now, DAY)
compact(storage, now)
expire(storage, now + 10**15, grace_ms=0)
"""
DAY = Retention(hours=24)


def hour_of(i):
    return FIRST_NS + i * HOUR_NS


def fill(storage, hours, rows=10):
    """Commit `rows` records in each of some hours, one commit an hour, each with the loss of one position."""
    owner, writer = chain(storage), CommitWriter(storage)
    for i in range(owner.state.frontier // rows, hours):
        made = batch(i * rows, (i + 1) * rows, hour_of(i))
        end = (i + 1) * rows
        loss = {**STREAM._asdict(), "kind": "overwrite", "first_position": end + i, "count": 1, "unit": "position"}
        loss |= {"reason": "r", "found_by": "agent", "arrival_ns": hour_of(i), "topic": "topic", "partition": 0}
        spec = registry.spec_of("losses", pa.schema([]))
        losses = pa.Table.from_pylist([loss | {"offset": i}], schema=spec.schema)
        book = {**made.streams[STREAM], "next": end + i + 1, "lost": {"overwrite": i + 1}}
        assert writer.commit(owner, made._replace(tables={**made.tables, "losses": losses}, streams={STREAM: book}))


def test_hours_that_are_over_leave_every_query_and_the_books_still_close(storage):
    fill(storage, 5)
    report = retire(storage, hour_of(26), DAY)
    assert (report.files, report.rows, report.damaged) == (4, 22, 0)
    assert report.before_ns == retired_before_ns(storage) == hour_of(2)
    _, rows = run_query(storage, "select min(seq), count(*) from kmsg")
    assert rows == [(20, 30)]
    found = audit(storage, deep=True)
    assert found.closes, found.problems
    assert (found.rows, found.retired) == ({"kmsg": 30, "losses": 3}, {"kmsg": 20, "losses": 2})


def test_what_has_left_is_deleted_after_the_grace_of_what_was_replaced(storage):
    fill(storage, 3)
    retire(storage, hour_of(25), DAY)
    assert expire(storage, hour_of(25)).replaced == 0
    assert expire(storage, hour_of(26) + 1).replaced == 2
    assert len(list(storage.list(layout.DATA))) == 4
    assert audit(storage, deep=True).closes


def test_the_sums_go_on_over_several_runs_and_through_compaction(storage):
    fill(storage, 6)
    for i in range(1, 5):
        retire(storage, hour_of(24 + i), DAY)
        compact(storage, hour_of(24 + i))
        found = audit(storage, deep=True)
        assert found.closes, found.problems
        assert found.retired == {"kmsg": 10 * i, "losses": i}


def test_hours_within_the_retention_stay(storage):
    fill(storage, 3)
    assert retire(storage, hour_of(24) + HOUR_NS - 1, DAY).manifest == 0
    assert retire(storage, hour_of(10**6), Retention()).manifest == 0
    assert snapshot(storage).number == 0


def test_the_oldest_go_until_the_bytes_fit_and_the_present_hour_never(storage):
    fill(storage, 4)
    sizes = [entry.size_bytes for entries in snapshot(storage).files.values() for entry in entries]
    hour_bytes = sum(sizes) // 4
    assert retire(storage, hour_of(3), Retention(size_bytes=sum(sizes))).manifest == 0
    assert retire(storage, hour_of(3), Retention(size_bytes=sum(sizes) - hour_bytes - hour_bytes // 2)).rows == 22
    assert retire(storage, hour_of(3), Retention(size_bytes=1)).rows == 11
    assert audit(storage).rows == {"kmsg": 10, "losses": 1}
    assert audit(storage, deep=True).closes


def test_the_nearer_of_both_limits_counts(storage):
    fill(storage, 4)
    size_bytes = sum(entry.size_bytes for entries in snapshot(storage).files.values() for entry in entries)
    assert retire(storage, hour_of(25), Retention(hours=23, size_bytes=size_bytes - 1)).rows == 22
    assert retire(storage, hour_of(25), Retention(hours=23, size_bytes=1)).rows == 22


def test_descriptions_and_incidents_stay(storage):
    lasting = {spec.name for spec in registry.tables() if spec.lasting}
    assert lasting == {"artifacts", "incidents", "topology_vm", "topology_vcpu", "topology_thread"}
    owner = chain(storage)
    spec = registry.spec_of("artifacts", pa.schema([]))
    row = {**STREAM._asdict(), "position": 0, "kind": "k", "sha256": b"1", "body": b"2", "arrival_ns": hour_of(0)}
    table = pa.Table.from_pylist([row | {"topic": "topic", "partition": 0, "offset": 0}], schema=spec.schema)
    made = batch(0, 1, hour_of(0))
    assert CommitWriter(storage).commit(owner, made._replace(tables={**made.tables, "artifacts": table}))
    assert retire(storage, hour_of(100), DAY).rows == 1
    assert audit(storage).rows == {"artifacts": 1}
    assert audit(storage, deep=True).closes


@pytest.mark.parametrize("table", ["kmsg", "losses"])
@pytest.mark.parametrize("how", ["rotten", "gone"])
def test_a_damaged_file_leaves_too_and_the_books_say_what_is_known_of_it(tmp_path, caplog, table, how):
    storage = open_lake(tmp_path / "lake", create=True)
    fill(storage, 4)
    damaged = snapshot(storage).files[table][0]
    path = Path(storage.local_path(damaged.key))
    path.write_bytes(b"x" * damaged.size_bytes)
    if how == "gone":
        path.unlink()
    assert not audit(storage, deep=True).closes
    with caplog.at_level(logging.ERROR):
        report = retire(storage, hour_of(26), DAY)
    assert (report.files, report.rows, report.damaged, report.staying) == (4, 22, 1, 0)
    assert f"{damaged.key} has left, {damaged.rows} rows of streams that nobody can name" in caplog.text
    assert expire(storage, hour_of(28)).replaced == (4 if how == "rotten" else 3)
    for _ in range(2):
        found = audit(storage, deep=True)
        assert found.closes, found.problems
        assert (found.rows, found.retired) == ({"kmsg": 20, "losses": 2}, {"kmsg": 20, "losses": 2})
        assert found.retired_damaged == {table: damaged.rows}
        # The sums go on through what comes after.
        assert compact(storage, hour_of(26)).manifest == 0
        fill(storage, 4)
    # What is missing beyond that is told.
    key = snapshot(storage).files[table][0].key
    storage.delete(key)
    problems = audit(storage, deep=True).problems
    assert f"{key}: missing" in problems


def test_rows_that_are_missing_beyond_those_of_damaged_files_are_told(storage):
    fill(storage, 3)
    damaged = snapshot(storage).files["kmsg"][0]
    storage.delete(damaged.key)
    assert retire(storage, hour_of(25), DAY).damaged == 1
    assert audit(storage, deep=True).closes
    value = snapshot(storage).manifest
    value["retired"]["damaged"]["kmsg"][0] -= 1
    storage.replace(layout.manifest_key(1), module.encode(value))
    assert any(": 20 rows, 30 in the books" in each for each in audit(storage, deep=True).problems)
    # A stream that was heard of later only has lost nothing by it.
    value["retired"]["damaged"]["kmsg"] = [10, 0]
    storage.replace(layout.manifest_key(1), module.encode(value))
    assert any(": 20 rows, 30 in the books" in each for each in audit(storage, deep=True).problems)


def test_what_the_disk_refuses_to_read_stays(storage, monkeypatch, caplog):
    fill(storage, 3)
    refused = snapshot(storage).files["kmsg"][0].key
    real = module.damage

    def refuse(given, entry):
        if entry.key == refused:
            raise StorageError("Too many open files")
        return real(given, entry)

    monkeypatch.setattr(module, "damage", refuse)
    report = retire(storage, hour_of(26), DAY)
    assert (report.files, report.damaged, report.staying) == (3, 0, 1)
    assert "1 files of kmsg" in caplog.text
    assert refused in [entry.key for entry in snapshot(storage).files["kmsg"]]
    monkeypatch.undo()
    assert retire(storage, hour_of(26), DAY).files == 1
    assert audit(storage, deep=True).closes


def test_whoever_is_overtaken_looks_again(storage, monkeypatch):
    fill(storage, 3)
    real, calls = module.all_books, []

    def overtaken(given):
        calls.append(1)
        if len(calls) == 1:
            assert compact(storage, hour_of(25), rows_max=10).manifest == 1
        return real(given)

    monkeypatch.setattr(module, "all_books", overtaken)
    monkeypatch.setattr("consumers.lake.compact._ALONE_BYTES_LEAST", 1)
    assert retire(storage, hour_of(25), DAY).manifest == 2
    assert len(calls) == 2
    assert audit(storage, deep=True).closes


def test_a_disk_that_refuses_lets_nothing_go(storage, monkeypatch):
    fill(storage, 2)

    def refuse(*_):
        raise StorageError("disk full")

    monkeypatch.setattr(storage, "put_exclusive", refuse)
    with pytest.raises(StorageError, match="disk full"):
        retire(storage, hour_of(26), DAY)
    assert audit(storage, deep=True).rows == {"kmsg": 20, "losses": 2}


def test_an_audit_tells_rows_that_were_never_retired_from_those_that_were(storage):
    fill(storage, 3)
    retire(storage, hour_of(25), DAY)
    number = snapshot(storage).number
    value = snapshot(storage).manifest
    assert value["retired"]["streams"] == [[list(STREAM), [10, 1, 0, hour_of(1)]]]
    value["retired"]["tables"]["kmsg"] -= 1
    value["retired"]["streams"][0][1][0] -= 1
    value["retired"]["streams"][0][1][1] -= 1
    storage.replace(layout.manifest_key(number), module.encode(value))
    problems = audit(storage, deep=True).problems
    assert "table kmsg: 20 rows live, 9 retired, 30 committed" in problems
    assert any(": 3 positions lost in the books, 2 in its rows" in each for each in problems)
    assert any(": 29 rows, 30 in the books" in each for each in problems)


@pytest.mark.parametrize("point", ["retire:manifest", "expire:deleted", "expire:deleted:4"])
def test_a_kill_anywhere_retires_nothing_twice(tmp_path, point):
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "HYPOCENTER_CRASH_AT": point}
    command = [sys.executable, "-c", CODE, str(tmp_path / "lake")]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    del environment["HYPOCENTER_CRASH_AT"]
    subprocess.run(command, env=environment, check=True)
    storage = open_lake(tmp_path / "lake", create=False)
    report = audit(storage, deep=True)
    assert report.closes, report.problems
    assert report.retired == {"kmsg": 20, "losses": 2}
    assert len(list(storage.list(layout.DATA))) == report.files == 4


def test_any_order_of_runs_keeps_the_books(storage):
    rng = random.Random(7)
    at = 1
    for _ in range(30):
        fill(storage, at)
        now_ns = hour_of(at) + rng.randrange(HOUR_NS)
        match rng.randrange(4):
            case 0:
                retire(storage, now_ns, Retention(hours=rng.randrange(1, 5)))
            case 1:
                retire(storage, now_ns, Retention(size_bytes=rng.randrange(1, 100_000)))
            case 2:
                compact(storage, now_ns, lateness_ms=0)
            case _:
                expire(storage, now_ns, grace_ms=0)
        at += rng.randrange(3)
        found = audit(storage, deep=True)
        assert found.closes, found.problems
        assert found.rows.get("kmsg", 0) + found.retired.get("kmsg", 0) == 10 * (chain(storage).state.frontier // 10)
