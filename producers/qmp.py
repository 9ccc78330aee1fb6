"""The surface `qmp`: what QEMU says of a VM: every event, and at an interval its run state, disks, and counts.

Counts are of what each disk did, and how often KVM left each vCPU and for what (`kvm_exits.py`).

For each VM one source, with its monitor's socket (`-qmp unix:PATH,server=on,wait=off`). A socket serves one client:
while the agent has it, nobody else does, and a second client waits without a word. Give the agent a monitor of its own.
Source: QEMU's docs/interop/qmp-spec.rst and qemu-qmp-ref(7).
"""

import contextlib
import json
import logging
import select
import socket
from collections.abc import Callable
from typing import Any, Final

from producers import kvm_exits, vmm_threads, vms
from producers.qmp_session import Answer, Bad, Event, Greeting, Session
from producers.registry import Opening
from producers.source import Source
from producers.state_source import StateSource
from producers.topology import boottime_ns
from schemas import limits
from schemas.config import Vm
from schemas.errors import UsageError
from schemas.state import Record
from schemas.stream import Layer, Stream

log = logging.getLogger(__name__)
SURFACE: Final = "qmp"
CLOCK: Final = "boot"
_TICK_S: Final = 1.0
_READ_BYTES: Final = 1 << 18
#: So often is read at once, so that a monitor that floods does not keep the agent from its other work.
_READS: Final = 8
_GREETING_NS: Final = 5 * 10**9
_RETRY_NS_MAX: Final = 30 * 10**9
_BLOCKS_MAX: Final = 1024
_DATA_BYTES_MAX: Final = 256 << 10
#: By the command its arguments. Of vCPUs is asked behind which they are.
_QUERIES: Final[dict[str, dict[str, Any] | None]] = {
    **dict.fromkeys(("query-status", "query-block", "query-blockstats", "query-cpus-fast", "query-iothreads")),
    "query-stats": kvm_exits.ARGUMENTS,
}
#: Of BlockDeviceStats: what had ended, and since when nothing more did.
_STATS: Final = (
    "rd_operations", "wr_operations", "flush_operations", "unmap_operations", "rd_bytes", "wr_bytes",
    "failed_rd_operations", "failed_wr_operations", "failed_flush_operations", "failed_unmap_operations",
    "idle_time_ns",
)  # fmt: skip


def open_sources(opening: Opening) -> list[Source]:
    """Return one source for each VM of the configuration that has a socket; it need not be there yet.

    Raises:
        UsageError: none has one.
    """
    config, identity = opening.config.vms, opening.identity
    wanted = [each for each in config.machines if each.qmp is not None]
    if not wanted:
        raise UsageError("which VMs? give --qmp NAME=SOCKET or a config file with [[vms.machines]] and qmp")
    sources: list[Source] = []
    for vm in wanted:
        stream = Stream(identity.machine, identity.boot_id, Layer.VIRTUAL_PLATFORM, SURFACE, vm.name, CLOCK)
        known = opening.known.get(stream)
        monitor = Monitor(vm, int(config.qmp_interval_s * 1e9), boottime_ns, vms.shared(config).tell)
        sources.append(QmpSource(stream, known.next if known else 0, monitor))
    return sources


def check() -> str:
    """Return what the surface needs; a socket is not tried, because it would be taken from whoever has it."""
    return "the monitors' sockets are those of the configuration, and each serves one client"


class Monitor:
    """The monitor of one VM, connected whenever it can be.

    `now_ns` reads CLOCK_BOOTTIME, `tell` takes a VM's name, its vCPUs' threads, and its I/O threads' names.
    """

    def __init__(
        self,
        vm: Vm,
        interval_ns: int,
        now_ns: Callable[[], int],
        tell: Callable[[str, dict[int, int], dict[int, str]], None],
    ) -> None:
        self.connected = False  # greeted, that is
        self.counters = {"events": 0, "bad": 0, "connections": 0}
        self._vm = vm
        self._interval_ns = interval_ns
        self._now_ns = now_ns
        self._tell = tell
        # Its descriptor stays while sockets come and go.
        self._epoll = select.epoll()
        self._socket: socket.socket | None = None
        self._session = Session()
        self._version: str | None = None
        self._vcpus: dict[int, int] = {}
        self._iothreads: dict[int, str] = {}
        self._paths: dict[str, int] = {}
        self._refused: set[str] = set()  # what this QEMU is too old for
        self._unsent = b""
        self._since_ns = self._asked_ns = self._due_ns = 0
        self._retry_ns, self._detail = 10**9, ""

    def fileno(self) -> int:
        """Return the descriptor that is readable when the monitor has something to say."""
        return self._epoll.fileno()

    def sample(self) -> list[Record]:
        """Return what the monitor said since, and ask it what is due."""
        now_ns = self._now_ns()
        records: list[Record] = []
        if self._socket is None and now_ns >= self._due_ns:
            self._connect(now_ns, records)
        if self._socket is not None:
            self._read(now_ns, records)
        if self._socket is not None:
            self._ask(now_ns, records)
        return records

    def close(self) -> None:
        """Give the socket back."""
        self._drop()
        self._epoll.close()

    def _connect(self, now_ns: int, records: list[Record]) -> None:
        tried = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            tried.connect(str(self._vm.qmp))
        except OSError as e:
            tried.close()
            self._gone(now_ns, e.strerror or str(e), records)
            return
        self._socket, self._session, self._since_ns, self._unsent = tried, Session(), now_ns, b""
        self._refused = set()
        self._epoll.register(tried, select.EPOLLIN)

    def _read(self, now_ns: int, records: list[Record]) -> None:
        assert self._socket is not None
        for _ in range(_READS):
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError as e:
                self._gone(now_ns, e.strerror or str(e), records)
                return
            if not data:
                self._gone(now_ns, "the monitor was closed", records)
                return
            for message in self._session.feed(data):
                self._take(message, now_ns, records)

    def _take(self, message: Greeting | Event | Answer | Bad, now_ns: int, records: list[Record]) -> None:
        if isinstance(message, Greeting):
            self.connected, self._retry_ns, self._detail = True, 10**9, ""
            self.counters["connections"] += 1
            self._version = _word(f"{message.version} {message.package}".strip())
            self._unsent += self._session.command("qmp_capabilities")
            self._due_ns = now_ns
        elif isinstance(message, Event):
            self.counters["events"] += 1
            data = None if message.data is None else message.data[:_DATA_BYTES_MAX]
            fields = {"event": _word(message.name), "realtime_ns": message.realtime_ns, "data": data}
            records.append(self._record("qmp_events", now_ns, fields))
        elif isinstance(message, Bad):
            self.counters["bad"] += 1
            records.append(self._record("qmp_events", now_ns, {"reason": message.reason, "raw": message.raw}))
        else:
            self._answered(message, now_ns, records)

    def _answered(self, answer: Answer, now_ns: int, records: list[Record]) -> None:
        value, after_ns = answer.value, now_ns - self._asked_ns
        if answer.command == "query-status" and isinstance(value, dict):
            fields = {"status": _word(value.get("status")), "running": _flag(value.get("running"))}
            records.append(self._status(now_ns, fields | {"answer_ns": after_ns}))
        elif answer.command == "query-block" and isinstance(value, list):
            records += [self._block(now_ns, each) for each in value[:_BLOCKS_MAX] if isinstance(each, dict)]
        elif answer.command == "query-blockstats" and isinstance(value, list):
            records += [self._counted(now_ns, each) for each in value[:_BLOCKS_MAX] if isinstance(each, dict)]
        elif answer.command == "query-cpus-fast" and isinstance(value, list):
            self._vcpus, self._paths = _threads(value), kvm_exits.paths_of(value)
            self._tell(self._vm.name, self._vcpus, self._iothreads)
        elif answer.command == "query-iothreads" and isinstance(value, list):
            self._iothreads = _iothreads(value)
            self._tell(self._vm.name, self._vcpus, self._iothreads)
        elif answer.command == "query-stats" and answer.error is None:
            found = kvm_exits.counts_of(value, self._paths)
            records += [self._record("qmp_exits", now_ns, {"vcpu": vcpu} | counts) for vcpu, counts in found.items()]
        elif answer.error is not None:
            if "CommandNotFound" in answer.error:
                self._refused.add(answer.command)
            records.append(self._status(now_ns, {"detail": _word(f"{answer.command}: {answer.error}")}))

    # Asked again only when all is answered: a monitor that is silent is told with how long it is.
    def _ask(self, now_ns: int, records: list[Record]) -> None:
        if not self._session.greeted:
            if now_ns - self._since_ns > _GREETING_NS:
                self._gone(now_ns, "no greeting: another client has the socket, or QEMU hangs", records)
            return
        if now_ns >= self._due_ns:
            self._due_ns = now_ns + self._interval_ns
            if self._session.unanswered and self._asked_ns:
                detail = f"no answer for {(now_ns - self._asked_ns) / 1e9:.1f} s"
                records.append(self._status(now_ns, {"answer_ns": now_ns - self._asked_ns, "detail": detail}))
            else:
                self._asked_ns = now_ns
                asked = [(name, more) for name, more in _QUERIES.items() if name not in self._refused]
                self._unsent += b"".join(self._session.command(*each) for each in asked)
        self._send(now_ns, records)

    def _send(self, now_ns: int, records: list[Record]) -> None:
        assert self._socket is not None
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :] if self._unsent else b""
        except BlockingIOError:
            return
        except OSError as e:
            self._gone(now_ns, e.strerror or str(e), records)

    # Told once for each reason, and tried again ever more rarely.
    def _gone(self, now_ns: int, detail: str, records: list[Record]) -> None:
        if detail != self._detail:
            self._detail = detail
            records.append(self._record("qmp_status", now_ns, {"connected": False, "detail": detail}))
            log.warning("qmp %s: %s: %s", self._vm.name, self._vm.qmp, detail)
        self._drop()
        self._due_ns = now_ns + self._retry_ns
        self._retry_ns = min(2 * self._retry_ns, _RETRY_NS_MAX)

    def _drop(self) -> None:
        self.connected = False
        self._asked_ns = 0
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _status(self, now_ns: int, fields: dict[str, Any]) -> Record:
        return self._record("qmp_status", now_ns, {"connected": True, "version": self._version} | fields)

    def _block(self, now_ns: int, value: dict[str, Any]) -> Record:
        inserted = value.get("inserted")
        inserted = inserted if isinstance(inserted, dict) else {}
        fields: dict[str, Any] = {name: _word(value.get(name)) for name in ("device", "qdev")}
        fields["io_status"] = _word(value.get("io-status"))
        fields |= {"node": _word(inserted.get("node-name")), "file": _word(inserted.get("file"))}
        fields |= {"driver": _word(inserted.get("drv")), "read_only": _flag(inserted.get("ro"))}
        # The limits that a throttled disk has, in bytes and requests a second; 0 is none.
        fields |= {"bps": _number(inserted.get("bps")), "iops": _number(inserted.get("iops"))}
        fields["data"] = json.dumps(value, separators=(",", ":"))[:_DATA_BYTES_MAX]
        return self._record("qmp_blocks", now_ns, fields)

    def _counted(self, now_ns: int, value: dict[str, Any]) -> Record:
        stats = value.get("stats")
        stats = stats if isinstance(stats, dict) else {}
        fields: dict[str, Any] = {name: _word(value.get(name)) for name in ("device", "qdev")}
        fields["node"] = _word(value.get("node-name"))
        fields |= {name: _number(stats.get(name)) for name in _STATS}
        return self._record("qmp_blockstats", now_ns, fields)

    def _record(self, kind: str, now_ns: int, fields: dict[str, Any]) -> Record:
        return Record(kind, now_ns, {"vm": self._vm.name} | fields)


class QmpSource(StateSource):
    """The source of one monitor; it is watched while the monitor is connected."""

    def __init__(self, stream: Stream, position: int, monitor: Monitor) -> None:
        super().__init__(
            stream,
            position,
            monitor.sample,
            interval_s=_TICK_S,
            fileno_of=monitor.fileno,
            alive_of=lambda: monitor.connected,
            on_close=monitor.close,
        )
        self._monitor = monitor

    def counters(self) -> dict[str, int]:
        """Return those of every state surface, and the events, bad lines and connections."""
        return {**super().counters(), **self._monitor.counters}


def _threads(value: list[Any]) -> dict[int, int]:
    found = {}
    for each in value[: vms.VCPUS_MAX]:
        if isinstance(each, dict):
            vcpu, tid = each.get("cpu-index"), each.get("thread-id")
            if isinstance(vcpu, int) and isinstance(tid, int):
                found[vcpu] = tid
    return found


def _iothreads(value: list[Any]) -> dict[int, str]:
    found = {}
    for each in value[: vmm_threads.THREADS_MAX]:
        if isinstance(each, dict) and isinstance(each.get("thread-id"), int):
            found[each["thread-id"]] = _word(each.get("id")) or ""
    return found


# JSON has texts that are no UTF-8, and numbers of any length.
def _word(value: Any) -> str | None:
    return None if value is None else str(value)[:1024].encode("utf-8", "replace").decode()


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and abs(value) <= limits.INT64_MAX else None
