"""The collector from Kafka to committed Parquet: records per second of its CPU.

A real broker (deploy/kafka) holds kmsg frames of 500 records each, from several machines in one partition; then
`hypocenter collect --until-end` runs as a process of its own into an empty lake. CPU is user and system of that whole
process by wait4: with the start of Python and its libraries, and less what the same command costs for an empty log.
"""

import time

from benchmarks.base import Options, Reach, Row, log, scratch
from benchmarks.processes import Cost, broker, finish, ours, start
from benchmarks.text import frames, records
from consumers.lake.audit import audit
from consumers.lake.layout import open_lake
from producers.kafka import FrameProducer
from schemas.frame import encode
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import TOPIC_LOG

_PER_MACHINE = 500_000


def run(options: Options) -> list[Row]:
    """Return records per second and core, and the wall rate."""
    machines, repeats = (2, 2) if options.quick else (8, 3)
    with broker() as bootstrap:
        empty_s = min(_collect(bootstrap, 0)[0].cpu_s for _ in range(2))
        log(f"  starting costs {empty_s:.2f} s of CPU; producing {machines * _PER_MACHINE:,} records")
        _produce(options, bootstrap, machines)
        runs = [_collect(bootstrap, machines * _PER_MACHINE) for _ in range(repeats)]
    count = machines * _PER_MACHINE / 1e6
    what = f"{count:g} M kmsg records, Kafka to committed Parquet"
    return [
        Row(
            "collector, less its start",
            [count / (cost.cpu_s - empty_s) for cost, _ in runs],
            "M records/s per core",
            None,
            f"{what}; CPU of the process less {empty_s:.2f} s for the same on an empty log",
        ),
        Row(
            "collector, whole process",
            [count / cost.cpu_s for cost, _ in runs],
            "M records/s per core",
            Reach(1.0, at_least=True),
            f"{what}; all CPU of the process",
        ),
        Row("collector, wall", [count / wall_s for _, wall_s in runs], "M records/s", None, "broker on the same cores"),
        Row("collector, memory", [cost.rss_mib for cost, _ in runs], "MiB", None, "largest resident size"),
    ]


def _produce(options: Options, bootstrap: str, machines: int) -> None:
    lines = list(records(_PER_MACHINE, options.captures))
    producer = FrameProducer(KafkaConfig(bootstrap))
    for machine in range(1, machines + 1):
        for frame in frames(lines, machine, 500):
            while not producer.room():
                producer.acked()
                time.sleep(0.001)
            producer.send(None, TOPIC_LOG, frame.stream.machine.encode(), encode(frame))
    while producer.waiting:
        producer.acked()
        time.sleep(0.001)
    producer.close()


def _collect(bootstrap: str, count: int) -> tuple[Cost, float]:
    with scratch() as root:
        command = ours("consumers.cli", "collect", "--kafka", bootstrap, "--lake", str(root / "lake"), "--until-end")
        start_s = time.perf_counter()
        cost = finish(start(command))
        wall_s = time.perf_counter() - start_s
        report = audit(open_lake(root / "lake", create=False))
        assert report.closes
        assert report.rows.get("kmsg", 0) == count
        return cost, wall_s
