"""The collector's metrics over a log in memory: they agree with the lake, whatever fails or comes twice."""

import threading

import pytest

from consumers import metrics as module
from consumers.follow import Follower
from consumers.lake.audit import audit
from consumers.lake.storage import MemoryStorage
from consumers.metrics import CollectorMetrics
from consumers.transport.base import Partition
from consumers.transport.memory import MemoryLog, MemoryReader
from consumers.views import run_query
from schemas.config import CollectConfig
from schemas.errors import StorageError
from schemas.frame import encode
from schemas.loss import Loss, LossUnit
from tests._metrics import Scraped, parse
from tests.consumers._frames import STREAM, frame, heartbeat, message_bytes

LOG = Partition("hypocenter.log", 0)
OTHER = STREAM._replace(surface="invented")


class Refusing(MemoryStorage):
    """Refuses the next `refusals` data files."""

    refusals = 0

    def put_file(self, local, key):
        if self.refusals:
            self.refusals -= 1
            raise StorageError("disk full")
        super().put_file(local, key)


@pytest.fixture
def storage():
    made = Refusing()
    yield made
    made.close()


@pytest.fixture
def log():
    return MemoryLog([LOG.topic])


def append(log, *values):
    for value in values:
        log.append(LOG, value)


def follower(log, storage, metrics, **config):
    return Follower(MemoryReader(log), storage, CollectConfig(**config), metrics)


def collect(log, storage, metrics):
    follower(log, storage, metrics).run(threading.Event(), until_end=True)
    assert audit(storage, deep=True).closes
    return scraped(metrics)


def scraped(metrics):
    return Scraped(parse(metrics.text()))


def test_every_family_is_there_from_the_start():
    told = {line.split()[2].decode() for line in CollectorMetrics().text().splitlines() if line.startswith(b"# TYPE")}
    assert told == {each.name for each in module.FAMILIES}


def test_rows_losses_duplicates_and_dead_letters_are_those_of_the_lake(log, storage):
    first = message_bytes(0, 5, 1)
    lost = [Loss("overwrite", 5, 3, "ring-overwritten", "producer"), Loss("drop", 8, None, "killed", "producer")]
    events = [Loss("overwrite", 12, 9, "ring", "producer", LossUnit.EVENT)]
    append(log, first, first, message_bytes(8, 10, 2, losses=lost), message_bytes(12, 14, 3, losses=events), b"junk")
    found = collect(log, storage, CollectorMetrics())
    report = audit(storage)
    (book,) = report.books
    assert found.by("hypocenter_collector_rows_total", "table") == {t: n for t, n in report.rows.items() if n}
    assert found.by("hypocenter_collector_lost_positions_total", "kind") == book.lost == {"overwrite": 3, "gap": 2}
    assert found.total("hypocenter_collector_lost_events_total") == book.lost_events == 9
    assert found.total("hypocenter_collector_unknown_losses_total", reason="killed") == book.unknown_losses == 1
    assert found.one("hypocenter_collector_duplicates_total") == book.duplicates == 5
    rows = run_query(storage, "select reason, count(*) from dead_letters group by all")[1]
    assert found.by("hypocenter_collector_dead_letters_total", "reason") == dict(rows)
    assert len(rows) == 1
    assert found.one("hypocenter_collector_offsets_total") == 5
    assert found.one("hypocenter_collector_unbalanced_books") == 0


def test_other_content_under_a_known_position_is_no_duplicate(log, storage):
    append(log, message_bytes(0, 5, 1), message_bytes(0, 5, 1, run="other", text="other"))
    found = collect(log, storage, CollectorMetrics())
    (book,) = audit(storage).books
    assert (book.contradicted, book.duplicates) == (5, 0)
    assert found.one("hypocenter_collector_duplicates_total") == 0
    assert found.total("hypocenter_collector_lost_positions_total", reason="content-differs") == 5


def test_words_from_the_wire_are_bounded(log, storage):
    losses = [Loss(f"kind {n}", n, 1, f"reason {n}", "x") for n in range(1000)]
    append(log, encode(heartbeat(1000, 1, losses=losses, stream=OTHER)))
    found = collect(log, storage, CollectorMetrics())
    assert found.by("hypocenter_collector_lost_positions_total", "surface") == {"other": 1000}
    assert found.by("hypocenter_collector_lost_positions_total", "kind") == {"other": 1000}
    assert len(found.by("hypocenter_collector_lost_positions_total", "reason")) == 257


def test_a_commit_that_failed_counts_once_it_stands(log, storage, monkeypatch):
    monkeypatch.setattr("consumers.follow._RETRY_S", 0.01)
    append(log, message_bytes(0, 5, 1), b"junk")
    storage.refusals = 2
    metrics, stop = CollectorMetrics(), threading.Event()
    running = threading.Thread(
        target=follower(log, storage, metrics, cut_age_s=0).run, args=(stop,), kwargs={"until_end": False}
    )
    running.start()
    try:
        wait(lambda: scraped(metrics).one("hypocenter_collector_offsets_total") == 2)
    finally:
        stop.set()
        running.join()
    found = scraped(metrics)
    assert found.one("hypocenter_collector_commit_failures_total") == 2
    assert found.one("hypocenter_collector_errors_total", what="disk") == 2
    assert found.one("hypocenter_collector_rows_total", table="kmsg") == 5
    assert found.total("hypocenter_collector_dead_letters_total") == 1
    assert found.one("hypocenter_collector_commits_total") == found.one("hypocenter_collector_commit_seconds_count")
    assert audit(storage, deep=True).closes


def wait(condition, timeout_s=20.0):
    stop = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        stop.wait(0.02)
    raise AssertionError("not in time")


def test_the_lag_is_what_no_commit_has(log, storage):
    append(log, *(message_bytes(n, n + 1, n) for n in range(7)))
    metrics = CollectorMetrics()
    each = follower(log, storage, metrics, cut_age_s=3600)
    each._find_partitions()
    each._hear_ends()
    where = {"topic": LOG.topic, "partition": "0"}
    found = scraped(metrics)
    assert found.one("hypocenter_collector_lag_offsets", **where) == 7
    assert found.by("hypocenter_collector_lag_seconds", "topic") == {}  # nothing was read
    each._step()
    found = scraped(metrics)
    assert found.one("hypocenter_collector_lag_offsets", **where) == 7
    assert 0 <= found.one("hypocenter_collector_lag_seconds", **where) < 3600
    assert found.one("hypocenter_collector_buffered_bytes") > 0
    each._commit(LOG)
    found = scraped(metrics)
    assert found.one("hypocenter_collector_lag_offsets", **where) == 0
    assert found.one("hypocenter_collector_lag_seconds", **where) == 0
    assert found.one("hypocenter_collector_buffered_bytes") == 0


def test_a_commit_of_a_rival_is_not_ours(log, storage):
    append(log, message_bytes(0, 5, 1))
    metrics = CollectorMetrics()
    slow = follower(log, storage, metrics)
    slow._find_partitions()
    slow._step()
    collect(log, storage, CollectorMetrics())
    assert not slow._commit(LOG)
    found = scraped(metrics)
    assert found.one("hypocenter_collector_commits_lost_total") == 1
    assert found.one("hypocenter_collector_commits_total") == 0
    assert found.total("hypocenter_collector_rows_total") == 0


def test_messages_that_retention_deleted_are_offsets(log, storage):
    append(log, *(message_bytes(n, n + 1, n) for n in range(7)))
    metrics = CollectorMetrics()
    each = follower(log, storage, metrics)
    each._find_partitions()
    log.delete_before(LOG, 4)
    each.run(threading.Event(), until_end=True)
    found = scraped(metrics)
    assert found.one("hypocenter_collector_lost_offsets_total", kind="retention") == 4


def test_a_book_that_does_not_close_is_seen_at_once_and_after_a_start(log, storage, monkeypatch):
    append(log, message_bytes(0, 5, 1))
    monkeypatch.setattr("consumers.books.Books.dead", lambda *_: None)  # a bug, for the time of this test
    append(log, encode(frame(5, 8, 2, records=[b"6,5,50,-;five\n", b"no record", b"6,7,70,-;seven\n"])))
    metrics = CollectorMetrics()
    each = follower(log, storage, metrics)
    each.run(threading.Event(), until_end=True)
    assert scraped(metrics).one("hypocenter_collector_unbalanced_books") == 1
    again = CollectorMetrics()
    follower(log, storage, again)._find_partitions()
    assert scraped(again).one("hypocenter_collector_unbalanced_books") == 1
