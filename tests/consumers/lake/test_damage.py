"""What a damaged file keeps from an answer is its own rows, and whoever asks is told."""

from pathlib import Path

import pytest

from consumers.lake.audit import audit
from consumers.lake.compact import compact
from consumers.lake.damage import exit_code, known, note, readable
from consumers.lake.layout import open_lake
from consumers.lake.snapshot import snapshot
from consumers.lake.writer import CommitWriter
from consumers.views import connect, run_query
from schemas.errors import StorageError
from tests.consumers.lake._lakes import ARRIVAL_NS, batch, chain
from tests.consumers.lake.test_unify import trace_batch

LATER_NS = ARRIVAL_NS + 10**14
COUNT = "select count(*), sum(seq)::bigint from kmsg"


@pytest.fixture
def lake(tmp_path):
    """A lake of four rows in as many files, and the file of the second one."""
    storage = open_lake(tmp_path / "lake", create=True)
    owner = chain(storage)
    for i in range(4):
        assert CommitWriter(storage).commit(owner, batch(i, i + 1))
    return storage, Path(storage.local_path(sorted(storage.list("data/"))[1]))


def spoiled(storage):
    report = audit(storage, deep=True)
    note(storage, report.suspects, LATER_NS)
    return {Path(key).name: why for key, why in known(snapshot(storage).manifest).items()}


@pytest.mark.parametrize("how", ["cut", "gone", "changed"])
def test_what_audit_has_noted_is_left_out_of_answers_and_told_once(lake, caplog, how):
    storage, file = lake
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-20] if how == "cut" else content.replace(b"record 1", b"record X"))
    why = "it is gone" if how == "gone" else "it is not what its commit says"
    assert spoiled(storage) == {file.name: why}
    assert exit_code(storage) == 0
    for _ in range(2):
        assert run_query(storage, COUNT)[1] == [(3, 5)]
    (told,) = caplog.messages
    assert told.startswith("without 1 rows of kmsg, as data/kmsg/") and f"{file.name} is damaged: {why}" in told
    assert exit_code(storage) == 74
    assert not audit(storage).closes
    # Brought back it is there again, as soon as somebody has looked.
    file.write_bytes(content)
    assert spoiled(storage) == {}
    again = open_lake(file.parents[4], create=False)
    assert run_query(again, COUNT)[1] == [(4, 6)]
    assert exit_code(again) == 0 and audit(again, deep=True).closes


def test_what_is_told_is_of_the_tables_that_are_asked(lake, caplog):
    storage, file = lake
    file.unlink()
    spoiled(storage)
    assert run_query(storage, "select count(*) from losses")[1] == [(0,)]
    assert (caplog.messages, exit_code(storage)) == ([], 0)


def test_files_that_no_merge_keeps_as_they_were_are_read_all_the_same(lake, monkeypatch):
    storage, _ = lake
    monkeypatch.setattr("consumers.lake.compact._digest", lambda paths: (len(paths),))
    assert compact(storage, LATER_NS).damaged == 4
    assert readable(storage, snapshot(storage)).files.keys() == {"kmsg"}
    assert (run_query(storage, COUNT)[1], exit_code(storage)) == ([(4, 6)], 0)
    assert len(spoiled(storage)) == 4


def test_a_table_of_nothing_but_damage_is_the_disk_and_not_the_caller(lake):
    storage, _ = lake
    owner = chain(storage)
    assert CommitWriter(storage).commit(owner, trace_batch(4, {}))
    (entry,) = snapshot(storage).files["trace_e"]
    Path(storage.local_path(entry.key)).write_bytes(b"")
    spoiled(storage)
    with pytest.raises(StorageError, match="all files of trace_e are damaged"):
        run_query(storage, "select count(*) from trace_e")
    assert ("trace_e",) not in run_query(storage, "show tables")[1]
    with connect(storage) as connection:
        assert connection.execute(COUNT).fetchall() == [(4, 6)]


def test_what_duckdb_says_of_damage_without_its_file_is_the_disk_and_not_the_caller(lake):
    storage, file = lake
    content = file.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    file.write_bytes(content[: -8 - size] + bytes([255]) * size + content[-8:])
    with pytest.raises(StorageError, match=r"`hypocenter audit --deep` says what is wrong"):
        run_query(storage, COUNT)
