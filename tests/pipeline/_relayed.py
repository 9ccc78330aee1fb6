"""A relay and its guests as processes, the lake behind them, and what must be in it."""

import contextlib
import io
import json
import socket
import sys

from consumers.cli import main
from consumers.lake.layout import open_lake
from consumers.views import run_query
from tests._relay import BOOT, Chardev, GuestLog, record_text
from tests.pipeline._kernel import until
from tests.pipeline._processes import AGENT, Running

SHIP = (sys.executable, "-m", "producers.relay.ship")


class Guest:
    """One guest: its port, its spool, and the shipper while it runs."""

    def __init__(self, relayed, name, uuid="", *, vsock=False):
        self.relayed, self.name, self.machine = relayed, name, uuid or name
        self.port = Chardev(relayed.folder, name, vsock=vsock)
        self.spool = GuestLog(relayed.folder / f"{name}-spool", machine=f"id-of-{name}")
        self.flag = f"{name}={'listen:' if vsock else ''}{self.port.host}" + (f",uuid={uuid}" if uuid else "")
        self.shipper = None

    def start(self, spool=None, boot=BOOT):
        """Start the shipper of this guest's spool as its agent does; it runs on until its end is asked for."""
        spool = spool or self.spool
        claims = ["--machine", spool.stream.machine, "--boot-id", boot, "--layer", spool.stream.layer]
        command = [*SHIP, "--log", str(spool.path), "--port", str(self.port.guest), *claims]
        self.shipper = _Held(self.relayed.folder, command)
        return self.shipper

    def rows(self):
        """Return (boot, seq, message) of what the lake has of this guest, in order."""
        sql = f"select boot_id, seq, message from kmsg where machine = '{self.machine}' order by all"
        return self.relayed.query(sql)


class _Held(Running):
    # Its standard input stays open until `end`.
    def __init__(self, folder, command):
        self._in, theirs = socket.socketpair()
        super().__init__(folder, command, stdin=theirs)
        theirs.close()

    def hint(self):
        self._in.send(b"\n")

    def end(self, timeout_s=30.0):
        """Let it send what there is and return its exit code."""
        self._in.close()
        return self.wait(timeout_s)


class Relayed:
    """The relay, in `folder`."""

    def __init__(self, folder):
        self.folder, self.log, self.lake = folder, folder / "log", folder / "lake"
        self.config = folder / "relay.toml"
        self.config.write_text("[relay]\nreport_s = 0.2\n")
        self.guests, self.running = [], []

    def guest(self, name, uuid="", *, vsock=False):
        self.guests.append(Guest(self, name, uuid, vsock=vsock))
        return self.guests[-1]

    def start(self, *words, crash_at=None):
        vms = [word for guest in self.guests for word in ("--vm", guest.flag)]
        target = [] if "--kafka" in words else ["--log", str(self.log)]
        target += [] if "--metrics" in words else ["--metrics", "0"]
        command = [*AGENT, "relay", "--config", str(self.config), "--machine", "the-host", *vms, *target, *words]
        self.running.append(Running(self.folder, command, crash_at))
        return self.running[-1]

    def collect(self):
        """Collect what the log holds and return the audit, which must find that every book closes."""
        assert main(["collect", "--log", str(self.log), "--lake", str(self.lake), "--until-end"]) == 0
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = main(["audit", "--lake", str(self.lake), "--deep", "--json"])
        assert code == 0, out.getvalue()
        return json.loads(out.getvalue())

    def query(self, sql):
        return run_query(open_lake(self.lake, create=False), sql)[1]

    def until(self, condition, what, timeout_s=30.0):
        until(condition, lambda: f"{what}\n" + "\n".join(each.story() for each in self.running), timeout_s)

    def close(self):
        for guest in self.guests:
            guest.port.close()


def expected(numbers, text="record", each=10, boot=BOOT):
    """Return the rows that `GuestLog.write` makes."""
    return [(boot, i, record_text(text, i)) for n in numbers for i in range(n * each, n * each + each)]
