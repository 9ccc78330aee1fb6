import random

import pyarrow.parquet as pq
import pytest

from consumers.lake import layout
from consumers.lake.audit import audit
from consumers.lake.chain import Commit, checkpoint_keys
from consumers.lake.compact import compact, expire
from consumers.lake.snapshot import snapshot
from consumers.lake.tip import tips
from consumers.lake.writer import CommitWriter
from schemas.errors import StorageError
from tests.consumers.lake._lakes import ARRIVAL_NS, STREAM, batch, chain

LATER_NS = ARRIVAL_NS + 10**14


def offsets(storage):
    files = snapshot(storage).files.get("kmsg", [])
    return sorted(
        o for e in files for o in pq.read_table(storage.local_path(e.key), partitioning=None)["seq"].to_pylist()
    )


def test_of_two_owners_at_one_frontier_one_wins(storage):
    writer, a, b = CommitWriter(storage), chain(storage), chain(storage)
    assert writer.commit(a, batch(0, 5))
    assert not writer.commit(b, batch(0, 7))
    assert b.load().frontier == 5
    assert writer.commit(b, batch(5, 7))
    assert offsets(storage) == list(range(7))
    assert len(list(storage.list("data/"))) == 2
    assert audit(storage, deep=True).closes


def test_takeover_reads_do_not_grow_with_history(memory):
    writer, owner = CommitWriter(memory), chain(memory)
    reads = {}
    for i in range(1000):
        assert writer.commit(owner, batch(i, i + 1)._replace(tables={}))
        if i + 1 in (10, 1000):
            memory.reads = memory.lists = 0
            chain(memory)
            reads[i + 1] = memory.reads
    assert reads[1000] <= 256 + 4
    assert memory.lists == 0


def test_a_checkpoint_that_the_disk_refuses_is_made_behind_a_later_commit(memory, monkeypatch):
    writer, owner, real = CommitWriter(memory), chain(memory), memory.put_exclusive
    full = []

    def put(key, data):
        if "ckpt-" in key and len(full) < 2:
            full.append(key)
            raise StorageError(f"{key}: No space left on device")
        return real(key, data)

    monkeypatch.setattr(memory, "put_exclusive", put)
    assert [writer.commit(owner, batch(i, i + 1)) for i in range(300)] == [True] * 300
    assert [key[-10:] for key in full] == ["00256.json", "00257.json"]
    assert checkpoint_keys(memory, owner.folder) == [layout.checkpoint_key(owner.folder, 258)]
    assert offsets(memory) == list(range(300))
    assert audit(memory, deep=True).closes


def test_a_zombie_behind_expired_commits_cannot_commit(memory):
    writer, owner = CommitWriter(memory), chain(memory)
    memory.now_ns = ARRIVAL_NS
    assert writer.commit(owner, batch(0, 1))
    zombie, newborn = chain(memory), chain(memory)
    newborn.state = type(newborn.state)(0)
    for i in range(1, 600):
        assert writer.commit(owner, batch(i, i + 1))
    compact(memory, LATER_NS)
    assert expire(memory, LATER_NS + 10**14).commits > 500
    assert not memory.exists("commits/topic/0/" + f"{1:020d}.json")
    assert not writer.commit(zombie, batch(1, 3))
    assert not writer.commit(newborn, batch(0, 3))
    assert chain(memory).state.frontier == 600
    assert offsets(memory) == list(range(600))
    assert audit(memory, deep=True).closes


def test_a_commit_of_files_that_were_cleared_away_meanwhile_does_not_count(memory):
    owner = chain(memory)
    CommitWriter(memory).commit(chain(memory), batch(0, 1))
    (entry,) = snapshot(memory).files["kmsg"]
    owner.load()
    memory.delete(entry.key)
    assert not owner.commit(Commit(1, 2, [entry], {}, {}, "attempt", "writer", 1))
    assert chain(memory).state.frontier == 1


def test_a_commit_whose_answer_was_lost_is_known_as_ones_own(memory, monkeypatch):
    owner, put = chain(memory), memory.put_exclusive
    monkeypatch.setattr(memory, "put_exclusive", lambda key, data: put(key, data) and "genesis" in key)
    assert owner.commit(Commit(0, 2, [], {}, {}, "attempt", "writer", 1))
    assert owner.state.frontier == 2
    late = chain(memory)
    late.state = type(late.state)(0)
    assert not late.commit(Commit(0, 3, [], {}, {}, "another", "writer", 1))


def test_without_the_name_of_the_newest_checkpoint_it_is_looked_for(memory):
    writer, owner = CommitWriter(memory), chain(memory)
    for i in range(600):
        assert writer.commit(owner, batch(i, i + 1)._replace(tables={}))
    for start in range(300):
        memory.delete(f"commits/topic/0/{start:020d}.json")
    memory.delete("commits/topic/0/latest.json")
    memory.reads = 0
    assert chain(memory).state.frontier == 600
    assert memory.reads < 256


def test_a_stream_that_is_over_is_in_no_state_any_more(memory):
    writer, owner = CommitWriter(memory), chain(memory)
    assert writer.commit(owner, batch(0, 5))
    assert list(chain(memory).state.streams) == [STREAM]
    assert owner.commit(Commit(5, 6, [], {STREAM: None}, {}, "attempt", "writer", 1))
    assert owner.state.streams == chain(memory).state.streams == {}


def test_a_recreated_topic_opens_a_new_generation(memory):
    CommitWriter(memory).commit(chain(memory), batch(0, 5))
    again = chain(memory, topic_id="t2")
    assert (again.folder, again.state.frontier) == ("commits/topic/0.1/", 0)


def test_of_a_log_that_went_back_every_owner_goes_on_in_the_next_generation(memory):
    writer, first, second = CommitWriter(memory), chain(memory), chain(memory)
    assert writer.commit(first, batch(0, 5))
    late = chain(memory)
    writer.close(second)
    writer.close(first)
    assert first.folder == second.folder == "commits/topic/0.1/"
    assert (first.state.frontier, first.before.frontier, list(first.before.streams)) == (0, 6, [STREAM])
    assert not writer.commit(late, batch(5, 9))
    assert (late.load().frontier, late.folder) == (0, "commits/topic/0.1/")
    book = batch(5, 5).streams[STREAM] | {"first": 5, "stored": 2, "rows": 2, "next": 7}
    assert writer.commit(first, batch(5, 7)._replace(start=0, end=2, streams={STREAM: book}))
    anew = chain(memory)
    assert (anew.folder, anew.state.frontier, anew.before) == ("commits/topic/0.1/", 2, None)
    assert offsets(memory) == list(range(7))
    assert [(tip.frontier, tip.closed) for tip in tips(memory)] == [(2, False), (6, True)]
    compact(memory, LATER_NS)
    memory.now_ns = ARRIVAL_NS
    expire(memory, LATER_NS + 10**14)
    assert chain(memory).state.frontier == 2
    report = audit(memory, deep=True)
    assert report.closes, report.problems


@pytest.mark.parametrize("seed", range(5))
def test_every_row_once_whatever_the_order_of_writers_compactors_and_expiry(memory, seed):
    print("seed", seed)
    rng = random.Random(seed)
    writer, owners = CommitWriter(memory), [chain(memory) for _ in range(3)]
    memory.now_ns = LATER_NS
    for _ in range(150):
        memory.now_ns += 10**12
        i, dice = rng.randrange(3), rng.random()
        if dice < 0.1:
            compact(memory, memory.now_ns)
        elif dice < 0.15:
            expire(memory, memory.now_ns)
        elif dice < 0.3:
            owners[i] = chain(memory)
        else:
            at = owners[i].state.frontier
            if not writer.commit(owners[i], batch(at, at + rng.randint(1, 9))) and rng.random() < 0.5:
                owners[i].load()
    assert offsets(memory) == list(range(chain(memory).state.frontier))
    report = audit(memory, deep=True)
    assert report.closes, report.problems


@pytest.mark.parametrize("damage", ["missing", "size", "commit", "link"])
def test_audit_finds_damage(memory, damage):
    writer, owner = CommitWriter(memory), chain(memory)
    for i in range(4):
        assert writer.commit(owner, batch(i, i + 1))
    assert audit(memory).closes
    data, second = next(memory.list("data/")), f"commits/topic/0/{1:020d}.json"
    if damage == "missing":
        memory.delete(data)
    elif damage == "size":
        memory.replace(data, memory.read(data) + b"x")
    elif damage == "commit":
        memory.replace(second, memory.read(second).replace(b'"wall_ns":1', b'"wall_ns":2'))
    else:
        memory.delete(second)
    assert not audit(memory).closes
