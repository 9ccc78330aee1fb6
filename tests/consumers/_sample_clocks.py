"""Readings of the clocks of a guest that booted at a known time, and its exchanges with a host, for the sample lake."""

from schemas import state
from schemas.frame import Frame, encode
from schemas.state import Record

HOST = "9c4d1e6a0b7f4f23a5d8c3e1f2b6a790", "4b1f7d52-6c0e-4a9d-8e35-0f9a2c7b6d11"
_S = 10**9
#: printk's clock is so much ahead of CLOCK_MONOTONIC, the host was up for so long when the guest booted.
PRINTK_AHEAD_NS = 1_370_000
HOST_AHEAD_NS = 86_400 * _S
#: The CPU's counter, and how long it had counted when the guest booted.
TSC_HZ = 2_400_000_000
TSC_AHEAD_NS = 7 * _S


def frames(stream, boot_ns):
    """Return the frames of the stream `clocks` of the same guest: every 10 s for a minute."""
    clocks = stream._replace(surface="clocks", clock="boot")
    records = []
    for at_ns in range(2 * _S, 63 * _S, 10 * _S):
        records += [_reading(boot_ns, at_ns), *(_ping(at_ns + i * 400_000) for i in range(3))]
    where = clocks, "run-1", 0, 0, len(records), len(records)
    return [encode(Frame(*where, "clocks", 1, state.pack(records), [], realtime_ns=boot_ns + 63 * _S))]


def _reading(boot_ns, at_ns):
    fields = {"realtime_ns": boot_ns + at_ns + 100, "monotonic_ns": at_ns, "monotonic_raw_ns": at_ns + at_ns // 100_000}
    fields |= {"boottime_ns": at_ns + 200, "tai_ns": boot_ns + at_ns + 37 * _S + 300, "bracket_ns": 800}
    fields |= {"tsc": (at_ns + 60_000 + TSC_AHEAD_NS) * 12 // 5, "tsc_monotonic_ns": at_ns + 60_000}
    fields |= {"tsc_bracket_ns": 60, "tsc_cpu": at_ns // _S // 10 % 2}
    fields |= {"cause": "interval", "slew_ppb": -10_000, "printk_ns": at_ns + 50_000 + PRINTK_AHEAD_NS}
    fields |= {"printk_monotonic_ns": at_ns + 50_000, "printk_bracket_ns": 2_200, "printk_cpu": at_ns // _S // 10 % 2}
    return Record("clock_readings", at_ns, fields | {"how": "perf-event"})


def _ping(at_ns):
    fields = {"t0_ns": at_ns, "t1_ns": at_ns + HOST_AHEAD_NS + 90_000, "t2_ns": at_ns + HOST_AHEAD_NS + 100_000}
    fields |= {"t3_ns": at_ns + 180_000, "generation": 0, "host_machine": HOST[0], "host_boot_id": HOST[1], "vm": "web"}
    return Record("clock_pings", at_ns + 180_000, fields)
