"""Every check of the audit finds what it is there for, in a lake in which nothing else is wrong."""

import json

import pyarrow as pa
import pytest

import consumers.lake.audit as module
from consumers.decode import registry
from consumers.lake import layout
from consumers.lake.audit import audit
from consumers.lake.chain import CHECKPOINT_COMMITS, encode
from consumers.lake.compact import compact, expire
from consumers.lake.layout import HOUR_NS
from consumers.lake.snapshot import snapshot
from consumers.lake.tip import all_books, tips
from consumers.lake.writer import CommitWriter
from schemas.errors import StorageError
from tests.consumers.lake._lakes import ARRIVAL_NS, STREAM, batch, chain

NAME = "m/b/host/kmsg/printk"
FOLDER = "commits/topic/0/"
LATER_NS = ARRIVAL_NS + 10**14


def changed(memory, key, **values):
    memory.replace(key, encode(json.loads(memory.read(key)) | values))


def stored(memory, *batches):
    owner, writer = chain(memory), CommitWriter(memory)
    for each in batches:
        assert writer.commit(owner, each)
    assert audit(memory).problems == []
    return owner


def booked(made, **values):
    return made._replace(streams={STREAM: made.streams[STREAM] | values})


# In so many commits, of which only the last has rows: what a checkpoint is made of.
def checkpointed(memory):
    owner, writer = chain(memory), CommitWriter(memory)
    for i in range(CHECKPOINT_COMMITS):
        made = batch(i, i + 1)
        assert writer.commit(owner, booked(made, stored=0, rows=0, first=i + 1)._replace(tables={}))
    (key,) = (key for key in memory.list(FOLDER) if "ckpt-" in key)
    assert audit(memory).problems == []
    return key


def test_a_checkpoint_with_other_books_than_its_commits(memory):
    key = checkpointed(memory)
    saved = json.loads(memory.read(key))["streams"]
    saved[0][1]["duplicates"] = 7
    changed(memory, key, streams=saved)
    said = f"{FOLDER}: the checkpoint at {CHECKPOINT_COMMITS} holds other books than its commits"
    assert audit(memory).problems == [said]


def test_a_checkpoint_of_another_commit(memory):
    changed(memory, checkpointed(memory), sha256="0" * 64)
    said = f"{FOLDER}: the checkpoint at {CHECKPOINT_COMMITS} follows another commit than the one there"
    assert said in audit(memory).problems


def test_first_commits_that_are_not_there_and_that_no_manifest_covers(memory):
    checkpointed(memory)
    for start in range(3):
        memory.delete(f"{FOLDER}{start:020d}.json")
    assert f"{FOLDER}: commits before offset 3 are missing" in audit(memory).problems


def test_totals_that_are_not_those_of_the_files(memory):
    stored(memory, batch(0, 5))
    changed(memory, f"{FOLDER}{0:020d}.json", totals={"kmsg": 6})
    said = "table kmsg: 5 rows live, 6 committed", "surface kmsg: 6 rows committed, 5 in the books"
    assert audit(memory).problems == list(said)


@pytest.mark.parametrize(
    ("values", "what"), [({"lost": {"gap": 1}, "next": 6}, "1 positions"), ({"lost_events": 2}, "2 events")]
)
def test_losses_that_have_no_rows(memory, values, what):
    owner = chain(memory)
    assert CommitWriter(memory).commit(owner, booked(batch(0, 5), **values))
    assert audit(memory).problems == [f"{NAME}: {what} lost in the books, 0 in its rows"]


def test_a_file_that_two_commits_name(memory):
    stored(memory, batch(0, 5), batch(5, 6))
    first = json.loads(memory.read(f"{FOLDER}{0:020d}.json"))["files"]
    second = json.loads(memory.read(f"{FOLDER}{5:020d}.json"))["files"]
    changed(memory, f"{FOLDER}{5:020d}.json", files=[*first, *second])
    assert f"{first[0]['key']}: named 2 times" in audit(memory).problems


def test_rows_that_a_stream_has_not_got_only_a_deep_audit_finds(memory):
    made = batch(0, 5)
    other = registry.spec_of("kmsg", pa.schema([])).schema
    rows = [row | {"boot_id": "another boot" if row["seq"] == 4 else "b"} for row in made.tables["kmsg"].to_pylist()]
    stored(memory, made._replace(tables={"kmsg": pa.Table.from_pylist(rows, schema=other)}))
    assert audit(memory, deep=True).problems == [f"{NAME}: 4 rows, 5 in the books"]


def test_rows_at_one_position_only_a_deep_audit_finds(memory):
    made = batch(0, 5)
    rows = [row | {"seq": min(row["seq"], 3)} for row in made.tables["kmsg"].to_pylist()]
    stored(memory, made._replace(tables={"kmsg": pa.Table.from_pylist(rows, schema=made.tables["kmsg"].schema)}))
    assert audit(memory, deep=True).problems == [f"{NAME}: 5 rows at only 4 positions"]


def test_a_genesis_that_is_not_there(memory):
    stored(memory, batch(0, 5))
    memory.delete(f"{FOLDER}genesis.json")
    assert audit(memory).problems == [f"no snapshot: {FOLDER}: damaged, its genesis.json is missing"]
    for read in (snapshot, tips, all_books):
        with pytest.raises(StorageError, match=r"its genesis\.json is missing"):
            read(memory)


def test_a_chain_of_which_a_listing_has_the_commit_alone_is_just_made(memory, monkeypatch):
    stored(memory, batch(0, 5))
    listed = memory.list
    monkeypatch.setattr(memory, "list", lambda prefix: (key for key in listed(prefix) if "genesis" not in key))
    assert snapshot(memory).chains == {FOLDER: 5}


@pytest.fixture
def beside(monkeypatch):
    """Call with what others do to the lake when the audit has its snapshot, at each of its tries."""

    def install(*steps):
        real, left = module.snapshot, list(steps)

        def taken_then(storage):
            taken = real(storage)
            if left:
                left.pop(0)()
            return taken

        monkeypatch.setattr(module, "snapshot", taken_then)
        return left

    return install


def filled(storage, end=3):
    owner = chain(storage)
    for i in range(end):
        assert CommitWriter(storage).commit(owner, batch(i, i + 1))
    return owner


def test_what_a_collector_commits_meanwhile_is_left_to_the_next_audit(memory, beside):
    owner = filled(memory)
    beside(lambda: CommitWriter(memory).commit(owner, batch(3, 9)))
    report = audit(memory, deep=True)
    assert report.closes, report.problems
    assert (report.rows, report.books[0].rows) == ({"kmsg": 3}, 3)
    assert audit(memory, deep=True).rows == {"kmsg": 9}


def test_a_checkpoint_that_is_made_meanwhile_is_left_to_the_next_audit(memory, beside):
    owner = filled(memory, 250)
    beside(lambda: [CommitWriter(memory).commit(owner, batch(i, i + 1)) for i in range(250, 260)])
    report = audit(memory, deep=True)
    assert report.closes, report.problems
    assert report.rows == {"kmsg": 250}


def test_what_a_housekeeper_deletes_meanwhile_is_no_damage(memory, beside):
    memory.now_ns = ARRIVAL_NS
    owner = filled(memory, 300)
    compact(memory, LATER_NS)
    for i in range(300, 600):
        assert CommitWriter(memory).commit(owner, batch(i, i + 1, ARRIVAL_NS + HOUR_NS))

    def merge_and_delete():
        compact(memory, LATER_NS)
        assert expire(memory, LATER_NS + HOUR_NS // 2).commits > 500

    left = beside(merge_and_delete)
    report = audit(memory, deep=True)
    assert not left
    assert report.closes, report.problems
    assert report.rows == {"kmsg": 600}


def test_a_commit_that_is_missing_is_found_though_others_come_meanwhile(memory, beside):
    owner = filled(memory, 5)
    memory.delete(layout.commit_key(owner.folder, 2))
    beside(lambda: CommitWriter(memory).commit(owner, batch(5, 6)))
    report = audit(memory)
    assert report.problems == [f"{FOLDER}: commits before offset 3 are missing"]
