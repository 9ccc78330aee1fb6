"""Create Kafka's topics with the settings that exactness needs, or verify them: no compaction, large messages.

A topic that is there is never changed: `verify` names the setting that is wrong, and both say its partitions.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from consumers.commands.sources import kafka_config, read_config
from consumers.topics import create_topics, shapes, verify_topics
from schemas.command_line import positive_int
from schemas.errors import UsageError
from schemas.kafka_config import KafkaConfig


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("action", choices=("create", "verify"), help="create what is missing, or only compare")
    sub.add_argument("--config", type=Path, metavar="FILE", help="TOML file; flags override its keys")
    sub.add_argument("--kafka", metavar="HOST:PORT", help="the broker [kafka.bootstrap]")
    sub.add_argument(
        "--partitions", type=positive_int, default=1, metavar="N", help="partitions of a topic that is made [1]"
    )
    sub.add_argument(
        "--replication",
        type=positive_int,
        default=1,
        metavar="N",
        help="replicas of its partitions [1]",
    )
    sub.set_defaults(log=None)


def run(args: argparse.Namespace) -> int:
    """Create or verify."""
    kafka = kafka_config(args, read_config(args))
    if kafka is None:
        raise UsageError("which broker? give --kafka HOST:PORT or [kafka] bootstrap in the config file")
    if args.action == "create":
        _show(kafka, create_topics(kafka, partitions=args.partitions, replication=args.replication))
        verify_topics(kafka)
    else:
        verify_topics(kafka)
        _show(kafka, [])
    print("every topic is as it must be")
    return 0


def _show(kafka: KafkaConfig, created: Sequence[str]) -> None:
    for name, shape in shapes(kafka).items():
        what = "created" if name in created else "is there"
        print(f"{name} {what}: {_count(shape.partitions, 'partition')}, {_count(shape.replicas, 'replica')}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
