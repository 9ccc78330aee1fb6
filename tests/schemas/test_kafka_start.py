import logging

import pytest

from schemas import kafka_start
from schemas.errors import UnavailableError
from schemas.kafka_config import KafkaConfig

LOG = logging.getLogger("kafka.net.manager")
CONFIG = KafkaConfig("h:1")
LOGIN = KafkaConfig("h:1", "SASL_PLAINTEXT", "PLAIN", "u", "P")


class ClientError(Exception):
    """What a client raises when its time is up."""


class KafkaTimeoutError(ClientError):
    """Named as in kafka-python."""


class SaslAuthenticationFailedError(Exception):
    """Named as in kafka-python."""


def client(*heard):
    """A client that logs these errors, as kafka-python does, and then gives up."""

    def make(timeout_ms):
        made.append(timeout_ms)
        for error in heard:
            LOG.error("Connection failed: %s", error)
        raise KafkaTimeoutError("Unable to bootstrap")

    made = []
    return make, made


def refused(make, config=CONFIG):
    with pytest.raises(UnavailableError) as caught:
        kafka_start.start(make, config, (ClientError,))
    return str(caught.value)


def test_a_client_that_starts_is_returned():
    assert kafka_start.start(lambda ms: ("client", ms), CONFIG, (ClientError,)) == ("client", 2500)


def test_a_second_longer_try_may_succeed():
    def make(timeout_ms):
        if timeout_ms < 5000:
            raise KafkaTimeoutError
        return timeout_ms

    assert kafka_start.start(make, CONFIG, (ClientError,)) == 7500


def test_the_reason_is_what_the_client_only_logs():
    make, made = client(OSError("111 ECONNREFUSED"), KafkaTimeoutError("Request timed out"))
    assert refused(make) == "no broker answers at h:1: 111 ECONNREFUSED"
    assert made == [2500, 7500]
    make, _ = client()
    assert refused(make) == "no broker answers at h:1: the time is up"


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (SaslAuthenticationFailedError("bad password"), "Kafka at h:1 refuses the login: bad password"),
        (SaslAuthenticationFailedError(), "Kafka at h:1 refuses the login: SaslAuthenticationFailedError"),
        (
            OSError("[SSL: CERTIFICATE_VERIFY_FAILED] x"),
            "Kafka at h:1 is not trusted: [SSL: CERTIFICATE_VERIFY_FAILED] x",
        ),
        (OSError("[SSL: WRONG_VERSION_NUMBER] x"), "Kafka at h:1 does not speak TLS: [SSL: WRONG_VERSION_NUMBER] x"),
    ],
)
def test_what_patience_does_not_heal_is_said_at_once_whatever_follows_it(error, wanted):
    make, made = client(error, OSError("socket disconnected"))
    assert refused(make) == wanted
    assert made == [2500]


def test_a_closed_connection_hints_at_the_login_where_there_is_one():
    make, _ = client(OSError("socket disconnected"))
    assert refused(make) == "no broker answers at h:1: socket disconnected"
    assert refused(make, LOGIN).endswith("socket disconnected, which may be its answer to a wrong name or password")


def test_other_errors_pass(caplog):
    with pytest.raises(ZeroDivisionError):
        kafka_start.start(lambda _: 1 // 0, CONFIG, (ClientError,))
    LOG.error("heard again: %s", "afterwards")
    assert "afterwards" in caplog.text


def test_the_clients_own_lines_are_held_back_only_meanwhile(caplog):
    make, _ = client(OSError("first"))
    refused(make)
    assert "first" not in caplog.text
    assert (LOG.propagate, LOG.handlers) == (True, [])


def test_a_reason_is_one_line_of_bounded_length():
    make, _ = client(OSError("x" * 5000))
    assert len(refused(make)) < 400
