"""One pipeline from the kernel log to a lake, over the embedded log or Kafka, and the account at its end."""

import contextlib
import importlib
import io
import json
import sys
from itertools import pairwise

from consumers.cli import main
from consumers.lake.layout import open_lake
from consumers.lake.snapshot import snapshot
from consumers.lake.tip import tips
from consumers.transport.base import Partition
from consumers.transport.log import DirectoryReader
from consumers.views import run_query
from schemas.kafka_config import KafkaConfig
from schemas.stream import Stream
from schemas.surfaces import TOPIC_LOG
from tests.pipeline._kernel import until
from tests.pipeline._processes import AGENT, COLLECTOR, Running, kill_all

LATER = """
import sys, time
real = time.time_ns
time.time_ns = lambda: real() + 7200 * 10**9
from consumers.cli import main
sys.exit(main(sys.argv[1:]))
"""


def missing_from(positions, losses):
    """Return those of `positions` that lie in none of `losses`."""
    return [at for at in positions if not any(first <= at < first + count for _, first, count, _ in losses)]


class Pipeline:
    """`kafka` is a bootstrap address, None for the embedded log."""

    def __init__(self, folder, kernel, kafka=None):
        self.folder, self.kernel, self.kafka = folder, kernel, kafka
        self.machine = kernel.tag
        self.log, self.lake = folder / "log", folder / "lake"
        self.running = []

    def configure(self, **keys):
        """Write the agent's config file: keys of [log], or of [spool] where it goes to Kafka."""
        lines = [f"{key} = {value}" for key, value in keys.items()]
        section = "spool" if self.kafka else "log"
        (self.folder / "agent.toml").write_text("\n".join([f"[{section}]", *lines, ""]))

    def agent(self, *flags, crash_at=None, machine=None, log=None):
        """Start an agent; wait until it reads, unless it is to crash."""
        log = log or self.log
        target = ["--kafka", self.kafka, "--spool", str(log)] if self.kafka else ["--log", str(log)]
        config = self.folder / "agent.toml"
        target += ["--config", str(config)] if config.exists() else []
        identity = ["--machine", machine or self.machine, "--heartbeat-s", "0.1", "--linger-ms", "5"]
        running = self._run([*AGENT, "run", *target, *identity, *flags], crash_at)
        if crash_at is None:
            running.said("watching")
        return running

    def collector(self, *flags, crash_at=None):
        """Start a collector that commits often."""
        source = ["--kafka", self.kafka] if self.kafka else ["--log", str(self.log)]
        command = [*COLLECTOR, "collect", "--lake", str(self.lake), *source, "--cut-age-s", "0.05", *flags]
        running = self._run(command, crash_at)
        if crash_at is None and "--until-end" not in flags:
            running.said("collecting into")
        return running

    def compact(self, *flags, crash_at=None):
        """Run `hypocenter compact` as in two hours, when the current one is past; nothing expires yet."""
        flags = flags or ("--grace-s", "86400")
        command = [sys.executable, "-c", LATER, "compact", "--lake", str(self.lake), *flags]
        return self._run(command, crash_at)

    def expire(self, crash_at=None):
        """Compact, and delete at once what nothing names; not beside a collector, whose files are not yet named."""
        return self.compact("--grace-s", "0", crash_at=crash_at)

    def drain(self):
        """Collect to the end."""
        running = self.collector("--until-end")
        assert running.wait(60) == 0, running.story()

    def kill(self):
        kill_all(self.folder)
        for running in self.running:
            running.wait()

    def files(self):
        """Return the keys of the data files that are there."""
        return sorted(str(path.relative_to(self.lake)) for path in self.lake.glob("data/**/*.parquet"))

    def live_files(self):
        """Return the keys of the data files that the commits name."""
        taken = snapshot(open_lake(self.lake, create=False))
        return sorted(entry.key for entries in taken.files.values() for entry in entries)

    def commits(self):
        """Return (end offset, process id of the writer) of every commit to the kernel log's chains."""
        found = [json.loads(path.read_bytes()) for path in self.lake.glob(f"commits/{TOPIC_LOG}/*/[0-9]*.json")]
        return [(commit["end"], int(commit["writer"].rpartition(":")[2])) for commit in found]

    def frontiers(self):
        """Return the next offset of each chain of the kernel log, by partition."""
        return {tip.partition: tip.frontier for tip in self._tips()}

    def advanced(self, timeout_s=30.0, partitions=1):
        """Wait until `partitions` have commits, and then until each of those has a further one."""
        until(lambda: len(self.written_to()) >= partitions, self.stories, timeout_s)
        before = self.written_to()
        until(lambda: all(self.frontiers()[number] > before[number] for number in before), self.stories, timeout_s)

    def written_to(self):
        """Return the next offsets of the chains that have commits, by partition."""
        return {number: end for number, end in self.frontiers().items() if end > self.first(number)}

    def first(self, partition):
        """Return the offset at which the chain of `partition` begins."""
        path = self.lake / f"commits/{TOPIC_LOG}/{partition}/genesis.json"
        return json.loads(path.read_bytes())["first_offset"]

    def start(self, partition):
        """Return the oldest offset that the log holds."""
        with self._reader() as reader:
            return reader.start_offset(Partition(TOPIC_LOG, partition))

    def end(self, partition):
        """Return the offset that the log's next message gets."""
        with self._reader() as reader:
            return reader.end_offset(Partition(TOPIC_LOG, partition))

    def owner(self, partition):
        """Return the process id of who made the last commit to `partition`."""
        (tip,) = [tip for tip in self._tips() if tip.partition == partition]
        return int(tip.writer.rpartition(":")[2])

    def won(self, running):
        """Return how many commits `running` made."""
        return sum(pid == running.pid for _, pid in self.commits())

    def query(self, sql):
        return run_query(open_lake(self.lake, create=False), sql)[1]

    def audit(self):
        """Run `hypocenter audit --deep`, which must exit with 0, and return what it says."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = main(["audit", "--lake", str(self.lake), "--deep", "--json"])
        assert code == 0, out.getvalue()
        return json.loads(out.getvalue())

    def book(self, report):
        (book,) = [book for book in report["books"] if book["name"].startswith(f"{self.machine}/")]
        return book

    def losses(self):
        """Return (kind, first position, count, reason) of the losses, without what the ring held before we wrote."""
        sql = f"select kind, first_position, count, reason from losses where count > 0 and machine = '{self.machine}'"
        first = min(self.kernel.written)
        return sorted(loss for loss in self.query(sql) if loss[1] + loss[2] > first)

    def offsets_lost(self):
        """Return (kind, first offset, count, reason) of the messages that are missing as a whole."""
        return self.query("select kind, first_position, count, reason from losses where machine = '' order by all")

    def stored(self):
        """Return {sequence number: text} of the tagged records stored; none may be there twice."""
        sql = f"select seq, message from kmsg where machine = '{self.machine}' order by seq"
        rows = [row for row in self.query(sql) if row[1].startswith(self.kernel.tag)]
        assert len(dict(rows)) == len(rows)
        return dict(rows)

    def check(self):
        """Prove that the books close and the rows are exactly what was written; return the stream's book."""
        report = self.audit()
        stored, written, losses = self.stored(), self.kernel.written, self.losses()
        # The records of others may have been overwritten before the agent came to them.
        overwritten = [loss for loss in losses if loss[0] == "overwrite"]
        missing = sorted(written.keys() - stored.keys())
        vanished = missing_from(missing, overwritten)
        if missing and not vanished:
            self.kernel.skip_if_noisy()
        what = f"{len(missing)} are missing, {len(vanished)} without account: {vanished[:9]}"
        assert stored == written, f"{what}; {self.book(report)}; {self.stories()}; {losses[-99:]}"
        # Streams of one run number their frames each for themselves.
        names = ", ".join(Stream._fields)
        twice = f"select {names}, run, number from coverage group by all having count(*) > 1"
        assert self.query(twice) == [], "a heartbeat is there twice"
        others = [loss for loss in losses if loss not in overwritten] + self.offsets_lost()
        assert not others, f"{others}; {self.stories()}"
        return self.book(report)

    def check_lossy(self):
        """Prove that each record written is either stored as it was or lies in exactly one counted loss."""
        report = self.audit()
        stored, written = self.stored(), self.kernel.written
        assert stored.items() <= written.items()
        losses = self.losses()
        for (_, first, count, _), (_, after, _, _) in pairwise(sorted(losses, key=lambda loss: loss[1])):
            assert first + count <= after, f"counted twice: {losses}"
        assert missing_from(stored, losses) == list(stored)
        unaccounted = missing_from(sorted(written.keys() - stored.keys()), losses)
        assert not unaccounted, f"{len(unaccounted)} have vanished: {unaccounted[:9]}; {self.stories()}"
        return self.book(report)

    def stories(self):
        return "\n".join(running.story() for running in self.running)

    def _reader(self):
        if not self.kafka:
            return contextlib.closing(DirectoryReader(self.log))
        # Not above: a conftest imports this before the filter for kafka-python's warnings is set.
        kafka = importlib.import_module("consumers.transport.kafka")
        return contextlib.closing(kafka.KafkaReader(KafkaConfig(self.kafka)))

    def _tips(self):
        if not (self.lake / "lake.json").exists():
            return []
        return [tip for tip in tips(open_lake(self.lake, create=False)) if tip.topic == TOPIC_LOG]

    def _run(self, command, crash_at=None):
        self.running.append(Running(self.folder, command, crash_at))
        return self.running[-1]
