"""What the monitor of a VM says of an incident that it told: why the VM stood, and whether all it said is known.

Tables: qmp_events, qmp_status. Run states: QEMU's qapi/run-state.json.
"""

from dataclasses import replace
from typing import Final

from consumers.coverage import Answer
from consumers.export.scope import literal
from consumers.verdict.facts import Fact, Facts, known
from consumers.verdict.look import Look, S, There, of_rows
from consumers.verdict.verdict import Evidence
from schemas.stream import Layer

_PAUSES: Final = ("paused", "save-vm", "restore-vm", "finish-migrate", "debug", "colo")
_INTERNAL: Final = ("internal-error",)
_BEHIND_NS: Final = 10 * S


def add(look: Look, facts: Facts, there: There) -> Facts:
    """Return `facts` with what the monitor said over the time in question."""
    streams = [each for each in look.of_host("qmp", look.incident.vm) if each.layer == Layer.VIRTUAL_PLATFORM]
    if not streams:
        return facts
    host = known(True, f"the monitor of VM {look.incident.vm} tells it on the host {there.node.machine}")
    facts = replace(
        facts, host=host, vm_paused=_state(look, there, _PAUSES), vm_internal=_state(look, there, _INTERNAL)
    )
    whole = all(look.watched(each, there.window) is Answer.YES for each in streams)
    lost = sum(look.lost(each, 0, 1 << 62) for each in streams)
    if whole and not lost:
        return replace(facts, monitored=known(True, "the monitor was watched over the whole time"))
    why = f"{lost} of its records were lost" if whole else "it was not watched over the whole time"
    return replace(facts, monitored=Fact(why=why))


def panics(look: Look, there: There, names: tuple[str, ...]) -> list[Evidence]:
    """Return what the monitor told of panics of the guest, from the time in question to as long behind it."""
    wanted, behind_ns = ", ".join(map(literal, names)), max(_BEHIND_NS, there.length_ns)
    rows = look.rows(
        "qmp_events",
        f"select * from qmp_events where machine = ? and boot_id = ? and vm in ({wanted}) "  # noqa: S608
        "and event in ('GUEST_PANICKED', 'GUEST_CRASHLOADED') and ts_ns between ? and ? order by position",
        *there.node[:2], there.window.since_ns - S, there.window.until_ns + behind_ns,
    )  # fmt: skip
    text = "the VM's monitor told that the guest panicked"
    return [Evidence("H4", text, of_rows("qmp_events", rows))] if rows else []


def _state(look: Look, there: There, states: tuple[str, ...]) -> Fact[bool]:
    wanted = ", ".join(map(literal, states))
    rows = look.rows(
        "qmp_status",
        f"select * from qmp_status where machine = ? and boot_id = ? and instance = ? and status in ({wanted}) "  # noqa: S608
        "and ts_ns between ? and ? order by position",
        *there.node[:2], look.incident.vm, there.window.since_ns - S, there.window.until_ns + S,
    )  # fmt: skip
    text = f"the monitor said of the VM: {', '.join(dict.fromkeys(row['status'] for row in rows))}"
    return known(True, text, of_rows("qmp_status", rows)) if rows else Fact()
