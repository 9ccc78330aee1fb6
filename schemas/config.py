"""The one configuration file: every table and key, with its default. Flags of both commands override their keys."""

from dataclasses import dataclass, field
from pathlib import Path

from schemas.kafka_config import KafkaConfig


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """`[agent]`: what to read and how long to gather it."""

    machine: str | None = None  # default: /etc/machine-id, else the host name
    layer: str | None = None  # default: guest-kernel on a virtual machine, else host
    surfaces: tuple[str, ...] = ("kmsg",)
    for_s: float | None = None  # stop after so long; default: run until told to stop
    linger_ms: int = 25  # a record waits at most this long for company in its frame
    heartbeat_s: float = 10.0
    queue_bytes_max: int = 32 << 20  # frames waiting for the disk; above it the kernel's ring is left to fill


@dataclass(frozen=True, slots=True)
class LogConfig:
    """`[log]`: the embedded log; `[spool]` has the same keys for the spool in front of Kafka."""

    dir: Path | None = None
    retention_bytes: int = 1 << 30
    retention_hours: float | None = 168.0
    segment_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """`[collect]`: where the lake is and when a commit is cut."""

    lake: Path | None = None
    cut_bytes: int = 64 << 20  # of frame bodies buffered for one partition
    cut_rows: int = 1_000_000
    cut_age_s: float = 10.0
    group: str | None = None  # a Kafka consumer group; default: a static list of partitions
    partitions: tuple[str, ...] = ()  # "topic:number"; default: all of them
    group_instance: str | None = None  # this member's lasting name in the group; default: a new member at each start
    group_session_s: float = 30.0  # a member silent for so long is dead, and the others take over
    compact: bool = True  # compact sealed hours while following


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    agent: AgentConfig = field(default_factory=AgentConfig)
    log: LogConfig = field(default_factory=LogConfig)
    spool: LogConfig = field(default_factory=lambda: LogConfig(retention_hours=None, retention_bytes=512 << 20))
    kafka: KafkaConfig | None = None
    collect: CollectConfig = field(default_factory=CollectConfig)
