"""Create Kafka's topics with the settings that exactness needs, or verify them: no compaction, large messages.

A topic that is there is never changed: both say what it has, and end with 2 where that is not what was asked for.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from consumers.commands.sources import kafka_config, read_config
from consumers.topics import Shape, create_topics, shapes, verify_topics
from schemas.command_line import positive_int
from schemas.errors import UsageError
from schemas.kafka_config import KafkaConfig


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("action", choices=("create", "verify"), help="create what is missing, or only compare")
    sub.add_argument("--config", type=Path, metavar="FILE", help="TOML file; flags override its keys")
    sub.add_argument("--kafka", metavar="HOST:PORT", help="the broker [kafka.bootstrap]")
    sub.add_argument(
        "--partitions",
        type=positive_int,
        metavar="N",
        help="partitions of each topic; of one that is made by default 1",
    )
    sub.add_argument(
        "--replication", type=positive_int, metavar="N", help="replicas of each partition, by default 1 likewise"
    )
    sub.set_defaults(log=None)


def run(args: argparse.Namespace) -> int:
    """Create or verify."""
    kafka = kafka_config(args, read_config(args))
    if kafka is None:
        raise UsageError("which broker? give --kafka HOST:PORT or [kafka] bootstrap in the config file")
    if args.action == "create":
        found = _show(kafka, create_topics(kafka, partitions=args.partitions or 1, replication=args.replication or 1))
        verify_topics(kafka)
    else:
        verify_topics(kafka)
        found = _show(kafka, [])
    _compare(found, args.partitions, args.replication)
    print("every topic is as it must be")
    return 0


def _show(kafka: KafkaConfig, created: Sequence[str]) -> dict[str, Shape]:
    found = shapes(kafka)
    for name, shape in found.items():
        what = "created" if name in created else "is there"
        print(f"{name} {what}: {_count(shape.partitions, 'partition')}, {_count(shape.replicas, 'replica')}")
    return found


# What was asked for in words and is not so must not pass for done; what nobody asked for may be anything.
def _compare(found: dict[str, Shape], partitions: int | None, replicas: int | None) -> None:
    for name, shape in found.items():
        wanted = Shape(partitions or shape.partitions, replicas or shape.replicas)
        for has, asked, what in zip(shape, wanted, ("partition", "replica"), strict=True):
            if has != asked:
                raise UsageError(
                    f"topic {name} has {_count(has, what)}, not {asked}: a topic that is there is never changed"
                )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
