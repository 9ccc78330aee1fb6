"""Two accounts that a relay gave of a guest, and of bytes of it that were no frame."""

from schemas import state
from schemas.frame import Frame, encode
from schemas.state import Record
from schemas.stream import Stream

HOST = Stream("e2c41b7f90a84d6e8b53f7c9d0a61e24", "7a90c3f1-5d2e-4b86-9c47-1f8e6d3b2a05", "host", "relay", "", "boot")
_S = 10**9


def frames(guest, at_ns):
    """Return the one frame, of the guest whose stream is `guest`."""
    named = {"vm": "web-1", "uuid": guest.machine, "host_machine": HOST.machine, "host_boot_id": HOST.boot_id}
    claims = {"claimed_machine": guest.machine, "claimed_layer": guest.layer, "claimed_boot_id": guest.boot_id}
    counts = {"connections": 1, "bytes": 90_000, "frames": 40, "duplicates": 0, "mismatches": 0}
    account = {**named, "generation": 0, "connected": True, **counts, **claims, "rtt_ns": 152_000}
    records = [
        Record("relay_guests", 500 * _S, account | {"refused": {}}),
        Record("relay_guests", 510 * _S, account | {"refused": {"garbage": 1}, "rtt_ns": None}),
        Record("relay_refused", 507 * _S, {**named, "reason": "garbage", "size_bytes": 3, "data": b"\x00??"}),
    ]
    where = (HOST, "relay-run", 0, 0, len(records), len(records))
    return [encode(Frame(*where, "relay", state.VERSION, state.pack(records), realtime_ns=at_ns))]
