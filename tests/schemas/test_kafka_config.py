import dataclasses
import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from consumers.topics import create_topics, verify_topics
from consumers.transport.base import Partition
from consumers.transport.kafka import KafkaReader
from producers.kafka import FrameProducer
from schemas.errors import UsageError
from schemas.kafka_config import KafkaConfig

ROOT = Path(__file__).parent.parent.parent
VARIABLE = "HYPOCENTER_TEST_PASSWORD"
LOGIN = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "u", "sasl_password_env": VARIABLE}


def kwargs_of(**values):
    return KafkaConfig("h:9092", **values).client_kwargs()


def test_a_plain_cluster_needs_an_address_alone():
    kwargs = KafkaConfig("a:1,b:2").client_kwargs()
    assert kwargs["bootstrap_servers"] == ["a:1", "b:2"]
    assert kwargs["security_protocol"] == "PLAINTEXT"
    assert not [name for name in kwargs if name.startswith(("ssl_", "sasl_"))]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
def test_a_login_is_passed_on_with_the_password_of_the_environment(monkeypatch, protocol, mechanism):
    monkeypatch.setenv(VARIABLE, "secret word")
    kwargs = kwargs_of(security_protocol=protocol, **LOGIN | {"sasl_mechanism": mechanism})
    assert (kwargs["security_protocol"], kwargs["sasl_mechanism"]) == (protocol, mechanism)
    assert (kwargs["sasl_plain_username"], kwargs["sasl_plain_password"]) == ("u", "secret word")
    assert ("ssl_context" in kwargs) == (protocol == "SASL_SSL")


def test_a_password_is_only_in_the_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, "secret word")
    config = KafkaConfig("h:1", "SASL_PLAINTEXT", **LOGIN)
    config.client_kwargs()
    assert "secret word" not in repr(config) + json.dumps(dataclasses.asdict(config))
    assert KafkaConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize("value", [None, ""])
def test_a_password_that_is_not_set_is_one_sentence(monkeypatch, value):
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(UsageError) as caught:
        kwargs_of(security_protocol="SASL_PLAINTEXT", **LOGIN)
    assert str(caught.value) == f"kafka.sasl_password_env names the environment variable {VARIABLE}, which is not set"


def test_a_key_password_that_is_not_set_is_one_sentence(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UsageError, match=rf"^kafka\.ssl_key_password_env names the environment variable {VARIABLE}"):
        kwargs_of(security_protocol="SSL", ssl_certfile="/c.pem", ssl_key_password_env=VARIABLE)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"bootstrap": ""}, "bootstrap is HOST:PORT, or several with commas between, not ''"),
        ({"bootstrap": "h"}, "bootstrap is "),
        ({"bootstrap": "h:0"}, "bootstrap is "),
        ({"bootstrap": "h:65536"}, "bootstrap is "),
        ({"bootstrap": "h:1,"}, "bootstrap is "),
        ({"bootstrap": "h:1, g:1"}, "bootstrap is "),
        ({"bootstrap": "SASL_SSL://h:1"}, "bootstrap is "),
        (
            {"security_protocol": "ssl"},
            "security_protocol is one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL, not 'ssl'",
        ),
        (
            {"security_protocol": "SASL_SSL", **LOGIN, "sasl_mechanism": "GSSAPI"},
            "sasl_mechanism is one of PLAIN, SCRAM-",
        ),
        (
            {"security_protocol": "SASL_SSL", **LOGIN, "sasl_mechanism": None},
            "sasl_mechanism is missing: security_protocol SASL_SSL",
        ),
        ({"security_protocol": "SASL_SSL", **LOGIN, "sasl_username": None}, "sasl_username is missing"),
        ({"security_protocol": "SASL_SSL", **LOGIN, "sasl_username": ""}, "sasl_username is a name, not ''"),
        ({"security_protocol": "SASL_SSL", **LOGIN, "sasl_password_env": None}, "sasl_password_env is missing"),
        ({"sasl_password_env": VARIABLE}, "sasl_password_env is set, but security_protocol PLAINTEXT does not use it"),
        ({"security_protocol": "SSL", **LOGIN}, "sasl_mechanism is set, but security_protocol SSL does not use it"),
        ({"ssl_cafile": "/ca.pem"}, "ssl_cafile is set, but security_protocol PLAINTEXT does not use it"),
        ({"security_protocol": "SSL", "ssl_keyfile": "/k.pem"}, "ssl_keyfile is set, but ssl_certfile is not"),
        (
            {"security_protocol": "SSL", "ssl_key_password_env": VARIABLE},
            "ssl_key_password_env is set, but ssl_certfile",
        ),
        ({"security_protocol": "SSL", "ssl_cafile": ""}, "ssl_cafile is the path of a PEM file, not ''"),
        ({"client_id": ""}, "client_id is "),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_key(values, wanted):
    with pytest.raises(UsageError) as caught:
        KafkaConfig(**{"bootstrap": "h:1"} | values)
    assert str(caught.value).startswith(wanted)


def test_a_password_in_the_place_of_its_variable_is_not_printed():
    with pytest.raises(UsageError) as caught:
        KafkaConfig("h:1", "SASL_SSL", **LOGIN | {"sasl_password_env": "hunter2!"})
    assert str(caught.value) == "sasl_password_env is the name of an environment variable"


@pytest.mark.parametrize("bootstrap", ["h:1", "broker-1.example:9093,broker_2:9093", "127.0.0.1:65535", "[::1]:9092"])
def test_an_address_is_taken_also_from_a_flag(bootstrap):
    assert dataclasses.replace(KafkaConfig("h:1"), bootstrap=bootstrap).bootstrap == bootstrap


# One client of each side in a process of its own: what a refused client leaves behind ends with it.
_START = """
import dataclasses, json, sys, time
from consumers.transport.kafka import KafkaReader
from producers.kafka import FrameProducer
from schemas.errors import UnavailableError
from schemas.kafka_config import KafkaConfig
for client in (KafkaReader, FrameProducer):
    start_s = time.monotonic()
    try:
        client(KafkaConfig(**json.loads(sys.argv[1])))
    except UnavailableError as e:
        print(json.dumps([str(e), time.monotonic() - start_s]))
"""


def started(config):
    command = [sys.executable, "-c", textwrap.dedent(_START), json.dumps(dataclasses.asdict(config))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.broker
def test_a_broker_with_tls_and_a_login(broker_factory, topics, tmp_path, monkeypatch):
    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    key = serialization.load_pem_private_key(made.private_key_pem.bytes(), None)
    # Java reads no other form of a key.
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "broker.pem").write_bytes(pem + b"".join(each.bytes() for each in made.cert_chain_pems))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    broker = broker_factory(tls=tmp_path / "broker.pem", user="u:right")
    monkeypatch.setenv(VARIABLE, "right")
    config = KafkaConfig(f"127.0.0.1:{broker.tls_port}", "SASL_SSL", **LOGIN, ssl_cafile=str(tmp_path / "ca.pem"))

    name = topics()
    assert create_topics(config, partitions=1, replication=1, names=[name]) == [name]
    verify_topics(config, [name])
    producer = FrameProducer(config)
    for number in range(20):
        producer.send(number, name, b"m", b"frame %d" % number)
    acked, deadline_s = [], time.monotonic() + 20
    while len(acked) < 20 and time.monotonic() < deadline_s:
        acked += producer.acked()
        time.sleep(0.01)
    producer.close()
    assert acked == list(range(20))
    reader = KafkaReader(config)
    reader.seek(Partition(name, 0), 0)
    found = []
    while len(found) < 20 and time.monotonic() < deadline_s:
        found += reader.poll(500).get(Partition(name, 0), [])
    reader.close()
    assert [each.value for each in found] == [b"frame %d" % number for number in range(20)]

    untrusted = started(dataclasses.replace(config, ssl_cafile=str(tmp_path / "other.pem")))
    monkeypatch.setenv(VARIABLE, "wrong")
    refused = started(config)
    assert len(untrusted) == len(refused) == 2
    for sentence, took_s in untrusted:
        assert sentence.startswith(f"Kafka at {config.bootstrap} is not trusted: ")
        assert "certificate verify failed" in sentence
        assert took_s < 10
    for sentence, took_s in refused:
        assert sentence.startswith(f"Kafka at {config.bootstrap} refuses the login: ")
        assert "invalid credentials" in sentence
        assert took_s < 10
    broker.kill()  # nobody else asks for this one, and its good-bye takes long
