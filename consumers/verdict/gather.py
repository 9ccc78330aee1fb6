"""Facts about a stored incident, out of the lake: what every layer says of the time in question, with its coverage.

A layer in `withhold` is left out as if nothing of it had ever come. The same lake gives the same facts.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Final

import duckdb

from consumers.incidents.incident import Incident
from consumers.lake.storage import Storage
from consumers.verdict import of_exits, of_guest, of_host, of_monitor, of_threads, of_vcpus
from consumers.verdict.facts import HELPERS, NAMES, Fact, Facts, known, unknown
from consumers.verdict.look import Look, S, There, interval, look
from consumers.verdict.shares import part
from schemas.errors import StorageError

_NO_TIME: Final = "the report has no time of the kernel's clock"
_NO_CLOCK: Final = "run the agent with the surface clocks on guest and host, and the relay between them"


def gather(storage: Storage, incident: Incident, withhold: Collection[str] = ()) -> Facts:
    """Return what the lake says of `incident`.

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    window = interval(incident)
    if window is None or not incident.source.machine:
        return replace(Facts.none(), host=unknown(_NO_TIME))
    try:
        with look(storage, incident, window, withhold) as found:
            return _facts(found)
    except duckdb.Error as e:
        raise StorageError(f"the lake cannot be read: {e}") from e


def _facts(found: Look) -> Facts:
    there = found.there
    length_ns = found.window.until_ns - found.window.since_ns if there is None else there.length_ns
    facts = Facts(length_s=length_ns / S)
    if there is None:
        # A machine with nothing below it is its own host.
        facts.host = unknown(found.why, _NO_CLOCK if "comparable" in found.why else "")
        facts.clock_error_s = unknown(found.why)
    if found.incident.vm and there is not None:
        return of_monitor.add(found, of_host.add(found, of_vcpus.add(found, facts, []), []), there)
    threads = of_vcpus.threads(found)
    facts = of_exits.add(found, of_vcpus.add(found, facts, threads), threads)
    if there is not None:
        facts.host = _host(found, there, facts)
    helpers = of_threads.threads(found)
    facts = of_host.add(found, facts, threads, calm=of_threads.none_blocked(found, helpers, threads))
    facts = of_threads.add(found, facts, helpers)
    if there is not None and there.cut_ns:
        facts = _partly(facts, there)
    facts = of_guest.add(found, facts)
    if facts.bare.value:
        facts.host = known(True, facts.bare.text)
    return facts


# Of a part of the time nothing is known: what was not seen in the other may have been there.
def _partly(facts: Facts, there: There) -> Facts:
    share = 1 - there.cut_ns / there.length_ns
    values = {name: getattr(facts, name) for name in NAMES}
    seen = {name: replace(fact, complete=False) for name, fact in values.items() if fact.value is False}
    vcpus = {
        cpu: fact if fact.value is None else replace(fact, value=part(fact.value, share))
        for cpu, fact in facts.vcpus.items()
    }
    times = {
        name: replace(values[name], value=part(values[name].value, share)) for name in HELPERS if values[name].value
    }
    return replace(facts, vcpus=vcpus, **seen, **times)


# Heartbeats of a stream of the host touch the time, or something is known of vCPUs in it.
def _host(found: Look, there: There, facts: Facts) -> Fact[bool]:
    mine = [each for each in found.streams if each[:2] == there.node[:2]]
    beaten = (span for stream in mine for span in found.seen(stream, there.window))
    seen = any(span.since_ns < there.window.until_ns and span.until_ns > there.window.since_ns for span in beaten)
    if seen or any(fact.value is not None and fact.value.known for fact in facts.vcpus.values()):
        return known(True, f"streams of the host {there.node.machine} reach over the time")
    return unknown("no stream of the host was watched at that time, and none has a record")
