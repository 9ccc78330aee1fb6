import json
import shutil
import time

import pytest

from consumers.lake.chain import Chain
from consumers.lake.layout import open_lake
from schemas.frame import decode
from tests._logs import writer
from tests.consumers import _sample
from tests.consumers._frames import message_bytes


@pytest.fixture
def collected(run, sample_log, tmp_path):
    """A lake that holds the first third of the sample's log, and all of it after `finish`."""
    lake = tmp_path / "lake"
    run("collect", "--lake", lake, "--log", sample_log, "--until-end")
    return lake


def test_without_the_log_the_lag_is_unknown(run, collected):
    done = run("status", "--lake", collected)
    assert done.code == 0
    head, _, *rows = done.lines
    assert head.split() == ["partition", "frontier", "lag", "commits", "rows", "last_commit_s_ago", "last_writer"]
    log = next(row.split() for row in rows if row.startswith("hypocenter.log-0"))
    assert log[1:5] == [str(len(_sample.messages())), "null", "1", "740"]
    assert float(log[5]) < 60


def test_every_stream_says_until_when_it_was_watched(run, collected):
    streams = run("status", "--lake", collected).out.split("\n\n")[1].splitlines()
    assert [row.split()[:5] for row in streams[2:4]] == [
        ["5f0c2a9b", "c1f6a0de", "guest-kernel/kmsg", "422", "62.0"],
        ["b83e17d2", "0d9e47b2", "guest-kernel/kmsg", "369", "42.0"],
    ]
    ago_s = float(streams[2].split()[5])
    assert abs(ago_s - (time.time() - (_sample.START_NS / 1e9 + 62))) < 60


def test_the_lag_is_what_the_log_holds_behind_the_frontier(run, sample_log, collected, tmp_path):
    def lag(lake):
        report = json.loads(run("status", "--lake", lake, "--log", sample_log, "--json").out)
        return {each["topic"]: each["lag"] for each in report["partitions"]}

    assert lag(collected)["hypocenter.log"] == 0
    other = tmp_path / "other"
    run("collect", "--lake", other, "--log", sample_log, "--until-end", "--partitions", "hypocenter.state:0")
    storage = open_lake(other, create=False)
    ids = json.loads(next((collected / "commits" / "hypocenter.log" / "0").glob("genesis.json")).read_text())
    Chain(storage, "hypocenter.log", 0, log_id=ids["log_id"], topic_id=ids["topic_id"], first_offset=3)
    assert lag(other) == {"hypocenter.log": len(_sample.messages()) - 3, "hypocenter.state": 0}


def test_json_has_whole_names(run, collected, sample_log):
    report = json.loads(run("status", "--lake", collected, "--log", sample_log, "--json").out)
    assert {each["machine"] for each in report["streams"]} == {_sample.HUNG.machine, _sample.LOCKED.machine}
    assert {each["boot_id"] for each in report["streams"]} == {_sample.HUNG.boot_id, _sample.LOCKED.boot_id}
    log_ids = {each["log_id"] for each in report["partitions"]}
    assert log_ids == {json.loads((sample_log / "log.json").read_text())["id"]}


def test_the_same_partition_of_two_logs_is_told_apart(run, collected, tmp_path):
    _sample.write_log(tmp_path / "second")
    run("collect", "--lake", collected, "--log", tmp_path / "second", "--until-end")
    done = run("status", "--lake", collected, "--log", tmp_path / "second")
    rows = [row.split() for row in done.lines if "hypocenter.log-0" in row]
    assert done.lines[0].split()[0] == "log_id"
    assert len({row[0] for row in rows}) == len(rows) == 2
    # Of the log that is not given nobody knows the end.
    assert sorted(row[3] for row in rows) == ["0", "null"]


def test_lake_and_log_may_come_from_the_config(run, collected, sample_log, tmp_path):
    config = tmp_path / "hypocenter.toml"
    config.write_text(f'[log]\ndir = "{sample_log}"\n[collect]\nlake = "{collected}"\n')
    report = json.loads(run("status", "--config", config, "--json").out)
    assert {each["lag"] for each in report["partitions"]} == {0}


def test_without_a_lake_it_asks_for_one(run, tmp_path):
    done = run("status")
    assert (done.code, done.err) == (
        2,
        "hypocenter: which lake? give --lake DIR, or [collect] lake in the config file\n",
    )
    assert run("status", "--lake", tmp_path / "none").code == 2


def test_an_absent_log_is_exit_69(run, collected, tmp_path):
    assert run("status", "--lake", collected, "--log", tmp_path / "none").code == 69


def test_a_log_that_went_back_has_a_lag_below_zero_until_its_collector_sees_it(run, sample_log, collected, tmp_path):
    def lags(log):
        report = json.loads(run("status", "--lake", collected, "--log", log, "--json").out)
        return [each["lag"] for each in report["partitions"] if each["topic"] == "hypocenter.log"]

    count, log = len(_sample.messages()), tmp_path / "restored"
    shutil.copytree(sample_log, log)
    shutil.rmtree(log / "hypocenter.log")
    assert lags(log) == [-count]
    assert run("collect", "--lake", collected, "--log", log, "--until-end").code == 0
    assert sorted(lags(log), key=str) == [0, None]


def test_a_log_whose_clock_was_ahead_is_named(run, tmp_path, caplog):
    lake, path = tmp_path / "lake", tmp_path / "log"

    def said(*source):
        caplog.clear()
        assert run("status", "--lake", lake, *source).code == 0
        return [each.getMessage() for each in caplog.records if "ahead of this clock" in each.getMessage()]

    def write(ahead_s, number):
        log = writer(path, clock=lambda: time.time_ns() + ahead_s * 10**9)
        log.append("hypocenter.log", decode(message_bytes(number, number + 1, number)))
        log.close()
        run("collect", "--lake", lake, "--log", path, "--until-end")

    write(0, 0)
    assert said() == []
    write(3600, 1)
    write(0, 2)
    assert len(said()) == len(said("--log", path)) == 1
    assert said()[0].startswith("hypocenter.log-0: the newest message came 35")
    # A new log has times of its own.
    shutil.rmtree(path)
    write(0, 3)
    assert said("--log", path) == []
