"""Incidents for other programs: every version as JSON on the topic `hypocenter.incident`, keyed by machine.

WIRE.md, section 8, has the form. At least once: a version is sent before it is committed, so a kill between the two
sends it again, with the same `incident_id` and `version`; a later one counts.
"""

import contextlib
import json
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError

from schemas import kafka_start
from schemas.errors import UnavailableError
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import TOPIC_INCIDENT

_BLOCK_MS: Final = 2_000
_ACK_S: Final = 10.0
_CLOSE_S: Final = 1.0
#: Of the columns of `incidents`: where the alerter read it is nobody else's business, and JSON is no text in JSON.
_LEFT_OUT: Final = frozenset(("topic", "partition", "offset", "incident_json", "verdict_json"))


def message(row: dict[str, Any]) -> bytes:
    """Return one row of `incidents` as a message."""
    value = {name: each for name, each in row.items() if name not in _LEFT_OUT}
    value["incident"] = json.loads(row["incident_json"])
    value["verdict"] = None if row["verdict_json"] is None else json.loads(row["verdict_json"])
    return json.dumps(value, separators=(",", ":")).encode()


class IncidentTopic:
    """The topic on `config`'s cluster; one thread uses it. The client is made when there is something to send."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._client: Any = None

    def send(self, rows: list[dict[str, Any]]) -> None:
        """See `commits.Publisher`."""
        if not rows:
            return
        try:
            if self._client is None:
                self._client = self._connect()
            futures = [
                self._client.send(TOPIC_INCIDENT, key=row["machine"].encode(), value=message(row)) for row in rows
            ]
            self._client.flush(_ACK_S)
            for future in futures:
                future.get(timeout=0)
        except (KafkaError, OSError) as e:
            self.close()
            raise UnavailableError(f"topic {TOPIC_INCIDENT} at {self._config.bootstrap}: {e!r:.200}") from None

    def close(self) -> None:
        """See `commits.Publisher`."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            client.close(timeout=_CLOSE_S)
        except KafkaError:
            # Else its thread lives on with all that it was given, and sends it when the broker is back.
            client._sender.force_close()  # noqa: SLF001
            client._sender.join(_CLOSE_S)  # noqa: SLF001
            with contextlib.suppress(KafkaError):
                client.close(timeout=0)

    def _connect(self) -> Any:
        settings = {
            "enable_idempotence": True,
            "acks": "all",
            "max_request_size": 2 << 20,
            "max_block_ms": _BLOCK_MS,
            "request_timeout_ms": int(_ACK_S * 1000),
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
            **self._config.client_kwargs(),
        }
        return kafka_start.start(
            lambda ms: KafkaProducer(bootstrap_timeout_ms=ms, **settings), self._config, (KafkaError, OSError)
        )
