"""Where frames go: a log directory, or a spool in front of a broker."""

import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import Final

from producers.log import LogWriter
from schemas.config import Config, LogConfig
from schemas.errors import UsageError
from schemas.kafka_config import KafkaConfig

_CLIENT: Final = "kafka"


def broker(bootstrap: str | None, config: Config, *, unless: object) -> KafkaConfig | None:
    """Return the broker to ship to, at `bootstrap` where that is given; None where there is none, or `unless` holds.

    Raises:
        UsageError: a secret that it needs is not there, or the client: said now, not by each shipper that fails for it.
    """
    kafka = None if unless else config.kafka
    if bootstrap:
        kafka = dataclasses.replace(kafka, bootstrap=bootstrap) if kafka else KafkaConfig(bootstrap=bootstrap)
    if kafka is not None:
        kafka.client_kwargs()
        if importlib.util.find_spec(_CLIENT) is None:
            raise UsageError("shipping to Kafka takes the Python package kafka-python, which is not installed")
    return kafka


def open_log(path: Path, config: LogConfig) -> LogWriter:
    """Return the writer of the log in `path`, as `config` says.

    Raises:
        LockedError, UsageError, StorageError: as `LogWriter`.
    """
    return LogWriter(
        path,
        retention_bytes=config.retention_bytes,
        retention_ms=int(config.retention_hours * 3_600_000) if config.retention_hours is not None else None,
        segment_bytes=config.segment_bytes,
    )


def open_own_log(path: Path, config: LogConfig, machine: str) -> LogWriter:
    """Return the writer of the log in `path` that readers take for the one of `machine`.

    A copy of a log is the same log to who reads both: up to the offset to which one is stored the other is not read.

    Raises:
        UsageError: also where all in it is of other machines, as in a copy.
        LockedError, StorageError: as `LogWriter`.
    """
    writer = open_log(path, config)
    machines = {stream.machine for stream in writer.positions}
    if machines and machine not in machines:
        writer.close()
        raise UsageError(
            f"{path} holds the log of machine {min(machines)}, and this is {machine}. If it came with a copy of that"
            " machine's disk, delete it: a collector takes both for one log, and leaves out what is in one alone. If"
            " this machine was renamed, give it another directory"
        )
    return writer


def default_spool() -> Path:
    """Return where the spool lies when nobody says so."""
    if os.geteuid() == 0:
        return Path("/var/lib/hypocenter/spool")
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "hypocenter/spool"
