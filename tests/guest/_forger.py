"""What a hostile guest sends: run inside of it, by a bare interpreter, with the agent's file as the library.

Frames under the names of its neighbour and of its host, as many as go through for some seconds; then noise.
"""

import os
import sys
import time
from pathlib import Path

BUNDLE, PORT, SPOOL, NEIGHBOUR, HOST, SECONDS = sys.argv[1:7]
sys.path.insert(0, BUNDLE)

from producers.log import LogWriter  # noqa: E402
from producers.relay.port import Port  # noqa: E402
from producers.relay.ship import RelayShipper  # noqa: E402
from schemas import kmsg, limits  # noqa: E402
from schemas.frame import Frame  # noqa: E402
from schemas.relay import Hello  # noqa: E402
from schemas.stream import Stream  # noqa: E402
from schemas.surfaces import TOPIC_LOG  # noqa: E402

BOOT = "11111111-2222-4333-8444-555555555555"
RECORDS = 200


def main():
    log = LogWriter(Path(SPOOL), retention_ms=None, segment_bytes=1 << 22, retention_bytes=1 << 26)
    names = ((NEIGHBOUR, "guest-kernel"), (HOST, "host"), (HOST, "hypervisor"))
    shippers = None
    deadline_s, number = time.monotonic() + float(SECONDS), 0
    while time.monotonic() < deadline_s:
        for machine, layer in names:
            first = number * RECORDS
            records = [
                b"6,%d,%d,-;forged as %s %d\n" % (i, i, layer.encode(), i) for i in range(first, first + RECORDS)
            ]
            stream = Stream(machine, BOOT, layer, "kmsg", "", "printk")
            where = (stream, "forger", number, first, first + RECORDS, RECORDS, "kmsg", 1, kmsg.pack(records))
            log.append(TOPIC_LOG, Frame(*where, realtime_ns=time.time_ns()))
        log.sync()
        number += 1
        if shippers is None:
            shippers = RelayShipper(Path(SPOOL), PORT, Hello("", HOST, BOOT, "host", limits.RELAY_WINDOW_BYTES_MAX, {}))
        shippers._hinted = True
        shippers._step()
    shippers.close()
    noise(Port(PORT))
    print(f"forged {number * RECORDS}")


def noise(port):
    """Write what is no packet, and the beginnings of packets, for a second."""
    deadline_s = time.monotonic() + 1
    while time.monotonic() < deadline_s:
        port.write(os.urandom(4096) + b"\xd7HYR" + os.urandom(40))
        time.sleep(0.01)
    port.close()


main()
