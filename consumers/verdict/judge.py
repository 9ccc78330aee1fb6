"""Which layer owned an incident: the decision table over the text and the facts, and nothing else.

Withholding can only take answers away: what is not known makes no condition true, every row that is true is told (the
first as the owner, others as `shared` or `beside`), and no row is an answer because another one is not.
"""

from typing import Final

from consumers.incidents.incident import Incident
from consumers.reports.report import Kind, Shape, panic_reason
from consumers.verdict.conditions import Answer, Case, evaluate, of_report
from consumers.verdict.facts import ABOUT, Facts, holds
from consumers.verdict.moves import follow
from consumers.verdict.table import HINTS, PARTS, ROWS, RULES_VERSION, Row, Share
from consumers.verdict.text import QUESTIONS, Symptom, symptom
from consumers.verdict.verdict import Confidence, Evidence, Missing, Owner, Rejected, Verdict

#: Of the time of a vCPU so much must be known, for high confidence.
KNOWN_MIN: Final = 0.95
#: And that time must be known on the host's clock within this, or within a tenth of its length.
ERROR_S_MAX: Final = 0.1
_IN_GUEST_MIN: Final = 0.8
_ORDER: Final = (Confidence.NONE, Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)
_GUEST: Final = frozenset({Owner.GUEST_KERNEL, Owner.GUEST_DRIVER, Owner.GUEST_POLICY})
_BELOW: Final = frozenset({Owner.VMM_PAUSE, Owner.VMM_BUG, Owner.HOST_CPU, Owner.HOST_MEMORY, Owner.HOST_KERNEL})
#: No layers, so that nothing speaks against them.
_NO_LAYERS: Final = frozenset({Owner.INJECTED, Owner.CONFIG_THRESHOLD})
#: What is missing is told in this order: last what would say that there was no failure of any layer.
_WEIGHT: Final = (*(name for name in ABOUT if name not in ("marker", "thresholds")), "thresholds", "marker")
#: (row, its answer)
Told = tuple[Row, Answer]


def judge(incident: Incident, facts: Facts) -> Verdict:
    """Return who owned `incident`, as far as its text and `facts` tell; the same for the same, always."""
    moved = follow(incident, facts)
    steps = tuple(Evidence("G1", f"{row}: {text}", (of_report(incident),)) for row, text in moved.steps)
    if moved.case is None:
        unmoved = Case(incident, facts, incident.root.cpus)
        rows = [row for row in ROWS if row.by_text and symptom(incident) in row.symptoms]
        answers = [(row, evaluate(row, unmoved)) for row in rows]
        true = [told for told in answers if told[1].truth]
        if true:
            return _verdict(unmoved, true, answers, None, steps)
        names = ("vcpu", "mapped") if holds(facts.host) else ("host", "vcpu", "mapped")
        missing = tuple(_missing(facts, name) for name in names)
        return _undetermined(unmoved, "C10", moved.steps[-1][1], answers, steps, missing)
    case = moved.case
    answers = [(row, evaluate(row, case)) for row in ROWS if symptom(case.incident) in row.symptoms]
    seen = holds(facts.host) is True
    true = [told for told in answers if told[1].truth and (seen or told[0].by_text)]
    parts = _parts(case) if seen else []
    shared = _shared(true, parts)
    if not true and shared is not None:
        true = parts[:1]
    if not true:
        return _nobody(case, answers, steps)
    return _verdict(case, true, answers, shared, steps)


def _parts(case: Case) -> list[Told]:
    found = [(row, evaluate(row, case)) for row in PARTS if symptom(case.incident) in row.symptoms]
    return [told for told in found if told[1].truth]


# Another owner that explains as much as must be told; None if the first one explains it alone.
def _shared(true: list[Told], parts: list[Told]) -> Told | None:
    first = next(iter(true or parts), None)
    if first is None or not first[0].letters:
        return None
    return next((told for told in parts if told[0].owner != first[0].owner), None)


def _verdict(
    case: Case, true: list[Told], answers: list[Told], shared: Told | None, steps: tuple[Evidence, ...]
) -> Verdict:
    row, answer = true[0]
    confidence, short = _confidence(case, row)
    partner = None if shared is None else shared[0].owner
    beside = dict.fromkeys(told.owner for told, _ in true[1:] if told.owner not in (row.owner, partner))
    claims = {row.owner, partner, *beside}
    others = [] if shared is None else list(shared[1].evidence)
    evidence = (*steps, *answer.evidence, *others, *case.facts.found, *_against(case, row.owner))
    alone = f"; {shared[0].says} as well, and neither is picked alone" if shared else ""
    sentence = f"{_subject(case)}, because {row.says}{alone}"
    return Verdict(
        row.owner, confidence, row.id, RULES_VERSION, sentence, tuple(dict.fromkeys(evidence)), short,
        _rejected(answers, claims), partner, tuple(beside),
    )  # fmt: skip


def _nobody(case: Case, answers: list[Told], steps: tuple[Evidence, ...]) -> Verdict:
    mine = symptom(case.incident)
    hints = [hint for hint in HINTS if mine in hint.symptoms and QUESTIONS[hint.question][0](case.incident)]
    row = hints[0].id if hints else "-"
    texts = tuple(Evidence("G1", f"{QUESTIONS[each.question][1]}: {each.says}") for each in hints)
    names = dict.fromkeys(name for _, answer in answers if answer.truth is None for name in answer.facts)
    if holds(case.facts.host) is not True:
        names["host"] = None
    missing = tuple(_missing(case.facts, name) for name in sorted(names, key=_WEIGHT.index))
    if hints:
        reason = hints[0].says
    elif missing:
        reason = f"it is not known: {missing[0].text}"
    else:
        reason = "no row of the table is that of what was found"
    return _undetermined(case, row, reason, answers, (*steps, *texts), missing)


def _undetermined(
    case: Case,
    row: str,
    reason: str,
    answers: list[Told],
    steps: tuple[Evidence, ...],
    missing: tuple[Missing, ...],
) -> Verdict:
    rejected = list(_rejected(answers, set()))
    if QUESTIONS["rotating"][0](case.incident):
        rejected.append(Rejected(Owner.GUEST_KERNEL, QUESTIONS["rotating"][1]))
    return Verdict(
        Owner.UNDETERMINED, Confidence.NONE, row, RULES_VERSION,
        f"{_subject(case)}, and who owned that is undetermined: {reason}",
        (*steps, *case.facts.found), tuple(dict.fromkeys(missing)), tuple(dict.fromkeys(rejected)),
    )  # fmt: skip


# An owner is rejected where all of its rows are false by what was measured: never because the text is silent.
def _rejected(answers: list[Told], claims: set[Owner | None]) -> tuple[Rejected, ...]:
    found: dict[Owner, str] = {}
    for owner in dict.fromkeys(row.owner for row, _ in answers):
        mine = [answer for row, answer in answers if row.owner is owner]
        if owner in claims or owner in _NO_LAYERS:
            continue
        if all(answer.truth is False and not answer.silent for answer in mine):
            found[owner] = mine[0].why
    return tuple(Rejected(*each) for each in found.items())


# What the rules of confidence allow, and what it would have taken for more.
def _confidence(case: Case, row: Row) -> tuple[Confidence, tuple[Missing, ...]]:
    facts, short = case.facts, []
    of_vm = symptom(case.incident) is Symptom.VM
    if of_vm and not holds(facts.monitored):
        short.append(_missing(facts, "monitored"))
    if not of_vm and not holds(facts.mapped):
        short.append(_missing(facts, "mapped"))
    if not of_vm and (facts.lost.value != 0 or not facts.lost.complete):
        short.append(_missing(facts, "lost"))
    if case.incident.skipped:
        text = f"{case.incident.skipped} records of its kernel log, which were left out: more came than are read of one"
        short.append(Missing("M2", text, "read them in the table kmsg"))
    if not _exact(facts):
        short.append(_missing(facts, "clock_error_s"))
    if symptom(case.incident) in (Symptom.CPU, Symptom.CLOCK):
        shares = [fact.value for _, fact in case.vcpus()]
        if not shares or any(each is None or each.known < KNOWN_MIN for each in shares):
            short.append(_missing(facts, "vcpu"))
        elif row.letters == "GX" and any(each is None or each.at_least("G") < _IN_GUEST_MIN for each in shares):
            short.append(_missing(facts, "exits"))
    short += [_missing(facts, name) for name in _half_known(facts, row)]
    highest = Confidence.MEDIUM if short else Confidence.HIGH
    if holds(facts.host) is not True:
        highest = Confidence.LOW
        short.insert(0, _missing(facts, "host"))
    return min(row.confidence, highest, key=_ORDER.index), tuple(short)


# The threads beside the vCPUs that the row asks for, and of whose time too little is known.
def _half_known(facts: Facts, row: Row) -> list[str]:
    asked = dict.fromkeys(each.of for each in row.conditions if isinstance(each, Share) and each.of != "vcpu")
    known = {name: facts.shares(name).value for name in asked}
    return [name for name, shares in known.items() if shares is None or shares.known < KNOWN_MIN]


def _exact(facts: Facts) -> bool:
    error, length = facts.clock_error_s.value, facts.length_s
    return error is not None and error <= max(ERROR_S_MAX, (length or 0) / 10)


def _missing(facts: Facts, name: str) -> Missing:
    about = ABOUT[name]
    if name == "vcpu":
        fact = next((each for each in facts.vcpus.values() if each.value is None), None)
        why, remedy = ("", "") if fact is None else (fact.why, fact.remedy)
        if fact is None and facts.vcpus:
            why = "only a part of the time is accounted for"
    else:
        fact = getattr(facts, name)
        why, remedy = (fact.why or (fact.text if fact.value is not None else "")), fact.remedy
    return Missing(about.id, about.title + (f": {why}" if why else ""), remedy or about.remedy)


# What the text says the other way; it is told, and outweighed.
def _against(case: Case, owner: Owner) -> tuple[Evidence, ...]:
    shape, records = case.incident.root.shape, (of_report(case.incident),)
    if owner in _BELOW and shape is Shape.RAN:
        return (Evidence("G1", "the report's ticks say that the CPU ran all along (shape A)", records, against=True),)
    if owner in _GUEST and shape is Shape.NOTHING_RAN:
        return (Evidence("G1", "the report says that nothing ran on the CPU (shape B)", records, against=True),)
    return ()


def _subject(case: Case) -> str:
    incident, root = case.incident, case.incident.root
    match symptom(incident):
        case Symptom.CPU:
            cpus = ", ".join(map(str, case.cpus))
            who = (
                f"CPU {cpus} stood still"
                if len(case.cpus) == 1
                else f"CPUs {cpus} stood still"
                if cpus
                else "CPUs stood still"
            )
        case Symptom.TASK:
            who = f"{root.task or 'a task'} was blocked"
        case Symptom.CLOCK:
            who = "a clock was found unstable"
        case Symptom.NETWORK:
            who = "a network device sent nothing"
        case Symptom.VM if root.kind is Kind.VM_STOPPED:
            who = f"VM {incident.vm} was stopped"
        case Symptom.VM:
            return "the guest's kernel panicked" if root.kind is Kind.PANIC else "the guest's watchdog fired"
        case _:
            return "the kernel panicked" + (f" ({why})" if (why := panic_reason(root)) else "")
    length = case.facts.length_s
    if length is None and incident.duration is not None:
        length = incident.duration.high
    return who + (f" for {length:.1f} s" if length is not None else "")
