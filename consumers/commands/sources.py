"""The flags and the opening of a log, shared by every verb that reads one."""

import argparse
import dataclasses
from pathlib import Path

from consumers.transport.base import LogReader
from consumers.transport.kafka import KafkaReader
from consumers.transport.log import DirectoryReader
from schemas import toml_config
from schemas.config import CollectConfig, Config
from schemas.errors import UsageError
from schemas.kafka_config import KafkaConfig


def add_source(sub: argparse.ArgumentParser) -> None:
    """Add `--config`, and `--log` or `--kafka`."""
    sub.add_argument("--config", type=Path, metavar="FILE", help="TOML file; flags override its keys")
    source = sub.add_mutually_exclusive_group()
    source.add_argument("--log", type=Path, metavar="DIR", help="read the embedded log in DIR [log.dir]")
    source.add_argument("--kafka", metavar="HOST:PORT", help="read from this Kafka [kafka.bootstrap]")


def read_config(args: argparse.Namespace) -> Config:
    """Return the config file's content, or the defaults."""
    return toml_config.load(args.config, Config) if args.config else Config()


def lake_of(args: argparse.Namespace, config: Config) -> Path:
    """Return the lake's directory that flag or config names.

    Raises:
        UsageError: neither does.
    """
    lake: Path | None = args.lake or config.collect.lake
    if lake is None:
        raise UsageError("which lake? give --lake DIR, or [collect] lake in the config file")
    return lake


def kafka_config(args: argparse.Namespace, config: Config) -> KafkaConfig | None:
    """Return the broker to use, None where a directory is to be read."""
    if args.kafka:
        base = config.kafka
        return dataclasses.replace(base, bootstrap=args.kafka) if base else KafkaConfig(bootstrap=args.kafka)
    return None if args.log else config.kafka


def names_source(args: argparse.Namespace, config: Config) -> bool:
    """Return whether flags or config name a log to read."""
    return kafka_config(args, config) is not None or bool(args.log or config.log.dir)


def open_reader(args: argparse.Namespace, config: Config, collect: CollectConfig | None = None) -> LogReader:
    """Return a reader of the log that flags or config name.

    Raises:
        UsageError: neither names one.
        UnavailableError: it is not there.
    """
    kafka = kafka_config(args, config)
    if kafka is not None:
        if collect is None or collect.group is None:
            return KafkaReader(kafka)
        session_ms = int(collect.group_session_s * 1000)
        return KafkaReader(kafka, group=collect.group, instance=collect.group_instance, session_timeout_ms=session_ms)
    where = args.log or config.log.dir
    if where is None:
        raise UsageError(
            "where from? give --log DIR, --kafka HOST:PORT, or a config file with [log] dir or [kafka] bootstrap"
        )
    if collect is not None and collect.group:
        raise UsageError("--group shares Kafka's partitions; the embedded log has no groups")
    return DirectoryReader(where)
