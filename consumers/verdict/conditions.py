"""Whether a condition of the table is true, false or not known, by which evidence, and what would have told.

Nothing here turns what is not known into a no, and more knowledge changes only what was not known: of that the table
needs no more than that a row is an answer when all of its conditions are true.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from consumers.incidents.incident import Incident
from consumers.verdict.facts import ABOUT, Fact, Facts, holds, unknown
from consumers.verdict.shares import Shares, named
from consumers.verdict.table import THREADS, Condition, Either, Exits, Is, Most, Row, Says, Share
from consumers.verdict.text import QUESTIONS
from consumers.verdict.verdict import Evidence, Record

#: Letters that compete for being the most.
_AWAY: Final = "WST"
#: The thread that runs all vCPUs, where one does.
ALL_VCPUS: Final = -1
#: Whose no is only that a log or a monitor did not say so.
_OF_LOGS: Final = frozenset(
    ("host_lockup", "host_hardware", "io_timeout", "io_error", "host_suspend", "hardware", "marker", "rt_line")
)
#: A guest may name more CPUs.
_CPUS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Case:
    """What is judged: the incident, whose root accuses `cpus` (none: all of the VM), and the facts."""

    incident: Incident
    facts: Facts
    cpus: tuple[int, ...]

    def vcpus(self) -> list[tuple[int, Fact[Shares]]]:
        """Return where the time of the accused vCPUs went; nothing where nobody knows how many there are."""
        facts = self.facts.vcpus
        if ALL_VCPUS in facts:
            return [(ALL_VCPUS, facts[ALL_VCPUS])]
        if self.cpus:
            missing: Fact[Shares] = unknown("nobody sampled this vCPU's thread")
            return [(cpu, facts.get(cpu, missing)) for cpu in self.cpus[:_CPUS_MAX]]
        return sorted(facts.items()) if holds(self.facts.mapped) else []


class Answer(NamedTuple):
    """`why` says it in words, `facts` are the names of those that would have told.

    `silent`: it is a no because text or a log does not say so, which is no reason to reject an owner.
    """

    truth: bool | None
    why: str = ""
    evidence: tuple[Evidence, ...] = ()
    facts: tuple[str, ...] = ()
    silent: bool = False


def evaluate(row: Row, case: Case) -> Answer:
    """Return whether all conditions of `row` are true; `why` is that of the first false one."""
    return _all([_evaluate(each, case) for each in row.conditions])


def _evaluate(condition: Condition, case: Case) -> Answer:
    match condition:
        case Says(question):
            ask, says = QUESTIONS[question]
            truth = ask(case.incident)
            return Answer(
                truth, says, (Evidence("G1", says, (of_report(case.incident),)),) if truth else (), (), silent=True
            )
        case Is(name, so):
            return _fact(name, case.facts.flag(name), so=so)
        case Exits(where):
            return _exits(case.facts.exits, where)
        case Either(options):
            return _any([_evaluate(each, case) for each in options])
        case Share() | Most():
            return _time(condition, case)


def _all(answers: list[Answer]) -> Answer:
    # What was measured goes before what is only not said.
    false = [answer for answer in answers if answer.truth is False]
    if false:
        return min(false, key=lambda answer: answer.silent)
    truth = None if any(answer.truth is None for answer in answers) else True
    return Answer(truth, "", _evidence(answers), _names(answers))


def _any(answers: list[Answer]) -> Answer:
    true = [answer for answer in answers if answer.truth]
    if true:
        return Answer(True, "", _evidence(true))
    if any(answer.truth is None for answer in answers):
        return Answer(None, facts=_names(answers))
    whys = "; ".join(answer.why for answer in answers if not answer.silent)
    return Answer(False, whys, silent=not whys)


def _evidence(answers: Iterable[Answer]) -> tuple[Evidence, ...]:
    return tuple(each for answer in answers if answer.truth for each in answer.evidence)


def _names(answers: Iterable[Answer]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for answer in answers if answer.truth is None for name in answer.facts))


def _fact(name: str, fact: Fact[bool], *, so: bool) -> Answer:
    truth = holds(fact)
    if truth is None:
        return Answer(None, facts=(name,))
    text = fact.text or f"{'seen' if truth else 'not so'}: {ABOUT[name].title}"
    return Answer(truth is so, text, (Evidence(ABOUT[name].id, text, fact.records),), silent=name in _OF_LOGS)


def _exits(fact: Fact[str], where: str) -> Answer:
    if fact.value is None:
        return Answer(None, facts=("exits",))
    text = fact.text or f"its exits were handled in {fact.value}"
    return Answer(fact.value == where, text, (Evidence("H2", text, fact.records),))


def _time(condition: Share | Most, case: Case) -> Answer:
    of = condition.of if isinstance(condition, Share) else "vcpu"
    threads = case.vcpus() if of == "vcpu" else [(ALL_VCPUS, case.facts.shares(of))]
    if not threads:
        return Answer(None, facts=("vcpu", "mapped"))
    return _all([_of_thread(condition, of, cpu, fact) for cpu, fact in threads])


def _of_thread(condition: Share | Most, of: str, cpu: int, fact: Fact[Shares]) -> Answer:
    if fact.value is None:
        return Answer(None, facts=(of,))
    shares = fact.value
    letters = condition.letters if isinstance(condition, Share) else condition.letter
    truth = _share(condition, shares) if isinstance(condition, Share) else _most(condition, shares)
    who = f"vCPU {cpu}" if of == "vcpu" and cpu != ALL_VCPUS else THREADS[of]
    bounds = _bounds(shares.at_least(letters), shares.at_most(letters))
    text = f"{who} was {named(letters)} for {bounds} of the time"
    about = "" if truth is None or not fact.text else f" ({fact.text})"
    # Which of several letters it was, exits tell.
    return Answer(
        truth, text, (Evidence("H1", text + about, fact.records),), (of, "exits") if "X" in letters else (of,)
    )


def _bounds(low: float, high: float) -> str:
    if f"{low:.2f}" == f"{high:.2f}":
        return f"{low:.2f}"
    return f"at most {high:.2f}" if low <= 0 else f"at least {low:.2f}" if high >= 1 else f"{low:.2f} to {high:.2f}"


def _share(condition: Share, shares: Shares) -> bool | None:
    low, high = shares.at_least(condition.letters), shares.at_most(condition.letters)
    if condition.at_least is not None:
        return True if low >= condition.at_least else False if high < condition.at_least else None
    assert condition.at_most is not None
    return True if high <= condition.at_most else False if low > condition.at_most else None


def _most(condition: Most, shares: Shares) -> bool | None:
    others = _AWAY.replace(condition.letter, "")
    if all(shares.at_least(condition.letter) >= shares.at_most(other) for other in others):
        return True
    if any(shares.at_most(condition.letter) < shares.at_least(other) for other in others):
        return False
    return None


def of_report(incident: Incident) -> Record:
    """Return where the root of an incident is stored."""
    source, root = incident.source, incident.root
    return Record("kmsg", source.machine, "kmsg", "", root.place, max(root.place, root.last_place))
