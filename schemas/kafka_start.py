"""Starts a Kafka client within bounded time, and says why it cannot.

kafka-python repeats a refused login or handshake until its time is up, raises a timeout, and only logs the reason.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from schemas.errors import UnavailableError
from schemas.kafka_config import KafkaConfig

T = TypeVar("T")
#: A first short try shows what no patience will heal; together they are how long a broker may take to answer.
_TRIES_MS: Final = (2_500, 7_500)
_SPEAKS: Final = "kafka.net.manager"
_CLOSED: Final = "socket disconnected"
#: What the client's errors say, and what it means; these are final.
_FINAL: Final = {
    "SaslAuthenticationFailedError": "refuses the login",
    "UnsupportedSaslMechanismError": "refuses the login",
    "IllegalSaslStateError": "takes no login on this port",
    "CERTIFICATE_VERIFY_FAILED": "is not trusted",
    "WRONG_VERSION_NUMBER": "does not speak TLS",
}


def start(make: Callable[[int], T], config: KafkaConfig, errors: tuple[type[Exception], ...]) -> T:
    """Return what `make` returns; it is told how many ms it may take, and raises one of `errors` when it cannot.

    Raises:
        UnavailableError: the cluster did not answer or refused us; the sentence has the client's own reason.
    """
    with _listening() as heard:
        for timeout_ms in _TRIES_MS:
            try:
                return make(timeout_ms)
            except errors as e:
                heard.hear(e)
            if heard.meaning is not None:
                raise UnavailableError(f"Kafka at {config.bootstrap} {heard.meaning}: {heard.said}")
    said = heard.said or "the time is up"
    if said == _CLOSED and config.sasl_mechanism is not None:
        said += ", which may be its answer to a wrong name or password"
    raise UnavailableError(f"no broker answers at {config.bootstrap}: {said}")


class _Heard(logging.Handler):
    """The client's own words on why it could not start: the last final reason, else the last one that is no timeout."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.meaning: str | None = None
        self.said: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        for each in record.args if isinstance(record.args, tuple) else ():
            if isinstance(each, BaseException):
                self.hear(each)

    def hear(self, error: BaseException) -> None:
        name, text = type(error).__name__, str(error.args[0] if error.args else "")
        meaning = next((meaning for word, meaning in _FINAL.items() if word in name or word in text), None)
        if meaning is not None or (self.meaning is None and "Time" not in name):
            self.meaning, self.said = meaning, (text or name)[:300]


# While it listens, what the client says goes nowhere else: the one sentence is enough.
@contextmanager
def _listening() -> Iterator[_Heard]:
    logger, heard = logging.getLogger(_SPEAKS), _Heard()
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(heard)
    try:
        yield heard
    finally:
        logger.removeHandler(heard)
        logger.setLevel(level)
        logger.propagate = propagate
