import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import consumers.lake.compact as module
from consumers.lake import layout
from consumers.lake.audit import audit
from consumers.lake.compact import compact, expire
from consumers.lake.layout import HOUR_NS, open_lake
from consumers.lake.snapshot import snapshot
from consumers.lake.storage import MemoryStorage
from consumers.lake.writer import CommitWriter
from schemas.errors import DamagedError, StorageError
from tests.consumers.lake._lakes import ARRIVAL_NS, batch, chain

LATER_NS = ARRIVAL_NS + 10**14
CODE = """
import sys
from pathlib import Path
from tests.consumers.lake._lakes import batch, chain
from consumers.lake.compact import compact, expire
from consumers.lake.layout import open_lake
from consumers.lake.writer import CommitWriter
storage = open_lake(Path(sys.argv[1]), create=True)
owner = chain(storage)
at = owner.state.frontier
for i in range(at, at + 3):
    assert CommitWriter(storage).commit(owner, batch(i, i + 1))
now = int(sys.argv[2])
compact(storage, now)
expire(storage, now + 10**14, grace_ms=0)
"""


@pytest.mark.parametrize(
    "point",
    [
        "writer:file", "writer:files:2", "chain:created:2", "writer:committed:3",
        "compact:file", "compact:files", "compact:manifest", "expire:deleted", "expire:deleted:2",
    ],
)  # fmt: skip
def test_a_kill_anywhere_loses_and_doubles_nothing(tmp_path, point):
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "HYPOCENTER_CRASH_AT": point}
    command = [sys.executable, "-c", CODE, tmp_path / "lake", str(LATER_NS)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    del environment["HYPOCENTER_CRASH_AT"]
    subprocess.run(command, env=environment, check=True)
    storage = open_lake(tmp_path / "lake", create=False)
    report = audit(storage, deep=True)
    assert report.closes, report.problems
    assert report.rows == {"kmsg": chain(storage).state.frontier}
    assert len(list(storage.list("data/"))) == report.files


def test_open_hours_stay_and_sealed_hours_merge_once(storage):
    owner = chain(storage)
    for i in range(3):
        CommitWriter(storage).commit(owner, batch(i, i + 1))
    assert compact(storage, ARRIVAL_NS).manifest == 0
    assert compact(storage, LATER_NS).files_in == 3
    assert compact(storage, LATER_NS).manifest == 0
    assert expire(storage, LATER_NS + 1).replaced == 0
    assert expire(storage, LATER_NS + 10**14).replaced == 3
    assert audit(storage, deep=True).closes


def test_an_hour_ahead_of_the_clock_is_merged_as_it_grows(storage):
    writer, owner, now_ns = CommitWriter(storage), chain(storage), ARRIVAL_NS - 10**17
    hour_ns = 3600 * 10**9
    for i in range(3):
        assert writer.commit(owner, batch(i, i + 1))
    assert compact(storage, now_ns).files_in == 3
    assert writer.commit(owner, batch(3, 4))
    assert compact(storage, now_ns).files_in == 2
    # The clock comes near: now it is the hour in which files come.
    assert writer.commit(owner, batch(4, 5))
    start_ns = ARRIVAL_NS // hour_ns * hour_ns
    for near_ns in (start_ns - 600 * 10**9, start_ns, start_ns + hour_ns + 599 * 10**9):
        assert compact(storage, near_ns).files_in == 0
    assert compact(storage, start_ns + hour_ns + 600 * 10**9).files_in == 2
    assert audit(storage, deep=True).closes


def test_a_large_file_is_written_densely_once_though_it_is_alone(storage, monkeypatch):
    CommitWriter(storage).commit(chain(storage), batch(0, 9))
    (entry,) = (each for entries in snapshot(storage).files.values() for each in entries)
    monkeypatch.setattr("consumers.lake.compact._ALONE_BYTES_LEAST", entry.size_bytes + 1)
    assert compact(storage, LATER_NS).manifest == 0
    monkeypatch.setattr("consumers.lake.compact._ALONE_BYTES_LEAST", 1)
    assert compact(storage, ARRIVAL_NS).manifest == 0
    report = compact(storage, LATER_NS, rows_max=4)  # more rows than are merged with others
    assert (report.files_in, report.files_out, report.rows) == (1, 1, 9)
    assert compact(storage, LATER_NS).manifest == 0
    assert expire(storage, LATER_NS + 10**14).replaced == 1
    assert audit(storage, deep=True).closes


@pytest.mark.parametrize("topic", ["compact", "compact-1", "hypocenter.kmsg"])
def test_what_a_commit_wrote_is_told_from_what_a_manifest_added_whatever_its_topic(topic):
    attempt = "0123456789abcdef"
    assert not layout.is_compacted(layout.data_key("kmsg", 5, topic, 0, 0, 12, 1, attempt))
    assert layout.is_compacted(layout.compact_key("kmsg", 5, 7, 1, attempt))


def test_a_damaged_file_holds_up_nothing_else_is_told_once_and_read_once(tmp_path, caplog, monkeypatch):
    storage = open_lake(tmp_path / "lake", create=True)
    owner = chain(storage)
    for i in range(6):
        CommitWriter(storage).commit(owner, batch(i, i + 1, ARRIVAL_NS + i // 3 * HOUR_NS))
    first = min(storage.list("data/"))
    file = Path(storage.local_path(first))
    content = file.read_bytes()
    file.write_bytes(content.replace(b"PAR1", b"LOST"))
    report = compact(storage, LATER_NS)
    assert (report.files_in, report.files_out, report.rows, report.damaged) == (5, 2, 5, 1)
    assert f"{first}, with 1 rows, stays as it is, and is not merged: it is not what its commit says" in caplog.text
    assert expire(storage, LATER_NS + 10**14).replaced == 5
    assert len(list(storage.list("data/"))) == 3
    caplog.clear()
    read = []
    monkeypatch.setattr(module, "damage", lambda *_: read.append(1))
    assert compact(storage, LATER_NS) == module.CompactReport(damaged=1)
    assert (read, caplog.text, snapshot(storage).number) == ([], "", 1)
    assert any(first in problem for problem in audit(storage).problems)
    monkeypatch.undo()
    # Looked at again it is damaged still; brought back from a copy it is not any more, and merged.
    assert compact(storage, LATER_NS, again=True) == module.CompactReport(damaged=1)
    file.write_bytes(content)
    assert audit(storage, deep=True).closes
    report = compact(storage, LATER_NS, again=True)
    assert (report.files_in, report.files_out, report.rows, report.damaged) == (2, 1, 3, 0)
    assert audit(storage, deep=True).closes


def test_nothing_that_a_disk_has_changed_becomes_a_row_for_good(tmp_path):
    rng = random.Random(1)
    for number in range(60):
        storage = open_lake(tmp_path / f"lake{number}", create=True)
        owner = chain(storage)
        for i in range(2):
            CommitWriter(storage).commit(owner, batch(50 * i, 50 * i + 50))
        file = Path(storage.local_path(max(storage.list("data/"))))
        content = bytearray(file.read_bytes())
        at = rng.randrange(len(content)) if number % 2 else len(content) - 8 - rng.randrange(2000)  # the footer
        content[at] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        assert compact(storage, LATER_NS).damaged == 1
        assert len(list(storage.list("data/"))) == 2
        audit(storage)  # no error of a reader's comes through
        assert any(file.name in problem for problem in audit(storage, deep=True).problems)


def test_a_file_that_is_gone_holds_up_nothing_else(tmp_path, caplog):
    storage = open_lake(tmp_path / "lake", create=True)
    owner = chain(storage)
    for i in range(3):
        CommitWriter(storage).commit(owner, batch(i, i + 1))
    Path(storage.local_path(min(storage.list("data/")))).unlink()
    report = compact(storage, LATER_NS)
    assert (report.files_in, report.files_out, report.damaged) == (2, 1, 1)
    assert "is not merged: it is gone" in caplog.text
    assert [problem.rpartition(": ")[2] for problem in audit(storage).problems] == ["missing"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
def test_a_file_that_cannot_be_opened_now_is_not_called_damaged(tmp_path, monkeypatch, number):
    storage = open_lake(tmp_path / "lake", create=True)
    owner = chain(storage)
    for i in range(2):
        CommitWriter(storage).commit(owner, batch(i, i + 1))

    def refuse(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("consumers.lake.damage.file_sha256", refuse)
    with pytest.raises(StorageError, match=os.strerror(number)) as caught:
        compact(storage, LATER_NS)
    assert not isinstance(caught.value, DamagedError)
    assert snapshot(storage).number == 0


def test_nothing_is_expired_while_a_folder_cannot_be_read(tmp_path, monkeypatch):
    storage = open_lake(tmp_path / "lake", create=True)
    owner = chain(storage)
    for i in range(3):
        CommitWriter(storage).commit(owner, batch(i, i + 1))
    compact(storage, LATER_NS)
    real = os.scandir
    for hidden in ("manifests", "commits"):

        def refuse(path, hidden=hidden):
            if Path(path).name == hidden:
                raise OSError(errno.EMFILE, "Too many open files")
            return real(path)

        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", refuse)
            with pytest.raises(StorageError, match="Too many open files"):
                expire(storage, LATER_NS + 10**14)
    assert len(list(storage.list("data/"))) == 4
    assert audit(storage, deep=True).closes


def test_what_is_left_of_a_lake_without_its_commits_is_not_garbage(tmp_path):
    storage = open_lake(tmp_path / "lake", create=True)
    CommitWriter(storage).commit(chain(storage), batch(0, 1))
    shutil.rmtree(tmp_path / "lake" / "commits")
    assert expire(storage, LATER_NS + 10**14).orphans == 0
    assert len(list(storage.list("data/"))) == 1


def test_what_cannot_be_merged_holds_up_its_own_hour_alone(storage, monkeypatch, caplog):
    owner = chain(storage)
    for i in range(6):
        CommitWriter(storage).commit(owner, batch(i, i + 1, ARRIVAL_NS + i // 3 * HOUR_NS))
    digests = iter([(3, 1), (3, 2), (3, 1), (3, 1)])
    monkeypatch.setattr(module, "_digest", lambda _: next(digests))
    report = compact(storage, LATER_NS)
    assert (report.files_in, report.files_out, report.damaged) == (3, 1, 3)
    assert "not compacted, rows or digest differ" in caplog.text
    assert len(list(storage.list("data/"))) == 7
    assert audit(storage, deep=True).closes
    assert compact(storage, LATER_NS) == module.CompactReport(damaged=3)
    monkeypatch.undo()
    report = compact(storage, LATER_NS, again=True)
    assert (report.files_in, report.files_out, report.damaged) == (3, 1, 0)


def test_a_merged_file_that_is_gone_is_not_named(storage, monkeypatch):
    owner = chain(storage)
    for i in range(2):
        CommitWriter(storage).commit(owner, batch(i, i + 1))
    monkeypatch.setattr(module, "crash_point", lambda name: name == "compact:files" and expire(storage, LATER_NS * 2))
    with pytest.raises(StorageError, match="vanished before its manifest was written"):
        compact(storage, LATER_NS)
    assert audit(storage, deep=True).rows == {"kmsg": 2}


class Overtaken(MemoryStorage):
    """Whoever reads it is overtaken between the newest manifest and the commits that follow."""

    def __init__(self, meanwhile):
        super().__init__()
        self.meanwhile = meanwhile
        self.armed = False

    def list(self, prefix):
        if prefix == layout.COMMITS and self.armed:
            self.armed = False
            self.meanwhile(self)
        return super().list(prefix)


@pytest.fixture
def overtaken():
    """Return a lake that another housekeeper compacts and expires while its next snapshot is taken."""

    def meanwhile(storage):
        compact(storage, LATER_NS)
        storage.now_ns = LATER_NS + 10**14
        expire(storage, LATER_NS + 10**14, grace_ms=0)

    made = Overtaken(meanwhile)
    owner = chain(made)
    for i in range(300):
        assert CommitWriter(made).commit(owner, batch(i, i + 1))
    compact(made, LATER_NS)
    for i in range(300, 900):
        assert CommitWriter(made).commit(owner, batch(i, i + 1, ARRIVAL_NS + HOUR_NS))
    yield made
    made.close()


def test_a_snapshot_that_is_overtaken_is_taken_anew(overtaken):
    overtaken.armed = True
    taken = snapshot(overtaken)
    assert not overtaken.armed
    assert sum(entry.rows for entry in taken.files["kmsg"]) == 900


def test_whoever_is_overtaken_while_it_expires_deletes_nothing_that_is_named(overtaken):
    overtaken.armed = True
    assert expire(overtaken, LATER_NS + 10**14, grace_ms=0).orphans == 0
    report = audit(overtaken, deep=True)
    assert report.closes, report.problems
    assert report.rows == {"kmsg": 900}


def test_a_file_that_comes_after_the_listing_is_no_orphan_however_long_expiry_takes(memory, monkeypatch):
    owner = chain(memory)
    assert CommitWriter(memory).commit(owner, batch(0, 1))
    real = module.snapshot

    def slow(storage):
        taken = real(storage)
        assert CommitWriter(storage).commit(owner, batch(1, 2))
        return taken

    monkeypatch.setattr(module, "snapshot", slow)
    assert expire(memory, LATER_NS + 10**14, grace_ms=0).orphans == 0
    assert audit(memory, deep=True).rows == {"kmsg": 2}


def test_manifests_that_never_rest_end_in_a_sentence(memory, monkeypatch):
    assert CommitWriter(memory).commit(chain(memory), batch(0, 1))
    numbers = iter(range(10**6))
    monkeypatch.setattr("consumers.lake.snapshot.manifest_number", lambda _: next(numbers))
    monkeypatch.setattr("consumers.lake.snapshot.newest_manifest", lambda _: {})
    next(numbers)
    with pytest.raises(StorageError, match="try again"):
        snapshot(memory)
