import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from consumers.lake.layout import open_lake
from consumers.views import run_query
from schemas.stream import Stream
from schemas.surfaces import TOPIC_LOG
from tests.consumers import _sample
from tests.consumers._frames import STREAM, frame, record


@pytest.fixture
def lake(tmp_path):
    return tmp_path / "lake"


def rows(lake):
    return run_query(open_lake(lake, create=False), "select count(*), count(distinct (machine, seq)) from kmsg")[1][0]


def commits(lake):
    return sorted(path.name for path in (lake / "commits" / TOPIC_LOG / "0").glob("[0-9]*.json"))


def test_a_log_is_stored_to_its_end_and_a_second_run_adds_nothing(run, sample_log, lake):
    done = run("collect", "--lake", lake, "--log", sample_log, "--until-end")
    assert (done.code, done.out) == (0, "")
    assert rows(lake) == (680, 680)
    before = commits(lake)
    assert run("collect", "--lake", lake, "--log", sample_log, "--until-end").code == 0
    assert commits(lake) == before
    assert run("audit", "--lake", lake, "--deep").code == 0


def test_logs_of_two_machines_name_their_partitions_alike_and_have_a_chain_each(run, lake, tmp_path):
    for at, last in ((0, 3), (3, 5)):
        for machine in ("one", "two"):
            writer = _sample.LogWriter(tmp_path / machine, retention_bytes=1 << 30, retention_ms=None, segment_bytes=1 << 20)  # fmt: skip
            writer.append(TOPIC_LOG, frame(at, last, at, stream=STREAM._replace(machine=machine)))
            writer.close()
            assert run("collect", "--lake", lake, "--log", tmp_path / machine, "--until-end").code == 0
    found = run("query", "--lake", lake, "--format", "csv", "select machine, count(*), max(seq) from kmsg group by all order by all")  # fmt: skip
    assert found.out.splitlines()[1:] == ["one,5,4", "two,5,4"]
    assert run("audit", "--lake", lake, "--deep").code == 0


def test_the_group_of_a_configuration_is_for_who_follows(run, sample_log, lake, tmp_path):
    config = tmp_path / "hypocenter.toml"
    config.write_text(f'[log]\ndir = "{sample_log}"\n[collect]\nlake = "{lake}"\ngroup = "g"\n')
    assert run("collect", "--config", config, "--until-end").code == 0
    assert rows(lake) == (680, 680)


@pytest.fixture(scope="module")
def long_log(tmp_path_factory):
    """A log of several times what one poll gives."""
    path, noise = tmp_path_factory.mktemp("long") / "log", random.Random(7)
    writer = _sample.LogWriter(path, retention_bytes=1 << 30, retention_ms=None, segment_bytes=1 << 20)
    for number in range(12):
        records = [record(number * 100 + i, noise.randbytes(3500).hex()) for i in range(100)]
        writer.append(TOPIC_LOG, frame(number * 100, number * 100 + 100, number, records=records))
        writer.sync()
    writer.close()
    return path


@pytest.mark.parametrize(("flag", "value"), [("--cut-rows", 100), ("--cut-bytes", 10_000), ("--cut-age-s", 0)])
def test_a_smaller_cut_gives_more_commits_and_the_same_rows(run, long_log, lake, tmp_path, flag, value):
    run("collect", "--lake", tmp_path / "one", "--log", long_log, "--until-end")
    assert run("collect", "--lake", lake, "--log", long_log, "--until-end", flag, value).code == 0
    assert len(commits(lake)) > len(commits(tmp_path / "one")) == 1
    assert rows(lake) == (1200, 1200)


def test_lake_log_and_cuts_come_from_the_config_and_flags_override_them(run, long_log, lake, tmp_path):
    config = tmp_path / "hypocenter.toml"
    config.write_text(f'[log]\ndir = "{long_log}"\n[collect]\nlake = "{tmp_path / "other"}"\ncut_rows = 100\n')
    assert run("collect", "--config", config, "--until-end").code == 0
    assert run("collect", "--config", config, "--until-end", "--lake", lake, "--cut-rows", 1_000_000).code == 0
    assert len(commits(tmp_path / "other")) > len(commits(lake)) == 1


def test_only_the_partitions_asked_for_are_collected(run, sample_log, lake):
    done = run("collect", "--lake", lake, "--log", sample_log, "--until-end", "--partitions", "hypocenter.state:0")
    assert done.code == 0
    assert rows(lake) == (0, 0)
    assert [path.name for path in (lake / "commits").iterdir()] == ["hypocenter.state"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--log", "LOG"], 2, "which lake? give --lake DIR"),
        (["--lake", "LAKE"], 2, "where from? give --log DIR, --kafka HOST:PORT"),
        (["--lake", "LAKE", "--log", "NONE"], 69, "there is no log in"),
        (["--lake", "LAKE", "--log", "LOG", "--group", "g"], 2, "the embedded log has no groups"),
        (["--lake", "LAKE", "--log", "LOG", "--group", "g", "--until-end"], 2, "leave out --group"),
        (["--lake", "LAKE", "--log", "LOG", "--group", "g", "--partitions", "t:0"], 2, "give one of the two"),
        (["--lake", "LAKE", "--log", "LOG", "--until-end", "--partitions", "x:7"], 2, "has no partition 'x:7'; it has: h"),
        (["--lake", "LAKE", "--log", "LOG", "--partitions", "x"], 2, 'partitions is a list of "topic:number"'),
        (["--lake", "LAKE", "--log", "LOG", "--cut-rows", "0"], 2, "cut_rows is from 1 to"),
        (["--lake", "LAKE", "--log", "LOG", "--cut-age-s", "nan"], 2, "cut_age_s is from 0 to"),
        (["--lake", "LAKE", "--log", "LOG", "--cut-bytes", "x"], 2, "--cut-bytes: invalid int value: 'x'"),
        (["--lake", "LAKE", "--log", "LOG", "--kafka", "h:1"], 2, "--kafka: not allowed with argument --log"),
        (["--lake", "LAKE", "--kafka", "nohost"], 2, "bootstrap is HOST:PORT"),
        (["--config", "NONE"], 2, "No such file or directory"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_no_lake_is_left_behind(run, sample_log, lake, tmp_path, words, code, said):
    names = {"LOG": sample_log, "LAKE": lake, "NONE": tmp_path / "none"}
    done = run("collect", *(names.get(word, word) for word in words))
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert not (lake / "data").exists()
    assert not lake.exists() or "has no partition" in said


def test_a_directory_with_something_else_in_it_is_never_made_a_lake(run, sample_log, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    done = run("collect", "--lake", tmp_path / "mine", "--log", sample_log, "--until-end")
    assert done.code == 2
    assert "not a lake: it is not empty" in done.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter"]


def test_a_full_disk_is_exit_74(run, sample_log, tmp_path):
    if os.geteuid():
        pytest.skip("mounting a tmpfs needs root")
    mounted = tmp_path / "full"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", mounted], check=False).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        done = run("collect", "--lake", mounted, "--log", sample_log, "--until-end")
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert done.code == 74
    assert "No space left on device" in done.err


def test_sigterm_commits_what_was_read_and_ends_with_0(lake, tmp_path):
    log = tmp_path / "log"
    writer = _sample.LogWriter(log, retention_bytes=1 << 30, retention_ms=None, segment_bytes=1 << 20)
    stream = Stream("m", "b", "host", "kmsg", "", "printk")
    writer.append(TOPIC_LOG, frame(0, 5, 0, stream=stream))
    writer.sync()
    command = [sys.executable, "-m", "consumers.cli", "collect", "--lake", lake, "--log", log, "--cut-age-s", "600"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline_s = time.monotonic() + 30
        while not (lake / "commits" / TOPIC_LOG).exists() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        writer.append(TOPIC_LOG, frame(5, 9, 1, stream=stream))
        writer.sync()
        time.sleep(1)
        assert commits(lake) == []
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    writer.close()
    assert process.returncode == 0
    assert rows(lake) == (9, 9)
    assert json.loads(said.splitlines()[-1])["message"] == "stopped; 9 records were read and are committed"


MERGING = """
import sys
import duckdb
from consumers import housekeeping
from consumers.cli import main
def merge(*_):
    print("merging", file=sys.stderr, flush=True)
    while True:
        duckdb.connect().execute("select sum(hash(range)) from range(300000)").fetchall()
housekeeping._EVERY_S = 0.0
housekeeping.compact = merge
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_while_hours_are_merged_ends_with_0(sample_log, lake):
    command = [sys.executable, "-c", MERGING, "collect", "--lake", lake, "--log", sample_log, "--metrics", "off"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert any("merging" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read().splitlines()
        assert process.wait(30) == 0, said
    assert json.loads(said[-1])["message"].startswith("stopped; ")
