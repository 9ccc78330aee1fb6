"""Signs of life beside the kernel log: time that a CPU spent in programs, or idle; a task that is not blocked any more.

/proc/stat counts both for each CPU (proc(5), kernel/sched/cputime.c). Programs that ran prove that a CPU goes on,
whatever it was accused of. Idle time proves it of a CPU that was busy in the kernel; of one that was asleep it does
not, because the reader of /proc/stat adds up the sleep of a CPU that never wakes (kernel/time/tick-sched.c). That a
task was blocked and is awake, or gone, its agent says for a minute (`procfs_blocked`).

The topic is read from its end on, and only while an incident is open: a sign that is missed comes again in seconds.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from consumers.decode import registry
from consumers.decode.base import FrameIn
from consumers.transport.base import LogReader, Message, Partition, RetentionOvertookError
from schemas.errors import BadInputError, HypocenterError
from schemas.frame import decode, decode_tags
from schemas.stream import Stream
from schemas.surfaces import TOPIC_LOG, TOPIC_STATE

log = logging.getLogger(__name__)
_SURFACE: Final = "procfs"
_TABLE: Final = "procfs_cpu"
_TASKS: Final = "procfs_blocked"


class Sign(NamedTuple):
    """Between two readings, the first cut at `since_ns` (the producer's CLOCK_REALTIME), these CPUs went on.

    `busy` ran programs, `idle` had nothing to run. `arrival_ns` is the append time of the second. At `at_ns`, when it
    was cut, the tasks `awake` were not blocked any more, as the records with these positions say.
    """

    machine: str
    layer: str
    boot_id: str
    since_ns: int
    busy: tuple[int, ...]
    idle: tuple[int, ...]
    arrival_ns: int
    at_ns: int = 0
    awake: tuple[tuple[int, int], ...] = ()


class _Reading(NamedTuple):
    boot_id: str
    realtime_ns: int
    cpus: dict[int, tuple[int, int]]
    awake: tuple[tuple[int, int], ...]  # numbers of tasks, and positions of the records that say so


class Readings:
    """Readings of the watched machines, the last of each. Pure."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], _Reading] = {}

    def keep(self, watched: Iterable[tuple[str, str]]) -> None:
        """Forget every machine that is none of `watched`."""
        wanted = set(watched)
        self._last = {name: each for name, each in self._last.items() if name in wanted}

    def take(self, partition: Partition, message: Message, watched: set[tuple[str, str]]) -> Sign | None:
        """Return what `message` proves of one of the `watched` machines (machine, layer).

        Raises:
            BadInputError: it is no frame.
        """
        stream = decode_tags(message.value).stream
        name = (stream.machine, stream.layer)
        if stream.surface != _SURFACE or name not in watched:
            return None
        reading = _reading(partition, message, stream)
        before = self._last.get(name)
        if reading is None:
            return None
        if reading.cpus:
            self._last[name] = reading
        if before is None or before.boot_id != reading.boot_id:
            before = reading  # of CPUs it proves nothing
        if before is reading and not reading.awake:
            return None
        shared = sorted(reading.cpus.keys() & before.cpus.keys())
        busy = tuple(cpu for cpu in shared if reading.cpus[cpu][0] > before.cpus[cpu][0])
        idle = tuple(cpu for cpu in shared if reading.cpus[cpu][1] > before.cpus[cpu][1])
        since_ns, at_ns = before.realtime_ns, reading.realtime_ns
        return Sign(*name, stream.boot_id, since_ns, busy, idle, message.ts_ns, at_ns, reading.awake)


class SignReader:
    """Reads signs of life in a thread, by a reader of its own, which `opened` makes when there is something to watch.

    To connect, and to ask which partitions there are, takes a broker some tenths of a second: no page waits for that.
    """

    def __init__(self, opened: Callable[[], LogReader]) -> None:
        self._opened = opened
        self._reader: LogReader | None = None
        self._sought: set[Partition] = set()
        self._readings = Readings()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="signs")
        self._looking: Future[list[Sign]] | None = None

    def poll(self, watched: Mapping[Partition, Collection[tuple[str, str]]]) -> list[Sign]:
        """Return what the last look found, once, and look anew at the machines that are `watched`; never waits.

        They are by their log's partition. A log that cannot be read gives nothing, and is tried again.
        """
        found: list[Sign] = []
        if self._looking is not None:
            if not self._looking.done():
                return []
            found = self._found(self._looking)
        self._looking = self._pool.submit(self._look, {at: frozenset(names) for at, names in watched.items()})
        return found

    def close(self) -> None:
        """Let go of the reader, and end the thread."""
        self._pool.submit(self._let_go)
        self._pool.shutdown()

    def _found(self, looking: "Future[list[Sign]]") -> list[Sign]:
        error = looking.exception()
        if error is None:
            return looking.result()
        if not isinstance(error, HypocenterError):
            raise error
        log.warning("signs of life are not read: %s", error)
        return []

    def _look(self, watched: Mapping[Partition, Collection[tuple[str, str]]]) -> list[Sign]:
        machines = {name for names in watched.values() for name in names}
        self._readings.keep(machines)
        if not machines:
            self._let_go()
            return []
        try:
            if self._reader is None:
                self._reader = self._opened()
            self._seek(self._reader, watched)
            polled = self._reader.poll(0)
        except RetentionOvertookError as e:
            if self._reader is not None:
                self._reader.seek(e.partition, e.start)
            return []
        except HypocenterError:
            self._let_go()
            raise
        found = [self._take(at, message, machines) for at, messages in polled.items() for message in messages]
        return [sign for sign in found if sign is not None]

    def _let_go(self) -> None:
        reader, self._reader = self._reader, None
        self._sought.clear()
        if reader is not None:
            reader.close()

    # A machine has the same partition number in all topics that have the same number of partitions.
    def _seek(self, reader: LogReader, watched: Mapping[Partition, Collection[tuple[str, str]]]) -> None:
        found = reader.partitions([TOPIC_STATE, TOPIC_LOG])
        state = [each for each in found if each.topic == TOPIC_STATE]
        same = 2 * len(state) == len(found)
        numbers = {partition.number for partition, names in watched.items() if names}
        wanted = {each for each in state if not same or each.number in numbers}
        for partition in wanted - self._sought:
            reader.seek(partition, reader.end_offset(partition))
        for partition in self._sought - wanted:
            reader.forget(partition)
        self._sought = wanted

    def _take(self, partition: Partition, message: Message, machines: set[tuple[str, str]]) -> Sign | None:
        try:
            return self._readings.take(partition, message, machines)
        except BadInputError:
            return None  # a dead letter for the collector


def _reading(partition: Partition, message: Message, stream: Stream) -> _Reading | None:
    frame = decode(message.value)
    if frame.encoding != _SURFACE:
        return None
    decoder = registry.decoder_of(frame)
    decoded = decoder.decode_many([FrameIn(frame, message.ts_ns, partition, message.offset)], {})
    found = decoded.tables.keys() & {_TABLE, _TASKS}
    if not found:
        return None
    names = ["cpu", "user_ns", "nice_ns", "idle_ns"]
    rows = decoded.tables[_TABLE].select(names).to_pylist() if _TABLE in found else []
    tasks = decoded.tables[_TASKS].select(["pid", "blocked", "position"]).to_pylist() if _TASKS in found else []
    awake = tuple((row["pid"], row["position"]) for row in tasks if row["pid"] is not None and row["blocked"] is False)
    cpus = {
        row["cpu"]: ((row["user_ns"] or 0) + (row["nice_ns"] or 0), row["idle_ns"] or 0)
        for row in rows
        if row["cpu"] is not None
    }
    return _Reading(stream.boot_id, frame.realtime_ns, cpus, awake)
