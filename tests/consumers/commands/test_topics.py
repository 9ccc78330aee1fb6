import pytest
from kafka.admin import NewTopic

from consumers.topics import admin
from schemas import kafka_start
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import TOPICS


@pytest.mark.broker
def test_they_are_created_once_and_verified(run, broker_factory):
    address = broker_factory().bootstrap
    missing = run("topics", "verify", "--kafka", address)
    assert (missing.code, missing.out) == (2, "")
    assert "topic hypocenter.log does not exist: run `hypocenter topics create" in missing.err
    done = run("topics", "create", "--kafka", address, "--partitions", 3)
    assert done.code == 0
    good = "every topic is as it must be"
    assert done.lines == [*(f"{name} created: 3 partitions, 1 replica" for name in TOPICS), good]
    # They are never changed, so it must be seen what they have.
    there = [*(f"{name} is there: 3 partitions, 1 replica" for name in TOPICS), good]
    assert run("topics", "create", "--kafka", address).lines == there
    assert run("topics", "verify", "--kafka", address).lines == there
    # Nor does it pass for what was asked for.
    for action in ("create", "verify"):
        other = run("topics", action, "--kafka", address, "--partitions", 8)
        assert (other.code, other.lines) == (2, there[:-1])
        assert "topic hypocenter.log has 3 partitions, not 8: a topic that is there is never changed" in other.err
        assert run("topics", action, "--kafka", address, "--partitions", 3, "--replication", 1).code == 0
    other = run("topics", "create", "--kafka", address, "--replication", 2)
    assert (other.code, "topic hypocenter.log has 1 replica, not 2" in other.err) == (2, True)
    with admin(KafkaConfig(address)) as client:
        partitions = {each["name"]: len(each["partitions"]) for each in client.describe_topics(list(TOPICS))}
    assert partitions == dict.fromkeys(TOPICS, 3)


@pytest.mark.broker
def test_one_that_is_set_otherwise_is_named_and_not_changed(run, broker_factory, tmp_path):
    address = broker_factory().bootstrap
    with admin(KafkaConfig(address)) as client:
        client.create_topics([NewTopic("hypocenter.log", 1, 1, topic_configs={"cleanup.policy": "compact"})])
        client.wait_for_topics(["hypocenter.log"])
    config = tmp_path / "hypocenter.toml"
    config.write_text(f'[kafka]\nbootstrap = "{address}"\n')
    for action in ("create", "verify"):
        done = run("topics", action, "--config", config)
        assert done.code == 2
        assert "topic hypocenter.log: cleanup.policy is 'compact', wanted 'delete'" in done.err


def test_an_absent_broker_is_exit_69_in_one_sentence(run, monkeypatch):
    monkeypatch.setattr(kafka_start, "_TRIES_MS", (300,))
    done = run("topics", "verify", "--kafka", "127.0.0.1:1")
    assert done.code == 69
    assert "127.0.0.1:1" in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify"], "which broker? give --kafka HOST:PORT or [kafka] bootstrap"),
        (["crate", "--kafka", "h:1"], "there is no crate; did you mean create?"),
        (["create", "--kafka", "h:1", "--partitions", "0"], "--partitions: a whole number from 1 on, not '0'"),
        (["create", "--kafka", "h:1", "--replication", "x"], "--replication: a whole number from 1 on, not 'x'"),
    ],
)
def test_what_is_wrong_is_exit_2(run, words, said):
    done = run("topics", *words)
    assert done.code == 2
    assert said in done.err
