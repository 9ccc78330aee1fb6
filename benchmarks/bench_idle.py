"""What an idle agent costs: share of a core while the kernel says nothing.

The agent with its default heartbeats, once with the embedded log alone and once with its shipper on a real broker; CPU
of all its threads over a time in which no record came.
"""

import time

from benchmarks.base import Options, Reach, Row, Skipped, scratch
from benchmarks.kernel import Agent, kernel_log
from benchmarks.processes import broker
from producers.kmsg import newest_seq

_REACH = Reach(0.2)
_TRIES = 15


def run(options: Options) -> list[Row]:
    """Return percent of a core."""
    seconds, repeats = (10.0, 1) if options.quick else (10.0, 4)
    rows = []
    with kernel_log():
        values = [_share(None, seconds) for _ in range(repeats)]
        how = f"{seconds:.0f} s without a record, heartbeats every 10 s"
        rows.append(Row("idle agent CPU, embedded log", values, "% of a core", _REACH, how))
        with broker() as bootstrap:
            values = [_share(bootstrap, seconds) for _ in range(repeats)]
        rows.append(Row("idle agent CPU, with shipper to Kafka", values, "% of a core", _REACH, how))
    return rows


def _share(kafka: str | None, seconds: float) -> float:
    with scratch() as root:
        agent = Agent(root, kafka=kafka)
        try:
            for _ in range(_TRIES):
                agent.settle()
                time.sleep(1.0)  # the last acknowledgement is noted
                seq, start_s, cpu_s = newest_seq(), time.perf_counter(), agent.cpu_s()
                time.sleep(seconds)
                share = 100 * (agent.cpu_s() - cpu_s) / (time.perf_counter() - start_s)
                if newest_seq() == seq:
                    return share
        finally:
            agent.stop()
    raise Skipped("the kernel log was never silent for long enough")
