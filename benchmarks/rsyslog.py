"""A peer: rsyslogd with imkmsg and omkafka, as Debian packages them (`rsyslog`, `rsyslog-kafka`)."""

import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import Final

from benchmarks.base import Skipped
from benchmarks.processes import cpu_s, start
from consumers.topics import create_topics
from consumers.transport.base import Partition
from consumers.transport.kafka import KafkaReader
from schemas.kafka_config import KafkaConfig

_CONFIG: Final = """\
module(load="imkmsg") module(load="omkafka")
template(name="t" type="string" string="%timereported:::date-rfc3339% %msg%\\n")
*.* action(type="omkafka" broker=["{bootstrap}"] topic="{topic}" template="t" queue.type="LinkedList"
  queue.size="300000" confParam=["compression.codec=zstd","linger.ms=20","queue.buffering.max.messages=400000"])
"""
_WAIT_S: Final = 30.0
_QUIET_S: Final = 0.5


class Rsyslog:
    """rsyslogd on /dev/kmsg into a topic of its own; what the kernel held at its start has been sent by now.

    Raises:
        Skipped: it is not installed.
    """

    def __init__(self, root: Path, bootstrap: str) -> None:
        program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
        modules = list(Path("/usr/lib").glob("*/rsyslog/omkafka.so"))
        if program is None or not modules:
            raise Skipped("not installed (Debian: rsyslog rsyslog-kafka)")
        topic = f"rsyslog.{uuid.uuid4().hex[:8]}"
        create_topics(KafkaConfig(bootstrap), partitions=1, replication=1, names=[topic])
        self._reader, self._at = KafkaReader(KafkaConfig(bootstrap)), Partition(topic, 0)
        config = root / "rsyslog.conf"
        config.write_text(_CONFIG.format(bootstrap=bootstrap, topic=topic), encoding="utf-8")
        self._process = start(
            [program, "-n", "-f", str(config), "-i", str(root / "pid")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._sent = self._quiet(1)

    def cpu_s(self) -> float:
        """Return the CPU used so far."""
        return cpu_s([self._process.pid])

    def settle(self) -> int:
        """Wait until no more comes; return how many messages came to Kafka since the start."""
        return self._quiet(1) - self._sent

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._reader.close()

    # Waits until the topic has `least` messages and no more come.
    def _quiet(self, least: int) -> int:
        deadline_s, before = time.monotonic() + _WAIT_S, -1
        while True:
            end = self._reader.end_offset(self._at)
            if end >= least and end == before:
                return end
            if time.monotonic() > deadline_s or self._process.poll() is not None:
                raise RuntimeError("rsyslog sends nothing to Kafka")
            before = end
            time.sleep(_QUIET_S)
