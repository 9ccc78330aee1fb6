"""`hypocenter alert`: what it finds in the sample's log, and what it refuses."""

import json
import signal
import subprocess
import sys

import pytest

from tests.consumers.alerts._cases import Receiver


def test_it_finds_what_stands_still_and_a_query_shows_it(run, sample_log, tmp_path):
    with Receiver() as receiver:
        words = ("--log", sample_log, "--lake", tmp_path / "lake", "--alertmanager", receiver.url, "--until-end")
        done = run("alert", *words)
        assert done.code == 0, done.err
        told = {each["labels"]["incident_id"] for each in receiver.alerts}
    sql = "select distinct incident_id from incidents where kind in ('hung_task', 'soft_lockup', 'rcu_stall')"
    rows = [json.loads(line) for line in run("query", "--lake", tmp_path / "lake", sql, "--format", "json").lines]
    assert {each["incident_id"] for each in rows} == told != set()
    assert run("audit", "--lake", tmp_path / "lake", "--deep").code == 0
    status = run("status", "--lake", tmp_path / "lake", "--log", sample_log, "--json")
    chains = {chain["topic"]: chain["lag"] for chain in json.loads(status.out)["partitions"]}
    assert chains == {"alerts.hypocenter.log": 0, "alerts.hypocenter.state": 0}


def test_a_second_run_finds_nothing_new(run, sample_log, tmp_path):
    words = ("alert", "--log", sample_log, "--lake", tmp_path / "lake", "--until-end")
    assert run(*words).code == run(*words).code == 0
    count = run("query", "--lake", tmp_path / "lake", "select max(version) from incidents", "--format", "csv")
    assert count.lines[-1] == "1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--log", "x"), "which lake?"),
        (("--lake", "x"), "where from?"),
        (("--lake", "x", "--log", "y", "--alertmanager", "localhost:9093"), "alertmanager is a list of"),
        (("--lake", "x", "--log", "y", "--group", "g"), "the embedded log has no groups"),
        (("--lake", "x", "--kafka", "127.0.0.1:1", "--group", "g", "--until-end"), "leave out --group"),
    ],
)
def test_what_is_wrong_is_said(run, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    done = run("alert", *words)
    assert done.code == 2
    assert said in done.err


def test_a_lake_is_made_only_where_there_is_a_log(run, tmp_path):
    assert run("alert", "--log", tmp_path / "none", "--lake", tmp_path / "lake").code == 69
    assert not (tmp_path / "lake").exists()


def test_an_end_must_be_further_ahead_than_the_next_telling(run, tmp_path):
    (tmp_path / "x.toml").write_text("[alert]\nresend_s = 60\nends_ahead_s = 61\n")
    done = run("alert", "--config", tmp_path / "x.toml", "--lake", tmp_path / "lake", "--log", tmp_path)
    assert done.code == 2
    assert "ends_ahead_s is at least twice resend_s" in done.err


def test_a_login_whose_secret_is_not_in_the_environment_is_said_before_anything_is_made(run, tmp_path):
    text = '[alert]\nalertmanager = ["https://am:9093"]\nalertmanager_token_env = "NO_SUCH_VARIABLE"\n'
    (tmp_path / "x.toml").write_text(text)
    done = run("alert", "--config", tmp_path / "x.toml", "--lake", tmp_path / "lake", "--log", tmp_path)
    assert done.code == 2
    assert "alert.alertmanager_token_env names the environment variable NO_SUCH_VARIABLE, which is not set" in done.err
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("flags", [(), ("--alertmanager", "http://127.0.0.1:9")], ids=["nobody", "somebody"])
def test_one_that_follows_and_tells_nobody_says_so(sample_log, tmp_path, flags):
    words = ["alert", "--log", sample_log, "--lake", tmp_path / "lake", "--metrics", "off", *flags]
    command = [sys.executable, "-m", "consumers.cli", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lines = [json.loads(process.stderr.readline()) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert lines[0]["message"].startswith("alerting from the log")
    warned = [each for each in lines if "nobody is paged" in each["message"]]
    assert [each["level"] for each in warned] == ([] if flags else ["WARNING"])
