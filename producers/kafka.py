"""Sends frames to Kafka and says, strictly in the order of sending, up to where they are acknowledged.

Nothing is given up: a client that stalls is built anew and everything unacknowledged is sent again, in order; the
collector drops the duplicates. Memory is bounded by `room`, because the client itself never blocks on outages.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

from schemas import kafka_start, topic_settings
from schemas.errors import UnavailableError
from schemas.kafka_config import KafkaConfig

log = logging.getLogger(__name__)
_REQUEST_BYTES_MAX: Final = 2 << 20
_REQUEST_MS: Final = 10_000
_BLOCK_MS: Final = 2_000
_CLOSE_S: Final = 2.0
_RECONNECT_S: Final = 1.0
# Batches must not expire one by one: a later one that got through first would look like a gap to the collector.
_NEVER_MS: Final = (1 << 31) - 1


def verify_topic(config: KafkaConfig, name: str) -> None:
    """Verify that the topic `name` exists and has the settings that exactness needs.

    Raises:
        UsageError: it has not; the text names topic and setting.
        UnavailableError: the broker does not answer or refuses.
    """
    kwargs = config.client_kwargs()
    client = kafka_start.start(
        lambda ms: KafkaAdminClient(bootstrap_timeout_ms=ms, **kwargs), config, (KafkaError, OSError)
    )
    try:
        if name not in client.list_topics():
            raise topic_settings.absent(name)
        answer = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all")
        entries = answer[ConfigResourceType.TOPIC.name.lower()][name]
        topic_settings.check(name, {key: str(entry["value"]) for key, entry in entries.items()})
    except (KafkaError, OSError, ValueError) as e:
        raise UnavailableError(f"topic {name} cannot be verified at {config.bootstrap}: {e!r:.200}") from None
    finally:
        client.close()


@dataclass(slots=True)
class _Pending:
    token: Any
    topic: str
    key: bytes
    value: bytes
    future: Any = None


class FrameProducer:
    """A client of `config`'s cluster. Not thread-safe; `on_ack` is called from the client's own thread.

    Raises:
        UnavailableError: no broker answers at start.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        on_ack: Callable[[], None] = lambda: None,
        in_flight_bytes_max: int = 16 << 20,
        stall_s: float = 3 * _REQUEST_MS / 1000,
    ) -> None:
        self._config = config
        self._on_ack = on_ack
        self._in_flight_bytes_max = in_flight_bytes_max
        self._stall_s = stall_s
        self._pending: deque[_Pending] = deque()
        self._bytes = 0
        self._progress_s = time.monotonic()
        self._connect_s = 0.0  # not before, after a try that failed
        self._waits = False  # and that was said
        self.rebuilds = 0
        #: Clients given up, connections refused, frames that a client did not take.
        self.errors = 0
        self._client: Any = self._connect()

    @property
    def waiting(self) -> int:
        """How many frames are not yet acknowledged."""
        return len(self._pending)

    def room(self) -> bool:
        """Tell whether the in-flight budget has room for another frame."""
        return self._bytes < self._in_flight_bytes_max

    def send(self, token: Any, topic: str, key: bytes, value: bytes) -> None:
        """Send one frame; `acked` gives `token` back when it and all before it are acknowledged."""
        if not self._pending:
            self._progress_s = time.monotonic()
        self._pending.append(_Pending(token, topic, key, value))
        self._bytes += len(value)
        self._pump()

    def acked(self) -> list[Any]:
        """Return the tokens acknowledged since the last call, in order; send again what failed or stalled."""
        tokens = []
        while self._pending and self._pending[0].future is not None and self._pending[0].future.succeeded():
            done = self._pending.popleft()
            self._bytes -= len(done.value)
            tokens.append(done.token)
        now_s = time.monotonic()
        if tokens:
            self._progress_s = now_s
            if self._waits:
                self._waits = False
                log.info("frames are acknowledged again")
        head = self._pending[0] if self._pending else None
        failed = head is not None and head.future is not None and head.future.failed()
        if self._client is None:
            if now_s >= self._connect_s:
                self._reconnect()
        elif failed or (head is not None and now_s - self._progress_s > self._stall_s):
            self._rebuild()
        self._pump()
        return tokens

    def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Wait at most `timeout_s` for what is under way, then release the client."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            client.close(timeout=timeout_s)
        except KafkaError as e:
            log.warning("the Kafka client is closed with frames on their way: %r", e)
            # Else its thread lives on with all that it was given, and sends it when the broker is back.
            client._sender.force_close()  # noqa: SLF001
            client._sender.join(timeout_s)  # noqa: SLF001
            with contextlib.suppress(KafkaError):
                client.close(timeout=0)

    # Sends in order what no client has taken yet; stops at the first refusal.
    def _pump(self) -> None:
        if self._client is None:
            return
        for entry in reversed(self._unsent()):
            try:
                entry.future = self._client.send(entry.topic, key=entry.key, value=entry.value)
            except KafkaError as e:
                self.errors += 1
                self._waits = True
                log.warning("frames wait: %r", e)
                return
            entry.future.add_both(lambda _: self._on_ack())

    # Newest first; the unsent are always a tail of the queue.
    def _unsent(self) -> list[_Pending]:
        found = []
        for entry in reversed(self._pending):
            if entry.future is not None:
                break
            found.append(entry)
        return found

    def _rebuild(self) -> None:
        self._waits = True
        log.warning("no acknowledgement for %d frames: building a new Kafka client", len(self._pending))
        self.rebuilds += 1
        self.errors += 1
        self.close(timeout_s=0.5)
        for entry in self._pending:
            entry.future = None
        self._reconnect()

    def _reconnect(self) -> None:
        try:
            self._client = self._connect()
        except UnavailableError as e:
            self.errors += 1
            log.warning("%s", e)
        self._progress_s = time.monotonic()
        self._connect_s = self._progress_s + _RECONNECT_S

    def _connect(self) -> Any:
        settings = {
            "enable_idempotence": True,
            "acks": "all",
            "linger_ms": 5,
            "batch_size": 512 << 10,
            "max_request_size": _REQUEST_BYTES_MAX,
            "request_timeout_ms": _REQUEST_MS,
            "delivery_timeout_ms": _NEVER_MS,
            "max_block_ms": _BLOCK_MS,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
            **self._config.client_kwargs(),
        }
        return kafka_start.start(
            lambda ms: KafkaProducer(bootstrap_timeout_ms=ms, **settings),
            self._config,
            (KafkaError, OSError),
        )
