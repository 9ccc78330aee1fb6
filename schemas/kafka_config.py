"""`[kafka]`: where the broker is and how to be let in. Secrets come from the environment alone."""

import os
from dataclasses import dataclass
from typing import Any

from schemas.errors import UsageError

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """One cluster. `sasl_password_env` names the environment variable that holds the password."""

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password_env: str | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True
    client_id: str = "hypocenter"

    def client_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments that kafka-python's clients share.

        Raises:
            UsageError: the protocol is unknown, or the password's variable is not set.
        """
        if self.security_protocol not in _PROTOCOLS:
            raise UsageError(
                f"kafka.security_protocol is one of {', '.join(_PROTOCOLS)}, not {self.security_protocol!r}"
            )
        kwargs: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap.split(","),
            "security_protocol": self.security_protocol,
            "client_id": self.client_id,
            "reconnect_backoff_max_ms": 1000,
        }
        if "SSL" in self.security_protocol:
            kwargs["ssl_check_hostname"] = self.ssl_check_hostname
            for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
                if getattr(self, key) is not None:
                    kwargs[key] = getattr(self, key)
        if self.security_protocol.startswith("SASL"):
            kwargs["sasl_mechanism"] = self.sasl_mechanism
            kwargs["sasl_plain_username"] = self.sasl_username
            kwargs["sasl_plain_password"] = self._password()
        return kwargs

    def _password(self) -> str:
        if not self.sasl_password_env or self.sasl_password_env not in os.environ:
            raise UsageError(f"no password: kafka.sasl_password_env names no set variable ({self.sasl_password_env})")
        return os.environ[self.sasl_password_env]
