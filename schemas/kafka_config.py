"""`[kafka]`: where the broker is and how to be let in. Secrets come from the environment alone."""

import re
from dataclasses import MISSING, dataclass
from typing import Any, Final

from schemas import bounds, kafka_tls
from schemas.bounds import Rule, key, matching, one_of
from schemas.errors import UsageError
from schemas.secrets import VARIABLE, secret

_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_PEM: Final = matching(r"[^\0]+", "the path of a PEM file")
_LOGIN: Final = ("sasl_mechanism", "sasl_username", "sasl_password_env")
_TLS: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password_env")


def _servers(value: str) -> bool:
    found = [_SERVER.fullmatch(server) for server in value.split(",")]
    return all(server is not None and 0 < int(server[2]) < 1 << 16 for server in found)


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """One cluster. With TLS its certificate is always verified, by `ssl_cafile` or else the system's authorities.

    `ssl_certfile` and `ssl_keyfile` are the client's own; `sasl_password_env` and `ssl_key_password_env` name the
    environment variables that hold the secrets.
    """

    bootstrap: str = key(MISSING, Rule(_servers, "HOST:PORT, or several with commas between"))
    security_protocol: str = key("PLAINTEXT", one_of(("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")))
    sasl_mechanism: str | None = key(None, one_of(("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")))
    sasl_username: str | None = key(None, Rule(bool, "a name"))
    sasl_password_env: str | None = key(None, VARIABLE)
    ssl_cafile: str | None = key(None, _PEM)
    ssl_certfile: str | None = key(None, _PEM)
    ssl_keyfile: str | None = key(None, _PEM)  # default: the key is in ssl_certfile
    ssl_key_password_env: str | None = key(None, VARIABLE)
    ssl_check_hostname: bool = True
    client_id: str = key("hypocenter", matching(r"[A-Za-z0-9._-]{1,249}", "letters, digits, dots, dashes or _"))

    def __post_init__(self) -> None:
        bounds.check(self)
        protocol = self.security_protocol
        sasl = protocol.startswith("SASL")
        for name in _LOGIN:
            if sasl and getattr(self, name) is None:
                raise UsageError(f"{name} is missing: security_protocol {protocol} needs it")
        # What would silently not be used is somebody's mistaken belief in a protection.
        unused = (() if sasl else _LOGIN) + (() if self._tls else _TLS)
        for name in unused:
            if getattr(self, name) is not None:
                raise UsageError(f"{name} is set, but security_protocol {protocol} does not use it")
        for name in ("ssl_keyfile", "ssl_key_password_env"):
            if getattr(self, name) is not None and self.ssl_certfile is None:
                raise UsageError(f"{name} is set, but ssl_certfile is not")

    def client_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments that kafka-python's clients share.

        Raises:
            UsageError: a secret's variable is not set, or a PEM file cannot be used.
        """
        kwargs: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap.split(","),
            "security_protocol": self.security_protocol,
            "client_id": self.client_id,
            "reconnect_backoff_max_ms": 1000,
        }
        if self._tls:
            kwargs["ssl_context"] = self._ssl_context()
        if self.sasl_mechanism is not None:
            kwargs["sasl_mechanism"] = self.sasl_mechanism
            kwargs["sasl_plain_username"] = self.sasl_username
            kwargs["sasl_plain_password"] = secret("kafka.sasl_password_env", self.sasl_password_env)
        return kwargs

    @property
    def _tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    def _ssl_context(self) -> Any:
        password = None
        if self.ssl_key_password_env is not None:
            password = secret("kafka.ssl_key_password_env", self.ssl_key_password_env)
        files = kafka_tls.Files(self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile, password)
        return kafka_tls.context(files, check_hostname=self.ssl_check_hostname)
