"""Rows of the decision table in words: what a row asks for, and which observation would contradict it.

Everything is derived from the table's data (`consumers/verdict/table.py`), so that the words change with the rules.
"""

from collections.abc import Iterator
from typing import Final

from consumers.incidents.incident import Incident
from consumers.verdict.facts import ABOUT
from consumers.verdict.shares import named
from consumers.verdict.table import (
    HINTS,
    PARTS,
    ROWS,
    RULES_VERSION,
    THREADS,
    Condition,
    Either,
    Exits,
    Is,
    Most,
    Row,
    Says,
    Share,
)
from consumers.verdict.text import QUESTIONS, symptom
from consumers.verdict.verdict import Owner, Verdict

#: What an owner is, as something that can fail.
RESOURCES: Final = {
    Owner.VMM_PAUSE: "the running of the VM: its vCPUs were paused, stopped or frozen by the VMM or an operator",
    Owner.VMM_BUG: "the virtual machine monitor",
    Owner.HOST_CPU: "CPU time of the host",
    Owner.HOST_MEMORY: "memory of the host",
    Owner.HOST_KERNEL: "the host's kernel",
    Owner.STORAGE_BACKEND: "the disk below the guest's",
    Owner.NETWORK_BACKEND: "the network or server behind the disk",
    Owner.HARDWARE_FIRMWARE: "hardware or firmware",
    Owner.GUEST_KERNEL: "the guest's kernel",
    Owner.GUEST_DRIVER: "a driver or module in the guest's kernel",
    Owner.GUEST_USERSPACE: "a program of the guest",
    Owner.GUEST_POLICY: "the guest's own scheduling policy",
    Owner.CONFIG_THRESHOLD: "nothing: the threshold was too low",
    Owner.INJECTED: "what a test made fail",
    Owner.UNDETERMINED: "not known",
}


def row_of(verdict: Verdict) -> Row | None:
    """Return the row that decided; None where none did, or where the verdict is by another version of the table."""
    if verdict.rules != RULES_VERSION:
        return None
    mine = [row for row in (*ROWS, *PARTS) if row.id == verdict.row and row.owner is verdict.owner]
    # The words of one row may be a part of another's.
    told = [row for row in mine if row.says in verdict.sentence]
    return max(told, key=lambda row: len(row.says), default=None)


def row_words(verdict: Verdict) -> str:
    """Return what the row that decided asks for, in words; or why there is none."""
    row = row_of(verdict)
    if row is not None:
        asks = " and ".join(map(_asks, row.conditions))
        return f"if {asks}, then {row.owner} with {row.confidence} confidence at most: {row.says}"
    if verdict.rules != RULES_VERSION:
        return f"it is of version {verdict.rules} of the table; this program has version {RULES_VERSION}"
    hints = [hint for hint in HINTS if hint.id == verdict.row and hint.says in verdict.sentence]
    if hints:
        return f"no row decided; where {_said(hints[0].question)}, {hints[0].says}: a hint, and no verdict"
    if verdict.row != "-":
        return "no row decided: whom the blamed one waited for is not known"
    return "no row decided"


def contradictions(verdict: Verdict, lines: str) -> Iterator[str]:
    """Yield which observations would contradict the row that decided; `lines` are those that its text was read from."""
    row = row_of(verdict)
    for condition in () if row is None else row.conditions:
        yield _contrary(condition, lines)


def open_rows(incident: Incident, verdict: Verdict) -> list[tuple[Owner, str]]:
    """Return the owners that nothing rejected, and what would make each the owner: a row that the text allows."""
    known = {verdict.owner, verdict.shared, *verdict.beside, *(each.owner for each in verdict.rejected)}
    found: dict[Owner, str] = {}
    for row in ROWS:
        if symptom(incident) not in row.symptoms or row.owner in known or row.owner is Owner.INJECTED:
            continue
        if not any(_text_denies(each, incident) for each in row.conditions):
            asks = [_asks(each) for each in row.conditions if not isinstance(each, Says)]
            found.setdefault(row.owner, f"{' and '.join(asks)} (row {row.id})")
    return list(found.items())


# What the lines say is never withheld: where they say no, no record changes that.
def _text_denies(condition: Condition, incident: Incident) -> bool:
    match condition:
        case Says(question):
            return not QUESTIONS[question][0](incident)
        case Either(options):
            return all(_text_denies(each, incident) for each in options)
        case _:
            return False


# What makes a condition true.
def _asks(condition: Condition) -> str:
    match condition:
        case Share(letters, at_least, at_most, of):
            much = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
            return f"{THREADS[of]} was {named(letters)} for {much} of the time"
        case Most(letter):
            return f"it was {named(letter)} longer than anything else that kept it from running"
        case Is(fact, so):
            return f"a record {'shows' if so else 'rules out'} {_title(fact)}"
        case Says(question):
            return _said(question)
        case Exits(where):
            return f"its exits were handled in {'the VMM' if where == 'userspace' else 'KVM'}"
        case Either(options):
            return f"({' or '.join(map(_asks, options))})"


def _contrary(condition: Condition, lines: str) -> str:
    match condition:
        case Share(letters, at_least, at_most, of):
            other, most = ("", at_most or 0) if at_least is None else ("something else than ", 1 - at_least)
            text = f"{THREADS[of]} was {other}{named(letters)} for more than {most:.2g} of the time"
        case Most(letter):
            text = f"something else than being {named(letter)} kept it from running for longer"
        case Is(fact, so):
            text = f"a record {'rules out' if so else 'shows'} {_title(fact)}"
        case Says(question):
            text = f"whoever reads {lines} does not find that {_said(question)}"
        case Exits():
            text = "its exits were handled elsewhere"
        case Either(options):
            text = ", and ".join(_contrary(each, lines) for each in options)
    return text


# What a fact is about, behind `shows` or `rules out`.
def _title(fact: str) -> str:
    title = ABOUT[fact].title
    return f"that {title.removeprefix('whether ')}" if title.startswith("whether ") else title


def _said(question: str) -> str:
    return QUESTIONS[question][1]
