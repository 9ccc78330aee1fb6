"""Genuine runs: incidents of a guest's kernel log by the real assembly, and facts by the samples of its host."""

import json
from pathlib import Path

from consumers.coverage import Span
from consumers.incidents.incident import Source
from consumers.incidents.log import LogIncidents
from consumers.reports.kmsg_record import kmsg_line
from consumers.verdict.facts import Facts, known
from consumers.verdict.stays import Monitor, Sample, account
from consumers.verdict.verdict import Record

HERE = Path(__file__).parent / "captures"
LOGS = Path(__file__).parent.parent / "reports" / "captures"
S = 10**9
#: So exactly is it known when the first sample was taken.
ERROR_NS = 100_000_000


def records(name):
    """Return the lines of a capture's kernel log."""
    found = []
    for raw in (LOGS / f"{name}.kmsg").read_bytes().splitlines(keepends=True):
        line = None if raw.startswith(b" ") else kmsg_line(raw)
        if line is not None:
            found.append(line)
    return found


def incidents(name):
    """Return the incidents of a capture."""
    log = LogIncidents(Source("guest", "boot", "guest-kernel"))
    changed = [*log.feed(records(name)), *log.close()]
    return list({each.id: each for each in changed}.values())


def ahead_ns(name, rows):
    """Return by how much the host's clock is ahead of the guest's printk."""
    raw = (LOGS / f"{name}.kmsg").read_bytes().splitlines()
    began = next(line for line in raw if line.endswith(b";HYP_INJECT_BEGIN"))
    return int(rows[0]["mono"] * S) - int(began.split(b",")[2]) * 1000


def facts(name, window, *, freezer=False):
    """Return what the host's samples say of a time on the guest's printk; `freezer`: `D` is known to be frozen."""
    lines = [json.loads(line) for line in (HERE / f"{name}.host.jsonl").read_text().splitlines()]
    rows = [each for each in lines if "mono" in each]
    ahead = ahead_ns(name, rows)
    there = Span(window.since_ns + ahead, window.until_ns + ahead)
    monitor = _monitor(lines, rows)
    vcpus = {}
    for cpu in (0, 1):
        samples = [_sample(row["mono"], row[f"cpu{cpu}"], freezer) for row in rows]
        shares = account(samples, (), monitor, there, ERROR_NS)
        vcpus[cpu] = known(shares, "sampled each 0.5 s", (Record("host.jsonl", name, "", "", 0, len(rows)),))
    length_s = (there.until_ns - there.since_ns) / S
    return Facts(length_s, vcpus, (), known(True), known(True), known(0), known(ERROR_NS / S))


def _sample(mono, row, freezer):
    frozen = (row["state"] == "D") if freezer else None
    return Sample(int(mono * S), row["state"], frozen, row["run_ns"], row["wait_ns"], row["slices"])


# QEMU's own time of its events is CLOCK_REALTIME.
def _monitor(lines, rows):
    shift = rows[0]["mono"] - rows[0]["real"]
    at = {}
    for each in lines:
        if "qmp" in each:
            stamp = each["qmp"]["timestamp"]
            at[each["qmp"]["event"]] = int((stamp["seconds"] + stamp["microseconds"] / 1e6 + shift) * S)
    first, last = int(rows[0]["mono"] * S), int(rows[-1]["mono"] * S)
    if "STOP" not in at:
        return Monitor((), (Span(first, last),))
    return Monitor((Span(at["STOP"], at["RESUME"]),), (Span(first, at["STOP"]), Span(at["RESUME"], last)))
