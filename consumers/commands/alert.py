"""Raise alerts from the kernel logs that arrive: find the incidents in them, tell Alertmanager, store every version.

Follows until stopped. Killed and started again, it misses no incident, doubles none and withdraws none. Of several over
one lake each partition has one owner, and the others stand by.
"""

import argparse
import dataclasses
import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from consumers.alert_metrics import AlertMetrics
from consumers.alerts.access import access
from consumers.alerts.follow import TOPICS, AlertFollower
from consumers.alerts.judge import Judge
from consumers.alerts.publish import IncidentTopic
from consumers.alerts.signs import SignReader
from consumers.commands.sources import add_source, kafka_config, lake_of, open_reader, read_config
from consumers.incidents.incident import Incident
from consumers.lake.layout import open_lake
from consumers.lake.storage import Storage
from consumers.topics import verify_topics
from consumers.transport.kafka import KafkaReader
from consumers.verdict.gather import gather
from consumers.verdict.judge import judge
from consumers.verdict.verdict import Verdict
from schemas import metrics_http
from schemas.alert_config import AlertConfig
from schemas.config import CollectConfig
from schemas.errors import UsageError
from schemas.surfaces import TOPIC_INCIDENT

log = logging.getLogger(__name__)


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("--lake", type=Path, metavar="DIR", help="the lake's directory, created if absent [collect.lake]")
    add_source(sub)
    sub.add_argument(
        "--alertmanager", metavar="URL,...", help="tell these Alertmanagers, http://HOST:PORT [alert.alertmanager]"
    )
    sub.add_argument("--group", metavar="NAME", help="share partitions by this Kafka consumer group [alert.group]")
    sub.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="serve metrics there; or PORT; or off; with --until-end only if given [alert.metrics]",
    )
    sub.add_argument("--until-end", action="store_true", help="stop at the end of the log as it is now")


def run(args: argparse.Namespace) -> int:
    """Alert until stopped or until the end."""
    config = read_config(args)
    lake = lake_of(args, config)
    alert = _alert_config(args, config.alert)
    letting_in = access(alert)
    kafka = kafka_config(args, config)
    if kafka is not None:
        verify_topics(kafka, (*TOPICS, TOPIC_INCIDENT))
    shared = CollectConfig(
        group=alert.group, group_instance=alert.group_instance, group_session_s=alert.group_session_s
    )
    # Before the lake is made, so that a wrong name of the log leaves nothing behind.
    reader = open_reader(args, config, shared)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics, server = AlertMetrics(alert.alertmanager), None
    try:
        storage = open_lake(lake, create=True)
        # Of its own, and without the group: who watches a machine's kernel log is who must see its signs of life.
        signs = SignReader(lambda: open_reader(args, config))
        publisher = None if kafka is None else IncidentTopic(kafka)
        judging = Judge(_assess(storage))
        follower = AlertFollower(reader, storage, alert, judging, signs, publisher, metrics, letting_in)
        log.info("alerting from the log, into %s and to %s", lake, ", ".join(alert.alertmanager) or "nobody else")
        # One that follows and tells nobody looks like one that has nothing to tell.
        if not alert.alertmanager and not args.until_end:
            log.warning("incidents are stored and nobody is paged: [alert] alertmanager names no receiver")
        # A run to the end is over before anybody asks, and its port may be that of one that goes on.
        if args.metrics or not args.until_end:
            server = metrics_http.serve(alert.metrics, metrics.text)
        if isinstance(reader, KafkaReader) and alert.group:
            reader.listen(follower, TOPICS)
        follower.run(stop, until_end=args.until_end)
    finally:
        if server is not None:
            server.close()
        reader.close()
    log.info("stopped; %s", ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in follower.counts.items()))
    return 0


def _assess(storage: Storage) -> Callable[[Incident], Verdict]:
    return lambda incident: judge(incident, gather(storage, incident))


def _alert_config(args: argparse.Namespace, base: AlertConfig) -> AlertConfig:
    flags = {
        "alertmanager": tuple(args.alertmanager.split(",")) if args.alertmanager else None,
        "group": args.group,
        "metrics": args.metrics,
    }
    alert = dataclasses.replace(base, **{key: value for key, value in flags.items() if value is not None})
    if args.until_end and args.group:
        raise UsageError("--until-end reads a fixed list of partitions; leave out --group")
    # One of the file is for who follows.
    return dataclasses.replace(alert, group=None) if args.until_end else alert
