import pytest

from producers import targets
from schemas.config import Config
from schemas.errors import UsageError


def test_the_default_spool_is_below_the_users_state(monkeypatch, tmp_path):
    monkeypatch.setattr(targets.os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert targets.default_spool() == tmp_path / "hypocenter" / "spool"
    monkeypatch.setattr(targets.os, "geteuid", lambda: 0)
    assert str(targets.default_spool()) == "/var/lib/hypocenter/spool"


def test_a_broker_without_its_client_is_refused_at_the_start(monkeypatch):
    assert targets.broker("127.0.0.1:1", Config(), unless=None).bootstrap == "127.0.0.1:1"
    monkeypatch.setattr(targets, "_CLIENT", "kafka_of_nobody")
    with pytest.raises(UsageError, match="Kafka takes the Python package kafka-python, which is not installed"):
        targets.broker("127.0.0.1:1", Config(), unless=None)
    assert targets.broker(None, Config(), unless=None) is None
